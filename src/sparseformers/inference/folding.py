"""Folding: what does not depend on the image is computed once, and not for every image again."""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.inference.fronts import FoldedFocusing, FoldedGrid
from sparseformers.model import FocusingTransformer, Front, OriginalFocusingTransformer, SparseFormer, SparseFormerOutput
from sparseformers.model.block import TransformerBlock
from sparseformers.model.grid import GridFront
from sparseformers.model.layers import LayerScale
from sparseformers.model.sparseformer import check_images
from sparseformers.rois import grid_of


class FoldedSparseFormer(nn.Module):
    """A student for inference at one number of tokens, with the outputs of the student that it was made of.

    Its weights are not a student's any more: it cannot be trained or saved as one. It compiles and exports as a student does.

    Args:
        student: a copy that may be taken apart.
        tokens: N.
    """

    def __init__(self, student: SparseFormer, tokens: int) -> None:
        super().__init__()
        self.config = student.config
        self.tokens = tokens
        self.normalise: nn.Module = student.normalise
        front = cast(nn.Module, student.focusing)
        if isinstance(front, FocusingTransformer | OriginalFocusingTransformer):
            front = FoldedFocusing(front)
        elif isinstance(front, GridFront) and math.prod(grid_of(tokens, front.aspect)) == tokens:  # all rows have as many cells
            front = FoldedGrid(front, student.normalise, tokens)
            self.normalise = nn.Identity()
        self.focusing = cast(Front, front)
        self.cortex = student.cortex
        fold_layer_scales(self)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> SparseFormerOutput:
        """As :meth:`SparseFormer.forward` at the number of tokens that it was folded for."""
        check_images(images)
        front = self.focusing(self.normalise(images), self.tokens)
        embedding, logits, final_tokens, _ = self.cortex(front.tokens, front.final_rois)
        return SparseFormerOutput(embedding, logits, final_tokens, front.rois, front.tokens, front.attention_map)


def fold(student: SparseFormer, *, tokens: int | None = None) -> FoldedSparseFormer:
    """A student for inference, with everything computed beforehand that does not depend on the image.

    That is, in the papers' fronts: the tokens, RoIs, sampling points and mixing matrices of the first sampling (in v1 after the
    first attention). In the grid front, if its rows are of equal length: RoIs, points, positions, and the normalisation, which
    becomes part of the patch embedding. In all blocks: the factors of LayerScale.

    Args:
        student: is copied, and stays as it is.
        tokens: latent tokens N, if other than configured; the papers' fronts have no other numbers.

    Returns:
        In evaluation mode, on the student's device. Its embeddings are the student's but for the rounding of float32.

    Raises:
        ValueError: for a number of tokens that the front cannot give.
    """
    if not isinstance(student, SparseFormer):
        raise ConfigError(f"A student is a SparseFormer, not {type(student).__name__}.", "Load one with sparseformers.load.")
    own = student.config.focusing
    count = own.tokens if tokens is None else tokens
    own.check_tokens(count)
    with torch.no_grad():
        return FoldedSparseFormer(copy.deepcopy(student).eval(), count).eval()


def fold_layer_scales(network: nn.Module) -> None:
    """Puts the factors of a block's branches into the last linear layer of each, in place."""
    for block in network.modules():
        if isinstance(block, TransformerBlock) and isinstance(block.ls1, LayerScale) and isinstance(block.ls2, LayerScale):
            _scale(block.attn.proj, block.ls1.gamma.detach())
            _scale(block.mlp.fc2, block.ls2.gamma.detach())
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()


def _scale(linear: nn.Linear, factors: Tensor) -> None:
    """Multiplies what a linear layer gives by one factor per channel."""
    linear.weight.data = linear.weight.data * factors.unsqueeze(1)
    if linear.bias is not None:
        linear.bias.data = linear.bias.data * factors
