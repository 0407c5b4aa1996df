"""Where a SparseFormer looks, drawn on the image; and how its training went.

``views`` gives a student its photographs and puts what it saw back on them, ``data`` says what there is to draw, ``sheet`` and
``layout`` where the panels go, ``panels`` what is in them. Each figure has a file: ``trace_X`` gives its data, ``draw_X`` draws.
"""

from sparseformers.figures.animation import Glide, draw_frames, glide, save_animation
from sparseformers.figures.colours import token_colours
from sparseformers.figures.data import FocusPicture, coverage, trace_focus
from sparseformers.figures.density import DensityPicture, draw_density, trace_density, trace_density_on_photographs
from sparseformers.figures.figure import curves_figure, save_figure
from sparseformers.figures.iterations import centre_paths, draw_iterations
from sparseformers.figures.models import ModelsPicture, draw_focus, draw_models, trace_models
from sparseformers.figures.pca import PCAPicture, draw_pca, trace_pca, trace_pca_on_photographs
from sparseformers.figures.run import Visualization, visualize
from sparseformers.figures.tokens import TokensPicture, draw_tokens, trace_tokens, trace_tokens_on_photographs
from sparseformers.figures.views import trace_photographs

__all__ = [
    "DensityPicture",
    "FocusPicture",
    "Glide",
    "ModelsPicture",
    "PCAPicture",
    "TokensPicture",
    "Visualization",
    "centre_paths",
    "coverage",
    "curves_figure",
    "draw_density",
    "draw_focus",
    "draw_frames",
    "draw_iterations",
    "draw_models",
    "draw_pca",
    "draw_tokens",
    "glide",
    "save_animation",
    "save_figure",
    "token_colours",
    "trace_density",
    "trace_density_on_photographs",
    "trace_focus",
    "trace_models",
    "trace_pca",
    "trace_pca_on_photographs",
    "trace_photographs",
    "trace_tokens",
    "trace_tokens_on_photographs",
    "visualize",
]
