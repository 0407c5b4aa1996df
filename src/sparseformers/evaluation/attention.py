"""Attention maps: which of a student's tokens make its embedding, and which patches a teacher attends to.

Read through this package's own blocks. Legend: B batch, N latent tokens, T tokens with the prefix, h x w the teacher's patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.model.block import TransformerBlock
from sparseformers.model.cortex import AttentionPooling, AveragePooling, CortexTransformer, DistilledPooling
from sparseformers.model.selector import map_divergence, shares_on
from sparseformers.model.sparseformer import SparseFormer, check_images
from sparseformers.modes import evaluation_mode
from sparseformers.teachers import Teacher

IMAGES_AT_ONCE = 4  # a teacher's images: the attention of a block is heads x T x T numbers for each


class AttentionMaps(NamedTuple):
    """Patches that a teacher's embedding comes from; each map is of patches alone and sums to one."""

    last: Tensor  # B x h x w, float32: what the class token attends to in the last block, the mean over heads
    rollout: Tensor  # B x h x w, float32: attention rollout through all blocks, see :func:`rollout`


class TeacherAnswer(NamedTuple):
    """A teacher's embeddings of B images, with what they were made of."""

    embedding: Tensor  # B x D_out
    tokens: Tensor  # B x D x h x w, its patch tokens of the layer that was asked for, by default after the final norm
    attention_map: Tensor | None  # B x h x w, float32, of sum 1: the share of its attention in each patch


