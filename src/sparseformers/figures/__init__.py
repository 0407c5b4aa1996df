"""RoIs and sampling points of a SparseFormer, drawn on the image; and how its training went.

``run`` has :func:`visualize`; ``data`` gives a student its photographs, ``sheet`` places panels, ``panels`` fills them,
``output`` writes files. Each figure has a file: ``trace_X`` gives its data, ``draw_X`` draws.
"""

from sparseformers.figures.data import RoIPicture, coverage, trace_photographs, trace_rois
from sparseformers.figures.density import DensityPicture, draw_density, trace_density
from sparseformers.figures.map import MapPicture, draw_map, trace_map
from sparseformers.figures.models import ModelsPicture, draw_models, draw_student, trace_models
from sparseformers.figures.motion import Glide, centre_paths, draw_frames, draw_iterations, glide
from sparseformers.figures.output import curves_figure, save_animation, save_figure
from sparseformers.figures.panels import token_colours
from sparseformers.figures.pca import PCAPicture, draw_pca, trace_pca
from sparseformers.figures.run import Visualization, visualize
from sparseformers.figures.tokens import TokensPicture, draw_tokens, trace_tokens

__all__ = [
    "DensityPicture",
    "Glide",
    "MapPicture",
    "ModelsPicture",
    "PCAPicture",
    "RoIPicture",
    "TokensPicture",
    "Visualization",
    "centre_paths",
    "coverage",
    "curves_figure",
    "draw_density",
    "draw_frames",
    "draw_iterations",
    "draw_map",
    "draw_models",
    "draw_pca",
    "draw_student",
    "draw_tokens",
    "glide",
    "save_animation",
    "save_figure",
    "token_colours",
    "trace_density",
    "trace_map",
    "trace_models",
    "trace_pca",
    "trace_photographs",
    "trace_rois",
    "trace_tokens",
    "visualize",
]
