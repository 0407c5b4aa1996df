"""The SparseFormer, composed of its parts: normalisation, front, cortex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparseformers.config import SparseFormerConfig
from sparseformers.cortex_config import CortexConfig
from sparseformers.front_config import FrontConfig, GridConfig, MixedResolutionConfig, OriginalFocusingConfig
from sparseformers.model.cortex import CortexOutput, build_cortex
from sparseformers.model.focusing import FocusingTransformer
from sparseformers.model.front import Front, FrontOutput
from sparseformers.model.grid import GridFront
from sparseformers.model.mixed_resolution import MixedResolutionFront
from sparseformers.model.original import OriginalFocusingTransformer
from sparseformers.model.read_out import ReadOut
from sparseformers.model.splatting import splat

SMALLEST_SIDE = 32  # smallest height or width of an image, in pixels


class SparseFormerOutput(NamedTuple):
    """The output of a SparseFormer."""

    embedding: Tensor
    """B x D_out, the image embedding in the teacher's space."""
    logits: Tensor | None
    """B x classes through the inherited classifier; None without one."""
    tokens: Tensor
    """B x (R+N) x D after the final norm: R prefix tokens (class token, registers), then the N latent tokens."""
    rois: Tensor
    """B x S x N x 4: RoIs at the start and after each focusing iteration (in v1 also the cortex layer that samples), or after
    each level of splits, (x1, y1, x2, y2) in [0, 1] of the image. N is the same in all stages: where RoIs are split, each of the
    N leaves has there the RoI that it lay in, from a start cell to the leaf itself. The leaves tile the image."""
    focused: Tensor
    """B x N x D, or B x (R+N) x D from a front that puts the prefix tokens in: what the front hands to the cortex."""
    attention_map: Tensor | None = None
    """B x h x w, float32, of sum 1: the share of the teacher's attention that a mixed-resolution front expects in each part of
    the image, by which it chose its RoIs; None from other fronts."""
    dense: Tensor | None = None
    """B x D x h x w, float32: the map of the teacher's features on the grid that was asked for; None where none was."""

    @property
    def latent_tokens(self) -> Tensor:
        """B x N x D: the tokens that have RoIs, without the R prefix tokens."""
        return self.tokens[:, self.tokens.shape[1] - self.rois.shape[-2] :]

    def to_grid(self, size: int | tuple[int, int]) -> Tensor:
        """The latent tokens themselves on a regular grid over the image, whatever the student has learnt besides.

        :meth:`SparseFormer.dense` is what comes nearest to the teacher's map. Each cell here has the mean of the tokens, weighted
        by how near the place is to the middle of their final RoIs, small RoIs before large ones; where no RoI is, of the nearest.
        :mod:`sparseformers.model.splatting` has the kernel and its reasons.

        Differentiable in tokens and RoIs; it works in ``torch.compile`` and ``torch.export``.

        ``size`` is rows and columns (h, w), or one number for both -> B x D x h x w, float32. Raises ValueError for one below 1.
        """
        return splat(self.latent_tokens, self.rois[:, -1], size)


class Normalise(nn.Module):
    """Images in [0, 1] to zero mean and unit variance by the teacher's statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x 3 x H x W."""
        return (images - self.mean) / self.std


