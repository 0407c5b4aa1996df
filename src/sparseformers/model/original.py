"""The front of the original SparseFormer, "v1": Gao et al., "SparseFormer: Sparse Visual Recognition via Limited Latent
Tokens", ICLR 2024.

It is made of the same boxes as that of the CVPR paper in another order: attention, RoI adjustment, sampling and mixing,
feed-forward. Legend: B batch, N latent tokens, P sampling points per token, C stem channels, F focusing width, D cortex width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, OriginalFocusingConfig
from sparseformers.model.block import TransformerBlock
from sparseformers.model.focusing import FocusingState, RoIAdjustment
from sparseformers.model.front import FrontOutput, refuse_other_tokens
from sparseformers.model.layers import QuietLayerNorm, start_linear
from sparseformers.model.mixing import OriginalMixing
from sparseformers.model.sampling import BilinearSampling, SampledTokens, SamplingPoints, Stem


class ClampGradient(torch.autograd.Function):
    """The identity, whose gradient is clamped elementwise."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, limit: float) -> Tensor:
        """``x`` as it is; ``limit`` is the largest size of an element of its gradient."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(-ctx.limit, ctx.limit), None


class OriginalSampling(nn.Module):
    """Sampling points, bilinear sampling with nothing outside the image, mixing."""

    def __init__(self, width: int, config: OriginalFocusingConfig) -> None:
        super().__init__()
        self.sampling_points = SamplingPoints(width, config.points, norm_eps=config.norm_eps)
        self.read = BilinearSampling(outside="zeros")
        self.mixing = OriginalMixing(width, config.channels, config.points, width // config.mixing_reduction)

    def start(self) -> None:
        """Starting values of its parts; linear layers have theirs already."""
        self.sampling_points.start()
        self.mixing.generator.start()

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> SampledTokens:
        """Feature map B x C x H x W, tokens B x N x width, RoIs B x N x 4 -> tokens that have seen the image.

        Backwards, the gradient to the points is clamped to +-1/H: bilinear sampling gives a few points very large ones.
        """
        points = self.sampling_points(tokens, rois)  # B x N x P x 2
        sampled = self.read(features, ClampGradient.apply(points, 1 / features.shape[-2]))  # B x N x P x C
        return SampledTokens(self.mixing(tokens, sampled), points)


class OriginalLayer(nn.Module):
    """All four operations: exchange between tokens, adjust the RoIs, sample, feed forward."""

    def __init__(self, width: int, config: OriginalFocusingConfig) -> None:
        super().__init__()
        block = BlockConfig(width=width, heads=config.heads, feed_forward_width=4 * width, norm_eps=config.norm_eps)
        self.block = TransformerBlock(block, left_out=config.stochastic_depth)
        self.adjustment = RoIAdjustment(
            nn.Sequential(QuietLayerNorm(width, eps=config.norm_eps), nn.Linear(width, 4, bias=False))
        )
        self.sampling = OriginalSampling(width, config)

    def start(self) -> None:
        """Starting values of its parts; linear layers have theirs already."""
        self.adjustment.start()
        self.sampling.start()

    def forward(self, features: Tensor, tokens: Tensor, rois: Tensor) -> FocusingState:
        """Feature map B x C x H x W, tokens B x N x width, RoIs B x N x 4 -> the next state."""
        tokens = self.block.attend(tokens)
        rois = self.adjustment(tokens, rois)
        return self.after_sampling(self.sampling(features, tokens, rois), rois)

    def after_sampling(self, sampled: SampledTokens, rois: Tensor) -> FocusingState:
        """As :meth:`FocusingLayer.after_sampling`."""
        return FocusingState(self.block.feed_forward(sampled.tokens), rois, sampled.points)


class OriginalFocusingTransformer(nn.Module):
    """The front of v1: a stem, focusing iterations with shared weights, and a last layer at the cortex's width D."""

    def __init__(self, config: OriginalFocusingConfig, cortex_width: int) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.stem = Stem(config.channels)
        self.token = nn.Parameter(torch.empty(config.tokens, config.width))
        self.initial_rois = nn.Parameter(roi_arithmetic.initial_grid(config.tokens))
        self.layer = OriginalLayer(config.width, config)
        self.widen = nn.Sequential(nn.Linear(config.width, cortex_width), nn.LayerNorm(cortex_width, eps=config.norm_eps))
        self.last_layer = OriginalLayer(cortex_width, config)
        self.start()

    def start(self) -> None:
        """Starting values; the zero-initialised branches keep RoIs, points and mixing matrices alike for all tokens."""
        self.apply(start_linear)
        nn.init.trunc_normal_(self.token, std=1.0)
        self.layer.start()
        self.last_layer.start()

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """B x 3 x H x W normalised images -> tokens B x N x D with their RoIs; it has no other N than its own."""
        refuse_other_tokens(tokens, len(self.initial_rois))
        features = self.stem(images)  # B x C x H/4 x W/4
        rois = self.initial_rois.float().expand(images.shape[0], -1, -1)  # B x N x 4
        latent = self.token.expand(images.shape[0], -1, -1)  # B x N x F
        return self.after_first(features, rois, self.layer(features, latent, rois))

    def after_first(self, features: Tensor, rois: Tensor, first: FocusingState) -> FrontOutput:
        """As :meth:`FocusingTransformer.after_first`."""
        states = [first]
        for _ in range(1, self.iterations):
            states.append(self.layer(features, states[-1].tokens, states[-1].rois))

        states.append(self.last_layer(features, self.widen(states[-1].tokens), states[-1].rois))
        all_rois = torch.stack([rois, *(state.rois for state in states)], dim=1)  # B x S x N x 4
        return FrontOutput(states[-1].tokens, all_rois, tuple(state.points for state in states))
