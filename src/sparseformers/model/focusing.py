"""The focusing transformer: from an image to N tokens, each with the region of interest that it stands for."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, FocusingConfig
from sparseformers.model.block import TransformerBlock
from sparseformers.model.sampling import FeatureSampling, Glimpse
from sparseformers.model.start import quiet_layer_norm, start_linear
from sparseformers.model.stem import Stem


class Focus(NamedTuple):
    """An image as tokens: what every front of a SparseFormer gives to the cortex."""

    tokens: Tensor
    """B x N x D, at the cortex's width."""
    rois: Tensor
    """B x S x N x 4: the RoIs at the start and after each adjustment, (x1, y1, x2, y2) in [0, 1] of the image."""
    points: tuple[Tensor, ...]
    """Where each look at the image read it, one B x N x P x 2 per look, (x, y) in [0, 1] of the image."""


class Front(Protocol):
    """The seam between image and cortex: anything that turns normalised images into a :class:`Focus` fits here."""

    def __call__(self, images: Tensor, tokens: int | None = None) -> Focus:
        """B x 3 x H x W normalised images -> their focus.

        Args:
            images: the images.
            tokens: N, if other than configured; most fronts have no other.

        Raises:
            ValueError: for another number of tokens than the front can give.
        """
        ...


def refuse_other_tokens(tokens: int | None, own: int) -> None:
    """Raises ValueError for a number of tokens other than the only one that a front has."""
    if tokens not in (None, own):
        raise ValueError(f"this front has {own} tokens and no other number, not {tokens}")


class RoIAdjustment(nn.Module):
    """A token moves and scales its own RoI, by a two-layer MLP (appendix A.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.delta = nn.Sequential(quiet_layer_norm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4, bias=False))

    def start(self) -> None:
        """RoIs stay where they are at first."""
        nn.init.zeros_(cast(nn.Linear, self.delta[-1]).weight)

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x N x width and RoIs B x N x 4 -> RoIs B x N x 4, float32."""
        return roi_arithmetic.adjust(rois, self.delta(tokens))


class FocusingStep(NamedTuple):
    """The state after one focusing iteration."""

    tokens: Tensor
    """B x N x F."""
    rois: Tensor
    """B x N x 4."""
    points: Tensor
    """B x N x P x 2, sampled in this iteration."""


class FocusingLayer(nn.Module):
    """One iteration: look, exchange between tokens, think, move (appendix A.2)."""

    def __init__(self, config: FocusingConfig) -> None:
        super().__init__()
        width = config.width
        self.sampling = FeatureSampling(width, config)
        self.block = TransformerBlock(BlockConfig(width=width, heads=width // 64, feed_forward_width=4 * width, norm_eps=1e-5))
        self.adjustment = RoIAdjustment(width)

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> FocusingStep:
        """Feature map B x C x H x W, tokens B x N x F, RoIs B x N x 4 -> the next step."""
        return self.after_look(self.sampling(features, tokens, rois), rois)

    def after_look(self, glimpse: Glimpse, rois: Tensor) -> FocusingStep:
        """The rest of the iteration, from what was seen in the RoIs B x N x 4."""
        tokens = self.block(glimpse.tokens)
        return FocusingStep(tokens, self.adjustment(tokens, rois), glimpse.points)


class FocusingTransformer(nn.Module):
    """The bootstrapped front: a stem, focusing iterations with shared weights, and a last look at the cortex's width.

    Args:
        config: its sizes.
        cortex_width: D, the width of the tokens that it gives.
    """

    def __init__(self, config: FocusingConfig, cortex_width: int) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.stem = Stem(config.channels)
        self.token = nn.Parameter(torch.empty(1, config.width))
        self.initial_rois = nn.Parameter(roi_arithmetic.initial_grid(config.tokens))
        self.stages = nn.Parameter(torch.empty(config.iterations, config.width))
        self.layer = FocusingLayer(config)
        self.widen = nn.Linear(config.width, cortex_width)
        self.last_sampling = FeatureSampling(cortex_width, config)
        self.start()

    def start(self) -> None:
        """Starting values; the zero-initialised branches keep RoIs, points and mixing matrices alike for all tokens."""
        self.apply(start_linear)
        nn.init.trunc_normal_(self.token, std=1.0)
        nn.init.trunc_normal_(self.stages, std=0.02)
        self.layer.sampling.start()
        self.layer.adjustment.start()
        self.last_sampling.start()

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """B x 3 x H x W normalised images -> tokens B x N x D with their RoIs; it has no other N than its own."""
        refuse_other_tokens(tokens, len(self.initial_rois))
        features = self.stem(images)
        rois = self.initial_rois.float().expand(images.shape[0], -1, -1)  # B x N x 4
        latent = self.token.expand(images.shape[0], rois.shape[1], -1)  # B x N x F
        return self.go_on(features, rois, self.layer(features, latent + self.stages[0], rois))

    def go_on(self, features: Tensor, rois: Tensor, first: FocusingStep) -> Focus:
        """Feature map B x C x H x W, the RoIs at the start B x N x 4 and the first iteration's step -> what comes of them."""
        steps = [first]
        for stage in range(1, self.iterations):
            before = steps[-1]
            steps.append(self.layer(features, before.tokens + self.stages[stage], before.rois))

        latent, looked_at = self.last_sampling(features, self.widen(steps[-1].tokens), steps[-1].rois)
        stage_rois = [rois, *(step.rois for step in steps)]
        return Focus(latent, torch.stack(stage_rois, dim=1), (*(step.points for step in steps), looked_at))
