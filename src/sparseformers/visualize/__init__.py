"""Where a SparseFormer looks, drawn on the image; and how its training went.

``data`` says what there is to draw, ``layout`` where the panels go, ``panels`` and ``figure`` draw them.
"""

from sparseformers.visualize.colours import token_colours
from sparseformers.visualize.data import FocusPicture, coverage, trace_focus
from sparseformers.visualize.figure import curves_figure, draw_focus, save_figure

__all__ = ["FocusPicture", "coverage", "curves_figure", "draw_focus", "save_figure", "token_colours", "trace_focus"]
