"""What a network makes of one image, as plain JSON values.

Legend: S stages, N latent tokens, P sampling points. Coordinates are x to the right and y down, in [0, 1] of what the network
was given (or outside of it); ``seen`` says which part of the photograph that is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.errors import SparseFormersError
from sparseformers.evaluation import TeacherAttention, token_influence
from sparseformers.figures import trace_rois
from sparseformers.teachers import Teacher
from sparseformers.viewer.models import Model
from sparseformers.viewer.photograph import Photograph

DIGITS = 5
"""Of a coordinate: a hundredth of a pixel of what the page shows."""


def look(model: Model, photograph: Photograph) -> dict[str, Any]:
    """Where a student looks at a photograph, and how much each token counts.

    Returns:
        ``rois`` S x N x 4 as (x1, y1, x2, y2); ``points``, for each stage N x P x 2 as (x, y), or None for a stage at which
        nothing was read; ``influence``, N shares that sum to one, or None and ``influence_problem``; ``seen``.
    """
    view = photograph.views[model.preprocessing]
    images = view.image()[None]
    (picture,) = trace_rois(model.student, images, [photograph.name])
    influence, problem = None, None
    try:
        influence = _plain(token_influence(model.student, images)[0])
    except SparseFormersError as error:
        problem = error.problem
    # v1 moves its RoIs before it looks, so that nothing is read at its first stage.
    unread = len(picture.rois) - len(picture.points)
    return {
        "rois": _plain(picture.rois),
        "points": [None] * unread + [_plain(points) for points in picture.points],
        "influence": influence,
        "influence_problem": problem,
        "seen": view.seen,
    }


def attend(teacher: Teacher, attention: TeacherAttention, photograph: Photograph) -> dict[str, Any]:
    """What a teacher attends to in a photograph.

    Returns:
        ``last`` and ``rollout``, h x w shares that sum to one, row by row from the top left, and ``seen``.
    """
    view = photograph.views[teacher.preprocessing]
    maps = attention(view.image()[None])
    return {"last": _plain(maps.last[0], 7), "rollout": _plain(maps.rollout[0], 7), "seen": view.seen}


@torch.inference_mode()
def embed(network: Model | Teacher, photograph: Photograph, device: torch.device) -> Tensor:
    """The embedding of a photograph, D values on the CPU."""
    module, preprocessing = module_of(network)
    embedding: Tensor = module(photograph.views[preprocessing].image()[None].to(device)).embedding
    return embedding[0].float().cpu().clone()


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two embeddings."""
    return round(float(F.cosine_similarity(first, second, dim=0)), 4)


def module_of(network: Model | Teacher) -> tuple[Any, Any]:
    """The module that embeds, and the preprocessing of what it is given."""
    if isinstance(network, Model):
        return network.student, network.preprocessing
    return network, network.preprocessing


def _plain(values: Tensor, digits: int = DIGITS) -> Any:
    """A tensor as nested lists; rounded, because a float32 has no more to say and takes twice the characters."""
    return torch.round(values.double(), decimals=digits).tolist()
