"""The interface of all fronts of a SparseFormer: they turn an image into tokens with regions of interest."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class FrontOutput(NamedTuple):
    """An image as tokens: what a front gives to the cortex."""

    tokens: Tensor
    """B x N x D at the cortex's width, or B x (R+N) x D from a front that puts the prefix tokens in."""
    rois: Tensor
    """B x S x N x 4: the RoIs at the start and after each adjustment or split, (x1, y1, x2, y2) in [0, 1] of the image. Where
    they are split, each stage has for each of the N leaves the RoI that it lay in."""
    points: tuple[Tensor, ...]
    """The sampling points, one B x N x P x 2 for each time that the image is sampled, (x, y) in [0, 1] of the image."""
    attention_map: Tensor | None = None
    """B x h x w, float32, of sum 1: the share of the teacher's attention that is expected in each part of the image, by which
    RoIs were split; None from a front without a map."""
    fixed_rois: bool = False
    """Whether the RoIs are the same in all images."""

    @property
    def final_rois(self) -> Tensor:
        """B x N x 4, or 1 x N x 4 where RoIs are fixed: the RoIs of the tokens as they enter the cortex."""
        return self.rois[: 1 if self.fixed_rois else None, -1]


class Front(Protocol):
    """The seam between image and cortex: another way of making tokens is another class with this call."""

    def __call__(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """Makes tokens of normalised images B x 3 x H x W: N of them, if other than configured.

        Raises ValueError for another number of tokens than the front can give; most have their own alone.
        """
        ...


def refuse_other_tokens(tokens: int | None, own: int) -> None:
    """Raises ValueError for a number of tokens other than the only one that a front has."""
    if tokens not in (None, own):
        raise ValueError(f"this front has {own} tokens and no other number, not {tokens}")
