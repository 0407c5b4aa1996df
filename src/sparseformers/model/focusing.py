"""The focusing transformer: from an image to N tokens, each with the region of interest that it stands for."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, FocusingConfig
from sparseformers.model.block import TransformerBlock
from sparseformers.model.front import FrontOutput, refuse_other_tokens
from sparseformers.model.layers import QuietLayerNorm, start_linear
from sparseformers.model.sampling import FeatureSampling, SampledTokens, Stem


class RoIAdjustment(nn.Module):
    """A token moves and scales its own RoI by its (dx, dy, dw, dh), in sizes of the RoI.

    ``delta`` makes these of tokens, and ends in a linear layer without bias.
    """

    def __init__(self, delta: nn.Sequential) -> None:
        super().__init__()
        self.delta = delta

    def start(self) -> None:
        """RoIs stay where they are at first."""
        nn.init.zeros_(cast(nn.Linear, self.delta[-1]).weight)

    def forward(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Tokens B x N x width and RoIs B x N x 4 -> RoIs B x N x 4, float32."""
        return roi_arithmetic.adjust(rois, self.delta(tokens))


class FocusingState(NamedTuple):
    """The state after one focusing iteration."""

    tokens: Tensor  # B x N x F
    rois: Tensor  # B x N x 4
    points: Tensor  # B x N x P x 2, sampled in this iteration


class FocusingLayer(nn.Module):
    """One iteration: sample, exchange between tokens, feed forward, adjust the RoIs (appendix A.2)."""

    def __init__(self, config: FocusingConfig) -> None:
        super().__init__()
        width = config.width
        self.sampling = FeatureSampling(width, config)
        self.block = TransformerBlock(BlockConfig(width=width, heads=width // 64, feed_forward_width=4 * width, norm_eps=1e-5))
        self.adjustment = RoIAdjustment(
            nn.Sequential(QuietLayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4, bias=False))
        )

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> FocusingState:
        """Feature map B x C x H x W, tokens B x N x F, RoIs B x N x 4 -> the next state."""
        return self.after_sampling(self.sampling(features, tokens, rois), rois)

    def after_sampling(self, sampled: SampledTokens, rois: Tensor) -> FocusingState:
        """The rest of the iteration: the sampled tokens and their RoIs B x N x 4 -> the next state."""
        tokens = self.block(sampled.tokens)
        return FocusingState(tokens, self.adjustment(tokens, rois), sampled.points)


class FocusingTransformer(nn.Module):
    """The paper's front: a stem, focusing iterations with shared weights, and a last sampling at the cortex's width D."""

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

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """B x 3 x H x W normalised images -> tokens B x N x D with their RoIs; it has no other N than its own."""
        refuse_other_tokens(tokens, len(self.initial_rois))
        features = self.stem(images)  # B x C x H/4 x W/4
        rois = self.initial_rois.float().expand(images.shape[0], -1, -1)  # B x N x 4
        latent = self.token.expand(images.shape[0], rois.shape[1], -1)  # B x N x F
        first = self.layer(features, latent + self.stages[0], rois)
        return self.after_first(features, rois, first)

    def after_first(self, features: Tensor, rois: Tensor, first: FocusingState) -> FrontOutput:
        """The iterations after the first one, which is computed beforehand for inference.

        Feature map B x C x H/4 x W/4, RoIs at the start B x N x 4, and the state after the first iteration.
        """
        states = [first]
        for stage in range(1, self.iterations):
            states.append(self.layer(features, states[-1].tokens + self.stages[stage], states[-1].rois))

        # Once more at the cortex's width, whose tokens need not adjust their RoIs.
        latent, points = self.last_sampling(features, self.widen(states[-1].tokens), states[-1].rois)  # B x N x D
        all_rois = torch.stack([rois, *(state.rois for state in states)], dim=1)  # B x S x N x 4
        return FrontOutput(latent, all_rois, (*(state.points for state in states), points))