class SparseFormer(nn.Module):
    """A front that turns the image into a few tokens with RoIs, the cortex transformer, and perhaps a read-out of maps.

    ``front`` is another way to make tokens than the one that the configuration names.
    """

    def __init__(self, config: SparseFormerConfig, *, front: Front | None = None) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.preprocessing.mean, config.preprocessing.std)
        self.focusing = build_front(config.focusing, config.cortex) if front is None else front
        mixed = config.focusing if isinstance(config.focusing, MixedResolutionConfig) else None
        self.cortex = build_cortex(config.cortex, mixed)
        self.read_out = None if config.read_out is None else ReadOut(config.read_out, config.cortex)

    def forward(self, images: Tensor, tokens: int | None = None, grid: int | tuple[int, int] | None = None) -> SparseFormerOutput:
        """Embeds images B x 3 x H x W in [0, 1], red-green-blue; any H and W from 32 up.

        - ``tokens``: N, if other than configured: with a grid front any number, best one of those that it was trained with.
        - ``grid``: rows and columns (h, w) of the map to give as ``dense``, or one number for both; none is computed without.

        Raises ValueError for other dimensions or channels, a smaller image, or tokens that the front cannot give.
        """
        check_images(images)
        normalised = self.normalise(images)
        front = self.focusing(normalised, tokens)
        cortex = self.cortex(front.tokens, front.final_rois, -1 if self.read_out is None else self.read_out.layer)
        dense = None if grid is None else dense_map(self.read_out, normalised, cortex, front.final_rois, grid)
        return SparseFormerOutput(
            cortex.embedding, cortex.logits, cortex.tokens, front.rois, front.tokens, front.attention_map, dense
        )

    def dense(self, images: Tensor, size: int | tuple[int, int] | None = None) -> Tensor:
        """The map of the teacher's features that the student expects: its tokens on a grid, and what its read-out adds.

        Without a read-out it is :meth:`SparseFormerOutput.to_grid`. Images as for :meth:`forward` -> B x D x h x w, float32;
        ``size`` is (h, w), or one number for both, by default the teacher's own where there is a read-out. Raises ValueError as
        :meth:`forward` does, for a size below 1, and for none where there is no read-out.
        """
        if size is None and self.config.read_out is None:
            raise ValueError("a student without a read-out (--dense) has no grid of its own: give the size of the map")
        own = None if self.config.read_out is None else self.config.read_out.grid
        dense = self(images, grid=own if size is None else size).dense
        assert dense is not None
        return dense

    def sampling_points(self, images: Tensor) -> tuple[Tensor, ...]:
        """The points of :meth:`run_front`: for each sampling one B x N x P x 2, (x, y) in [0, 1] of the image or outside."""
        return self.run_front(images).points

    def run_front(self, images: Tensor) -> FrontOutput:
        """Runs the front only, on images as for :meth:`forward`."""
        check_images(images)
        return self.focusing(self.normalise(images))


def build_front(config: FrontConfig, cortex: CortexConfig) -> Front:
    """The front of a SparseFormer, with starting values, for a cortex of that form."""
    if isinstance(config, OriginalFocusingConfig):
        return OriginalFocusingTransformer(config, cortex.block.width)
    if isinstance(config, GridConfig):
        return GridFront(config, cortex)
    if isinstance(config, MixedResolutionConfig):
        return MixedResolutionFront(config, cortex)
    return FocusingTransformer(config, cortex.block.width)


def dense_map(
    read_out: ReadOut | None, normalised: Tensor, cortex: CortexOutput, rois: Tensor, grid: int | tuple[int, int]
) -> Tensor:
    """The map of features on a grid, B x D x h x w: the latent tokens spread over it, and what the read-out adds."""
    spread = splat(cortex.layer[:, -rois.shape[1] :], rois, grid)
    return spread if read_out is None else read_out(normalised, cortex.tokens, rois, spread)


class WithTokens(nn.Module):
    """A SparseFormer at N other tokens than configured, perhaps with a map, for what calls it with images alone."""

    def __init__(self, student: SparseFormer, tokens: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.student, self.tokens, self.grid = student, tokens, grid

    def forward(self, images: Tensor) -> SparseFormerOutput:
        """As :meth:`SparseFormer.forward`."""
        output: SparseFormerOutput = self.student(images, self.tokens, self.grid)
        return output


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are B x 3 x H x W, floating point, with sides of at least 32 pixels."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be B x 3 x H x W, not {' x '.join(str(side) for side in images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], not {images.dtype}; divide bytes by 255")
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(f"images must be at least {SMALLEST_SIDE} pixels a side, not {images.shape[-2]} x {images.shape[-1]}")
