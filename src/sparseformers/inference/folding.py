"""Folding: what does not depend on the image is computed once, and what is not asked for is not computed at all.

Before the papers' fronts have sampled anything, all is learnt: token, RoI, points, mixing matrices. Where the class token
is the embedding, all tokens give keys and values in the last block, but only the class token asks, and goes through the rest.
Legend: B batch, N latent tokens, T tokens, P sampling points per token, C stem channels, F focusing width, D cortex width.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.errors import ConfigError
from sparseformers.model import FocusingTransformer, Front, OriginalFocusingTransformer, SparseFormer, SparseFormerOutput
from sparseformers.model.block import Attention, TransformerBlock
from sparseformers.model.cortex import TokenPooling
from sparseformers.model.front import FrontOutput, refuse_other_tokens
from sparseformers.model.grid import CellEmbedding, GridFront, read_map
from sparseformers.model.layers import LayerScale
from sparseformers.model.mixed_resolution import MixedCellEmbedding, MixedResolutionFront
from sparseformers.model.mixing import MixingMatrices
from sparseformers.model.original import OriginalSampling
from sparseformers.model.positions import NOWHERE, Places, rotate
from sparseformers.model.sampling import FeatureSampling, SampledTokens
from sparseformers.model.sparseformer import Normalise, check_images


class FoldedSparseFormer(nn.Module):
    """A student for inference at one number of tokens, with the outputs of the student that it was made of.
    Its weights are not a student's any more: it cannot be trained or saved as one. It compiles and exports as a student does.
    The student that it is made of is taken apart.
    """

    def __init__(self, student: SparseFormer, tokens: int) -> None:
        super().__init__()
        self.config = student.config
        self.tokens = tokens
        self.normalise: nn.Module = student.normalise
        front = cast(nn.Module, student.focusing)
        if isinstance(front, FocusingTransformer | OriginalFocusingTransformer):
            front = FoldedFocusing(front)
        elif isinstance(front, GridFront) and math.prod(roi_arithmetic.grid_of(tokens, front.aspect)) == tokens:  # full rows
            front = FoldedGrid(front, student.normalise, tokens)
            self.normalise = nn.Identity()
        elif isinstance(front, MixedResolutionFront):
            weight, bias = of_unnormalised(front.embedding, student.normalise)
            front.embedding.weight, front.embedding.bias = nn.Parameter(weight), nn.Parameter(bias)
            front.selector.brightness = front.selector.brightness / student.normalise.std
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
    """A copy of a student for inference, with everything computed beforehand that does not depend on the image.

    That is, in the papers' fronts: the first sampling (in v1 after the first attention). In the grid front, if its rows are of
    equal length: RoIs, points, positions, and the normalisation, which becomes part of the patch embedding, as it does in the
    mixed-resolution front. In all blocks: the factors of LayerScale. ``tokens`` is N, if other than configured. It is in
    evaluation mode. Raises ValueError for a number of tokens that the front cannot give (those of the papers have one only).
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
    linear.weight.data = linear.weight.data * factors.unsqueeze(1)
    if linear.bias is not None:
        linear.bias.data = linear.bias.data * factors


class ClassTokenAttention(nn.Module):
    """Multi-head attention of the first token to all tokens; the modules of one of all tokens become part of it."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        width = attention.qkv.in_features
        self.heads = attention.heads
        self.q, self.kv = _outputs(attention.qkv, slice(None, width)), _outputs(attention.qkv, slice(width, None))
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.norm, self.proj = attention.norm, attention.proj

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x 1 x D."""
        # Three dimensions all the way: OpenVINO 2026.4 crashes at some sizes where the one token is a matrix B x D.
        parts = (self.q(x[:, :1].contiguous()), *self.kv(x).chunk(2, dim=-1))  # B x 1 x D, and two of B x T x D
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        query, key = self.q_norm(query), self.k_norm(key)
        if places.rotation is not None:  # which leaves the first token's query as it is
            key = rotate(key, places.rotation)
        bias = None if places.bias is None else places.bias[..., :1, :].to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(self.norm(attended.transpose(1, 2).flatten(-2)))


class ClassTokenBlock(nn.Module):
    """A pre-norm transformer block that gives the first token only; the modules of one that gives all become part of it."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, ClassTokenAttention(block.attn), block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2

    def forward(self, x: Tensor, places: Places = NOWHERE) -> Tensor:
        """B x T x D -> B x 1 x D, the first row of what the block gave."""
        x = places.told(x)
        token = x[:, :1] + self.ls1(self.attn(self.norm1(x), places))
        return token + self.ls2(self.mlp(self.norm2(token)))


def _outputs(linear: nn.Linear, rows: slice) -> nn.Linear:
    weight = linear.weight.detach()[rows].clone()
    part = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None, device=weight.device, dtype=weight.dtype)
    part.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach()[rows].clone(), requires_grad=False)
    return part


class FoldedEmbedding(nn.Module):
    """From images to embeddings, for inference at one number of tokens; it compiles and exports as a student does.
    The folded student that it is made of is taken apart.
    """

    def __init__(self, folded: FoldedSparseFormer) -> None:
        super().__init__()
        self.config = folded.config
        self.tokens = folded.tokens
        self.normalise, self.focusing, self.cortex = folded.normalise, folded.focusing, folded.cortex
        self.cortex.classifier = None
        blocks = self.cortex.blocks
        if isinstance(self.cortex.pooling, TokenPooling) and len(blocks) and not folded.config.cortex.block.post_norm:
            blocks[-1] = ClassTokenBlock(cast(TransformerBlock, blocks[-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Images as for :meth:`SparseFormer.forward` -> their embeddings, B x D_out, float32."""
        check_images(images)
        front = self.focusing(self.normalise(images), self.tokens)
        return self.cortex(front.tokens, front.final_rois).embedding.float()