class AttendingTeacher(nn.Module):
    """A teacher that also tells its patch tokens and where it looks, in one forward pass.

    The map is the mean over the heads of the last third of its blocks of what the class token attends to, or all patches in a
    teacher without one; where an attention pool makes the embedding, it is what its query attends to. It is spared by
    ``attends=False``. On another ``grid`` of patches (rows, columns) it takes smaller images. The teacher's weights are copied.
    """

    def __init__(self, teacher: Teacher, *, attends: bool = True, layer: int = -1, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.teacher = RebuiltTeacher(teacher, grid=grid).to(next(teacher.parameters()).device)
        self.size, self.grid, self.prefix_tokens = self.teacher.size, self.teacher.grid, teacher.anatomy.prefix_tokens
        self.attends = attends
        self.asks_from = teacher.depth - max(1, round(teacher.depth / 3))
        self.keeps = None if layer == -1 else teacher.depth + layer  # the block whose tokens are given instead of the final ones

    def forward(self, images: Tensor) -> TeacherAnswer:
        """Images B x 3 x H x W in [0, 1] of the height and width ``size``; raises ValueError for another size."""
        cortex = self.teacher.cortex
        tokens, attended = cortex.prefix(self.teacher.tokens(images)), []
        kept, places = tokens, cortex.places(self.teacher.rois)
        for index, block in enumerate(_blocks(cortex)):
            if self.attends and index >= self.asks_from and not isinstance(cortex.pooling, AttentionPooling):
                queries = 1 if self.prefix_tokens else None
                weights = block.attention(tokens, places[index], queries)  # B x heads x queries x T
                attended.append(weights.mean(dim=(1, 2)))
            tokens = block(tokens, places[index])
            if index == self.keeps:
                kept = tokens
        if self.attends and isinstance(cortex.pooling, AttentionPooling):
            attended.append(_pooling_shares(cortex, tokens))
        pooled, tokens = cortex.read(tokens)
        patches = (tokens if self.keeps is None else kept)[:, self.prefix_tokens :].transpose(1, 2).unflatten(-1, self.grid)
        if not self.attends:
            return TeacherAnswer(cortex.projection(pooled), patches, None)
        shares = torch.stack(attended).mean(dim=0)[:, self.prefix_tokens :].float()
        shares = shares / shares.sum(dim=1, keepdim=True)
        return TeacherAnswer(cortex.projection(pooled), patches, shares.unflatten(-1, self.grid))


@dataclass(frozen=True)
class MapAgreement:
    """Maps of where a student expects its teacher to look, beside the teacher's own; means over images."""

    divergence: float  # Kullback-Leibler, in nats, at the student's grid
    overlap: float  # share of the heaviest third of the cells in both, in [0, 1]


def measure_map(shares: Tensor, attention_map: Tensor) -> MapAgreement:
    """Compares a student's maps M x h x w with the teacher's M x rows x columns, both of sum 1."""
    grid = (shares.shape[1], shares.shape[2])
    ours, theirs = shares.flatten(1), shares_on(attention_map, grid).flatten(1)
    count = max(1, round(ours.shape[1] / 3))
    heaviest = [torch.zeros_like(each).scatter(1, each.topk(count).indices, 1) for each in (ours, theirs)]
    overlap = (heaviest[0] * heaviest[1]).sum(dim=1).mean().item() / count
    return MapAgreement(max(0.0, map_divergence(shares, attention_map).item()), overlap)  # by rounding it may be below 0


def token_influence(student: SparseFormer, images: Tensor) -> Tensor:
    """The share of each latent token in what the embedding is pooled from: B x N, float32 on the CPU; rows sum to one.

    With a class token: what it attends to in the cortex's last block, the mean over heads. With attention pooling (SigLIP): what
    its query attends to. With average pooling (v1): what the pooled tokens attend to in the last block, on average. Images
    are B x 3 x H x W in [0, 1]. Raises ConfigError for a cortex without blocks, unless it pools by attention.
    """
    check_images(images)
    cortex, device = student.cortex, next(student.parameters()).device
    blocks, pools_by_attention = _blocks(cortex), isinstance(cortex.pooling, AttentionPooling)
    if not blocks and not pools_by_attention:
        raise ConfigError("The student's cortex has no blocks, so there is no attention to read.", "Choose another student.")
    with evaluation_mode(student), torch.no_grad():
        front = student.focusing(student.normalise(images.to(device)))
        tokens, places = cortex.prefix(front.tokens), cortex.places(front.final_rois)
        for index, block in enumerate(blocks if pools_by_attention else blocks[:-1]):
            tokens = block(tokens, places[index])
        shares = _pooling_shares(cortex, tokens)
        if not pools_by_attention:
            shares = torch.einsum("bq,bqt->bt", shares, blocks[-1].attention(tokens, places[-1]).mean(dim=1))
    return _without_prefix(shares, student.config.cortex.prefix_tokens)


class TeacherAttention:
    """Maps of what a teacher of any host library attends to, on its own grid of patches; its weights are copied once.
    A teacher without a class token is read as :func:`token_influence` says; its rollout starts from the tokens that are pooled,
    each by its share. Prefix tokens are left out of the maps.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = RebuiltTeacher(teacher).to(next(teacher.parameters()).device)
        self.size, self.grid, self.prefix_tokens = self.teacher.size, self.teacher.grid, teacher.anatomy.prefix_tokens

    def __call__(self, images: Tensor) -> AttentionMaps:
        """Maps, on the CPU, of images B x 3 x H x W in [0, 1] of 32 pixels a side or more, resized to the teacher's size."""
        check_images(images)
        parts = [self._look(part) for part in images.split(IMAGES_AT_ONCE)]
        return AttentionMaps(*(torch.cat(maps).unflatten(-1, self.grid) for maps in zip(*parts, strict=True)))

    @torch.no_grad()
    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the patches in the last block and by rollout, B x hw twice."""
        images = images.to(next(self.teacher.parameters()).device)
        if tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        cortex = self.teacher.cortex
        tokens = cortex.prefix(self.teacher.tokens(images))
        blocks = []
        for block, places in zip(_blocks(cortex), cortex.places(self.teacher.rois), strict=True):
            blocks.append(block.attention(tokens, places).mean(dim=1))
            tokens = block(tokens, places)
        shares = _pooling_shares(cortex, tokens)
        attended, rolled = (torch.einsum("bq,bqt->bt", shares, attention) for attention in (blocks[-1], rollout(blocks)))
        last = shares if isinstance(cortex.pooling, AttentionPooling) else attended
        return _without_prefix(last, self.prefix_tokens), _without_prefix(rolled, self.prefix_tokens)


def rollout(blocks: Sequence[Tensor]) -> Tensor:
    """Attention rollout: attention plus the identity (the residual path), rows normalised, multiplied through the blocks.
    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020. Takes B x T x T of each block from first to last;
    returns B x T x T, how much of each input token (last dimension) is in each output token. Raises ValueError for no block.
    """
    if not blocks:
        raise ValueError("rollout needs the attention of at least one block")
    flow = identity = torch.eye(blocks[0].shape[-1], dtype=blocks[0].dtype, device=blocks[0].device)
    for attention in blocks:
        mixed = attention + identity
        flow = mixed / mixed.sum(dim=-1, keepdim=True) @ flow
    return flow


def _blocks(cortex: CortexTransformer) -> list[TransformerBlock]:
    return list(cast(Iterable[TransformerBlock], cortex.blocks))


def _pooling_shares(cortex: CortexTransformer, tokens: Tensor) -> Tensor:
    """The share of each token in the pooled one: tokens after the last block B x T x D -> B x T, rows sum to one."""
    pooling = cortex.pooling
    shares = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    if isinstance(pooling, AttentionPooling):
        shares[:, pooling.skip :] = pooling.weights(cortex.norm(tokens)).mean(dim=1)
    elif isinstance(pooling, AveragePooling):
        shares[:, pooling.skip :] = 1 / (tokens.shape[1] - pooling.skip)
    elif isinstance(pooling, DistilledPooling):
        shares[:, :2] = 1 / 2
    else:
        shares[:, 0] = 1
    return shares


def _without_prefix(attention: Tensor, prefix_tokens: int) -> Tensor:
    """Attention B x T -> B x (T-R), rows scaled to sum to one, on the CPU."""
    kept = attention[:, prefix_tokens:].float()
    return (kept / kept.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)).cpu()


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two maps of one shape, in [-1, 1]; NaN for one that is constant or not finite."""
    if first.shape != second.shape or not first.numel():
        raise ValueError(f"a correlation is of two maps of one shape, not {tuple(first.shape)} and {tuple(second.shape)}")
    if not (first.isfinite().all() and second.isfinite().all()):
        return math.nan
    one, other = (ranks(values.flatten()) - (values.numel() + 1) / 2 for values in (first, second))  # the mean rank
    spread = one.norm() * other.norm()
    return (one @ other / spread).clamp(-1, 1).item() if spread > 0 else math.nan


def ranks(values: Tensor) -> Tensor:
    """Ranks of M values in ascending order from 1, float64; equal values share their mean rank."""
    _, group, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()  # the last place in each group of equal values
    return (last - (counts - 1) / 2)[group]
