"""The objective: the student's image embedding should point where the teacher's does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.evaluation.attention import TeacherAnswer
from sparseformers.evaluation.dense import dense_cosine
from sparseformers.inheritance.fitted import CoarseTokens
from sparseformers.model import SparseFormerOutput
from sparseformers.model.selector import map_divergence
from sparseformers.teachers import TeacherOutput

FLOOR = 0.1  # share of the mean variance that whitening adds along each axis
MAP_WEIGHT = 0.01  # of the map's loss, which only the selector learns by: AdamW takes any, and a small one leaves clipping alone
DENSE_WEIGHT = 0.02  # of the map of features: AdamW takes any for the read-out, and the embedding is to lose nothing by it
COARSE_WEIGHT = 1.0  # of the coarse tokens at the start of a training with the fitted start
COARSE_SHARE = 0.3  # of the training, over which that weight falls to zero
AnyTeacher: TypeAlias = Callable[[Tensor], TeacherOutput | TeacherAnswer]


class Targets(NamedTuple):
    """The teacher's answer on B images, without gradient; None where it is not asked for."""

    embedding: Tensor  # B x D_out
    tokens: Tensor | None = None  # B x D x rows x columns, its patch tokens
    coarse: Tensor | None = None  # B x N x D, its tokens at the truncation depth on an image with N patches
    attention_map: Tensor | None = None  # B x rows x columns, of sum 1, its attention


def teacher_targets(teacher: AnyTeacher, images: Tensor, autocast: torch.dtype | None) -> Targets:
    """The teacher's answer on images B x 3 x H x W in [0, 1] of its size; an AttendingTeacher gives tokens and maps, too.

    ``autocast`` is the precision; None for float32.
    """
    with torch.inference_mode(), torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
        answer = teacher(images)
    # Autograd does not take tensors of inference mode; a copy made outside of it is an ordinary one.
    embedding = answer.embedding.clone()
    if isinstance(answer, TeacherAnswer):
        maps = answer.attention_map
        return Targets(embedding, answer.tokens.clone(), attention_map=None if maps is None else maps.clone())
    return Targets(embedding)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings ... x D, a float32 scalar in [0, 2] (Gao et al., CVPR 2024, section 3)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def unexplained_variance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared differences between tokens B x N x D, as a share of the variance of ``theirs`` over images and places.

    It is a float32 scalar, 0 for equal tokens and 1 for the teacher's mean token everywhere.
    """
    wanted = theirs.float()
    spread = (wanted - wanted.mean(dim=(0, 1))).square().mean()
    return (ours.float() - wanted).square().mean() / (spread + torch.finfo(torch.float32).tiny)


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map after which the embeddings that it was made from have mean 0 and nearly the unit matrix as covariance."""

    mean: Tensor  # D
    matrix: Tensor  # D x D

    @classmethod
    def of(cls, embeddings: Tensor) -> Whitening:
        """The whitening along the principal axes of M x D embeddings, float32.

        A tenth of the mean variance is added along each axis, so that those along which few embeddings happen not to differ do
        not drown the others; there may be fewer embeddings than channels. Equal embeddings are left as they are.
        """
        known = embeddings.double().cpu()
        mean = known.mean(dim=0)
        centred = known - mean
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        variances = variances.clamp(min=0)
        if variances.mean() <= torch.finfo(torch.float32).eps * known.square().mean():  # one image, or the same one again
            return cls(torch.zeros_like(mean).to(embeddings), torch.eye(len(mean)).to(embeddings))
        scale = (variances + FLOOR * variances.mean() + torch.finfo(torch.float32).tiny).rsqrt()
        return cls(mean.to(embeddings), (axes * scale).to(embeddings))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """B x D -> B x D, float32."""
        with torch.autocast(embeddings.device.type, enabled=False):  # the axes of little variance are lost in bfloat16
            return (embeddings.float() - self.mean) @ self.matrix


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss, a float32 scalar of at least 0, of a student's output by its teacher's answer: the cosine, and more if asked."""

    whitening: Whitening | None = None  # of embeddings, before the cosine is taken
    centre: Tensor | None = None  # D, the teacher's mean patch token, which maps are seen from; without it they are not learnt
    spread: float | None = None  # the variance of its patch tokens, where these are not normed and their lengths count, too
    coarse_weight: float = 0.0  # of the differences between the front's tokens and the teacher's on a coarse grid

    def at(self, progress: float) -> Objective:
        """The objective after that share of the training, in [0, 1]: coarse tokens fade out."""
        return replace(self, coarse_weight=self.coarse_weight * max(0.0, 1 - progress / COARSE_SHARE))

    def __call__(self, output: SparseFormerOutput, targets: Targets) -> Tensor:
        embeddings = (output.embedding, targets.embedding)
        loss = cosine_distance(*(embeddings if self.whitening is None else map(self.whitening, embeddings)))
        if output.dense is not None and targets.tokens is not None and self.centre is not None:
            loss = loss + DENSE_WEIGHT * (1 - dense_cosine(output.dense, targets.tokens, self.centre)).mean()
            if self.spread is not None:
                loss = loss + DENSE_WEIGHT * (output.dense - targets.tokens.float()).square().mean() / self.spread
        if self.coarse_weight and targets.coarse is not None:
            loss = loss + self.coarse_weight * unexplained_variance(output.focused, targets.coarse)
        if output.attention_map is not None and targets.attention_map is not None:
            loss = loss + MAP_WEIGHT * map_divergence(output.attention_map, targets.attention_map)
        return loss


PLAIN = Objective()  # the paper's: the plain cosine of the embeddings


def alignment_loss(
    student: Callable[..., SparseFormerOutput],
    teacher: AnyTeacher,
    images: Tensor,
    autocast: torch.dtype | None,
    targets: Targets | None = None,
    *,
    objective: Objective = PLAIN,
    coarse: CoarseTokens | None = None,
    tokens: int | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """The objective on one batch that both see alike: the teacher without gradient, the student with.

    ``student`` may be the wrapper that synchronises its gradients between processes. ``images`` are B x 3 x H x W in [0, 1] at
    the teacher's size, ``targets`` its answer on them where that is known: it is not run then. ``autocast`` is the precision of
    both, None for float32; ``coarse`` gives the coarse tokens, where the objective has a weight for them; ``tokens`` is the
    student's number, if other than its own; ``grid`` that of the map of features, if it learns one.
    """
    answer = teacher_targets(teacher, images, autocast) if targets is None else targets
    with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
        if coarse is not None and objective.coarse_weight:
            with torch.no_grad():
                answer = answer._replace(coarse=coarse.latent(images))
        return objective(student(images, tokens) if grid is None else student(images, tokens, grid), answer)