def fold_embedding(student: SparseFormer, *, tokens: int | None = None) -> FoldedEmbedding:
    """A student for inference that gives embeddings alone: folded, and without the work that only other outputs need.
    That is the classifier; and where the class token is the embedding, as in CLIP, AugReg and DINOv2, all that the last block of
    the cortex does for the other tokens but their keys and values. Of SF-B's multiply-adds this is 8%. As :func:`fold` otherwise.
    """
    return FoldedEmbedding(fold(student, tokens=tokens)).eval()


class FoldedSampling(nn.Module):
    """Bilinear sampling at fixed points, and mixing with fixed matrices; modules of the given one become part of it.
    Points and matrices come from ``latent`` (1 x N x F, or 1 x 1 x F where all tokens are still the same) and RoIs 1 x N x 4;
    decoded features are added to ``tokens``, 1 x N x F.
    """

    channel: Tensor
    spatial: Tensor
    tokens: Tensor
    points: Tensor

    def __init__(self, sampling: FeatureSampling | OriginalSampling, latent: Tensor, rois: Tensor, tokens: Tensor) -> None:
        super().__init__()
        self.mixing, self.read = sampling.mixing, sampling.read
        matrices = self.mixing.generator.matrices(latent)
        self.register_buffer("channel", matrices.channel.contiguous())
        self.register_buffer("spatial", matrices.spatial.contiguous())
        self.register_buffer("tokens", tokens)
        self.register_buffer("points", sampling.sampling_points(latent, rois))

    def forward(self, features: Tensor) -> SampledTokens:
        """Feature map B x C x H x W -> tokens that have seen the image."""
        points = self.points.expand(features.shape[0], -1, -1, -1)
        sampled = self.read(features, points)  # B x N x P x C
        return SampledTokens(self.tokens + self.mixing.decode(MixingMatrices(self.channel, self.spatial), sampled), points)


class FoldedFocusing(nn.Module):
    """One of the papers' fronts, which becomes part of it, with the first sampling folded; in v1 with what is before that."""

    rois: Tensor
    sampled_rois: Tensor

    def __init__(self, front: FocusingTransformer | OriginalFocusingTransformer) -> None:
        super().__init__()
        self.front = front
        layer, token = front.layer, front.token.detach().unsqueeze(0)
        rois = front.initial_rois.detach().float().unsqueeze(0)  # 1 x N x 4
        self.register_buffer("rois", rois)
        if isinstance(front, OriginalFocusingTransformer):
            latent = tokens = layer.block.attend(token)  # 1 x N x F
            rois = front.layer.adjustment(latent, rois)
        else:
            latent = token + front.stages[0].detach()  # 1 x 1 x F, the same for all tokens
            tokens = front.layer.sampling.position(latent, rois)
        self.register_buffer("sampled_rois", rois)
        self.first_sampling = FoldedSampling(layer.sampling, latent, rois, tokens)

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`FocusingTransformer.forward`."""
        refuse_other_tokens(tokens, self.rois.shape[1])
        features = self.front.stem(images)
        rois, sampled_rois = (each.expand(images.shape[0], -1, -1) for each in (self.rois, self.sampled_rois))
        first = self.front.layer.after_sampling(self.first_sampling(features), sampled_rois)
        return self.front.after_first(features, rois, first)


def of_unnormalised(embedding: CellEmbedding | MixedCellEmbedding, normalise: Normalise) -> tuple[Tensor, Tensor]:
    """Weight D x 3 x P x P and bias of a patch embedding with the normalisation inside.

    Resizing may come between: it keeps sums of one, and no pixel lies outside.
    """
    weight = embedding.weight.detach()
    bias = -(weight * (normalise.mean / normalise.std)).sum(dim=(1, 2, 3))
    return weight / normalise.std, bias if embedding.bias is None else bias + embedding.bias.detach()


class FoldedGrid(nn.Module):
    """The grid front as a resize, a convolution, and constants: images in [0, 1] to tokens, with the normalisation inside.

    The patches of cells of equal size are those of the image at one resolution, so that reading and patch embedding are a
    convolution whose kernel and stride are a patch. Modules of the grid front become part of it.
    """

    cells: Tensor
    points: Tensor
    positions: Tensor

    def __init__(self, front: GridFront, normalise: Normalise, tokens: int) -> None:
        super().__init__()
        side = front.patch_size
        rows, columns = roi_arithmetic.grid_of(tokens, front.aspect)
        self.size = rows * side, columns * side
        self.resize, self.patch_norm = front.resize, front.embedding.norm
        self.pre_norm, self.prefix = front.pre_norm, front.prefix
        cells = front.cells_of(tokens).unsqueeze(0)  # 1 x N x 4
        weight, bias = of_unnormalised(front.embedding, normalise)
        self.embedding = nn.Conv2d(3, len(weight), kernel_size=side, stride=side, device=weight.device)
        self.embedding.weight, self.embedding.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("cells", cells)
        self.register_buffer("points", roi_arithmetic.regular_points(cells, side))
        self.register_buffer("positions", read_map(front.embedding.positions.detach(), cells))

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        """As :meth:`GridFront.forward`, of images that are not normalised."""
        refuse_other_tokens(tokens, self.cells.shape[1])
        patches = self.embedding(self.resize(images.float(), self.size))  # B x D x rows x columns
        latent = self.pre_norm(self.patch_norm(patches.flatten(2).transpose(1, 2)) + self.positions)
        rois = self.cells.expand(images.shape[0], -1, -1).unsqueeze(1)
        return FrontOutput(self.prefix(latent), rois, (self.points.expand(images.shape[0], -1, -1, -1),), fixed_rois=True)
