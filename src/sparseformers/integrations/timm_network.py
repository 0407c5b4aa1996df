"""A SparseFormer with the interface of timm's own vision transformers.

Legend: B batch, N latent tokens, R prefix tokens, T = R + N, D cortex width. Unlike everywhere else, images come normalised,
as timm's data loaders give them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparseformers.config import GridConfig
from sparseformers.errors import ConfigError
from sparseformers.integrations.timm_base import NetworkWithHead
from sparseformers.model import SparseFormer
from sparseformers.model.block import TransformerBlock
from sparseformers.model.layers import stochastic_depth
from sparseformers.model.positions import Places, build_positions, of_blocks
from sparseformers.model.sparseformer import SMALLEST_SIDE, check_images
from sparseformers.model.splatting import splat
from sparseformers.rois import grid_of

UNDECAYED = ("token", "tokens", "prefix", "positions", "stages", "initial_rois", "latent", "table", "prefix_bias", "falls")
"""Last parts of the names of embeddings and RoIs, which weight decay would only pull towards an arbitrary zero."""


class TimmSparseFormer(NetworkWithHead):
    """A SparseFormer that timm's scripts, and what is built on timm, take for one of timm's own vision transformers.

    It takes over the modules of ``student``. In training, ``drop_rate`` is dropout before the head, ``drop_path_rate`` the chance
    that a branch of the last block is left out for an image, rising evenly from 0 in the first (None: the student's own).
    """

    output_fmt = "NLC"
    drop_path_rate: float | None = None

    def __init__(
        self,
        student: SparseFormer,
        *,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        open_shape: bool = False,
        own_head: bool = True,
    ) -> None:
        super().__init__(student, drop_rate=drop_rate, open_shape=open_shape, own_head=own_head)
        self.in_chans, self.grad_checkpointing, self.drop_path_rate = 3, False, drop_path_rate
        self._set_stochastic_depth()

    def take(self, student: SparseFormer) -> None:
        super().take(student)
        self._set_stochastic_depth()

    def _set_stochastic_depth(self) -> None:
        if self.drop_path_rate is None:
            return
        last = max(1, len(self.cortex.blocks) - 1)
        for index, block in enumerate(self.cortex.blocks):
            cast(TransformerBlock, block).drop = stochastic_depth(self.drop_path_rate * index / last)

    @property
    def embed_dim(self) -> int:
        return self.config.cortex.block.width

    num_features = embed_dim

    @property
    def num_prefix_tokens(self) -> int:
        return self.config.cortex.prefix_tokens

    @property
    def num_reg_tokens(self) -> int:
        return max(0, self.num_prefix_tokens - 1)

    @property
    def has_class_token(self) -> bool:
        return self.num_prefix_tokens > 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's entry for each block of the cortex; the reduction is that of N tokens spread evenly over the image."""
        reduction = round(math.sqrt(math.prod(self.config.preprocessing.size) / self.config.focusing.tokens))
        of_each = {"num_chs": self.embed_dim, "reduction": reduction}
        return [{"module": f"cortex.blocks.{index}", **of_each} for index in range(len(self.cortex.blocks))]

    @property
    def norm(self) -> nn.Module:
        """The final norm over all tokens; none where tokens are pooled first (v1), as in timm's networks with ``fc_norm``."""
        return nn.Identity() if self.config.cortex.pool_first else self.cortex.norm

    def forward(self, x: Tensor) -> Tensor:
        """Images B x 3 x H x W, sides from 32 up (else ValueError) -> B x classes, D_out without head, T x D without pooling."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images B x 3 x H x W -> tokens B x T x D after the final norm, prefix tokens first."""
        tokens, places, _ = self._before_blocks(x)
        for index in range(len(self.cortex.blocks)):
            tokens = self._through_block(index, tokens, places)
        return self.norm(tokens)

    def _before_blocks(self, x: Tensor) -> tuple[Tensor, list[Places], Tensor]:
        """The tokens that enter the first block, what each block is told of their places, and their RoIs."""
        check_images(x)
        front = self.focusing(x)
        return self.cortex.prefix(front.tokens), self.cortex.places(front.final_rois), front.final_rois

    def _through_block(self, index: int, tokens: Tensor, places: list[Places]) -> Tensor:
        block = self.cortex.blocks[index]
        if self.grad_checkpointing:
            return checkpoint(block, tokens, places[index], use_reentrant=False)
        return block(tokens, places[index])

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NLC",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """The latent tokens of normalised images after several blocks, B x N x D each, with the options of timm's own networks.

        ``indices`` are the last so many blocks, or those of these indices (all by default); with ``return_prefix_tokens`` each
        comes in a pair with its prefix tokens B x R x D. ``output_fmt`` is ``NLC``, or ``NCHW``: as the cells of a grid, or
        spread over one of as many. A network with a read-out gives its map as ``NCHW`` of the block that it is of, on the
        teacher's grid: of the last one with ``norm``, as what it learnt is normed. Raises ConfigError for a block that is not
        there, or another format.
        """
        if output_fmt not in ("NLC", "NCHW"):
            problem = f"The tokens of this SparseFormer cannot be given as {output_fmt}: only NLC and NCHW are known."
            raise ConfigError(problem, "Ask for output_fmt='NLC'.")
        taken, last = _chosen_blocks(len(self.cortex.blocks), indices)
        read = self._read_block(norm) if output_fmt == "NCHW" else None
        tokens, places, rois = self._before_blocks(x)
        outputs = []
        for index in range(last + 1 if stop_early and read not in taken else len(self.cortex.blocks)):
            tokens = self._through_block(index, tokens, places)
            if index in taken:
                outputs.append(self.norm(tokens) if norm else tokens)
        kept = dict(zip(taken, outputs, strict=True)).get(-1 if read is None else read)
        prefix = [output[:, : self.num_prefix_tokens] for output in outputs] if self.num_prefix_tokens else None
        outputs = [output[:, self.num_prefix_tokens :] for output in outputs]
        if output_fmt == "NCHW":
            outputs = [out if index == read else self._as_map(out, rois) for index, out in zip(taken, outputs, strict=True)]
        if kept is not None and self.read_out is not None and self.config.read_out is not None:
            spread = splat(kept[:, self.num_prefix_tokens :], rois, self.config.read_out.grid)
            outputs = [
                self.read_out(x, self.norm(tokens), rois, spread) if index == read else output
                for index, output in zip(taken, outputs, strict=True)
            ]
        if output_dict:
            named: dict[str, Any] = {"image_intermediates": outputs}
            if return_prefix_tokens and prefix is not None:
                named["image_intermediates_prefix"] = prefix
            return named if intermediates_only else named | {"image_features": self.norm(tokens)}
        result = list(zip(outputs, prefix, strict=True)) if return_prefix_tokens and prefix is not None else outputs
        return result if intermediates_only else (self.norm(tokens), result)

    def _read_block(self, norm: bool) -> int | None:
        """The block whose map the read-out gives, with or without the final norm."""
        layer = None if self.config.read_out is None else self.config.read_out.layer
        return len(self.cortex.blocks) + layer if layer is not None and (layer == -1) == norm else None

    def _as_map(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Latent tokens B x N x D as a map B x D x rows x columns: as the cells that they are, or else spread."""
        focusing, (height, width) = self.config.focusing, self.config.preprocessing.size
        if isinstance(focusing, GridConfig) and math.prod(focusing.grid) == focusing.tokens:
            return tokens.transpose(1, 2).unflatten(-1, focusing.grid).contiguous()
        return splat(tokens, rois, grid_of(focusing.tokens, height / width))

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what is behind the blocks ``indices``, the norm and head if asked for; returns the blocks, from 0."""
        taken, last = _chosen_blocks(len(self.cortex.blocks), indices)
        self.cortex.blocks = self.cortex.blocks[: last + 1]
        positions, own = self.config.cortex.positions, self.cortex.positions
        if positions is not None and own is not None and positions.blocks > 1:  # those of the blocks that stay
            positions = dataclasses.replace(positions, blocks=last + 1)
            kept = build_positions(positions, self.config.cortex.block, self.num_prefix_tokens)
            kept.load_state_dict(of_blocks(own.state_dict(), slice(last + 1)))
            self.cortex.positions = kept
        if self.cortex.sizes is not None:
            self.cortex.sizes.tokens = nn.Parameter(self.cortex.sizes.tokens[: last + 1])
        if last + 1 < self.config.cortex.depth or prune_norm:  # what a read-out reads is gone
            self.config, self.read_out = dataclasses.replace(self.config, read_out=None), None
        self.note(depth=last + 1, positions=positions)
        if prune_norm:
            self.cortex.norm = nn.Identity()
            self.note(final_norm=False, pool_first=False)
        if prune_head:
            self.cortex.pooled_norm = nn.Identity()
            self.note(pooled_norm=False)
            self.reset_classifier(0, "")
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        return {name for name, value in self.named_parameters() if value.ndim > 1 and name.rpartition(".")[2] in UNDECAYED}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters from front to head, for rates that fall from layer to layer; ``coarse`` joins all blocks."""
        blocks = r"^cortex\.blocks\." + ("" if coarse else r"(\d+)")
        return {"stem": r"^focusing\.|^cortex\.prefix", "blocks": [(blocks, None), (r"^cortex\.norm", (99999,))]}


def build_network(
    student: SparseFormer,
    *,
    num_classes: int | None = None,
    global_pool: str | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float | None = None,
    open_shape: bool = False,
    own_head: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> TimmSparseFormer:
    """Makes the network with timm's options; ``img_size`` is only checked, since a SparseFormer takes images of any size."""
    if in_chans != 3:
        problem = f"A SparseFormer takes images of 3 channels (red, green, blue), not {in_chans}."
        raise ConfigError(problem, "Leave in_chans out; give grey images as three equal channels.")
    if img_size is not None and min(img_size if isinstance(img_size, (tuple, list)) else (img_size,)) < SMALLEST_SIDE:
        raise ConfigError(f"Images must be at least {SMALLEST_SIDE} pixels a side, not {img_size}.", "Use 224, for example.")
    if not 0 <= drop_rate < 1 or not 0 <= (drop_path_rate or 0.0) < 1:
        problem = f"drop_rate and drop_path_rate are chances in [0, 1), not {drop_rate} and {drop_path_rate}."
        raise ConfigError(problem, "Use 0.1, for example.")
    network = TimmSparseFormer(
        student, drop_rate=drop_rate, drop_path_rate=drop_path_rate, open_shape=open_shape, own_head=own_head
    )
    if num_classes not in (None, network.num_classes) or global_pool is not None:
        network.reset_classifier(network.num_classes if num_classes is None else num_classes, global_pool)
    return network.to(device=device, dtype=dtype).train()


def _chosen_blocks(blocks: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The blocks that timm's ``indices`` mean (None: all, a number: the last so many) and the largest; or ConfigError."""
    if indices is None or isinstance(indices, int):
        wanted = list(range(0 if indices is None else blocks - indices, blocks))
    else:
        wanted = [index + blocks if index < 0 else index for index in indices]
    if not wanted or not all(0 <= index < blocks for index in wanted):
        problem = f"There are {blocks} blocks to give intermediates of, so that {indices} is out of range."
        raise ConfigError(problem, f"Ask for the last 1 to {blocks}, or for indices from 0 to {blocks - 1}.")
    return wanted, max(wanted)
