"""The vision towers of Hugging Face transformers as teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import RotaryConfig
from sparseformers.teachers.base import PatchEmbedding, Teacher, TeacherOutput, named_weights
from sparseformers.teachers.canonical import canonical_block, liberties
from sparseformers.teachers.huggingface_anatomy import (
    VisionPart,
    bias_tables,
    blocks_of,
    final_norm,
    own_sides,
    patch_layer,
    pooling_state,
    pools_by_itself,
    renamed_block,
)

TAKES_ANY_SIZE = (
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "beit",
    "data2vec-vision",
    "siglip2_vision_model",
    "aimv2_vision_model",
)
"""Model types that resample their positions for any image without being asked."""

ANTIALIASES = ("dinov2_with_registers", "siglip2_vision_model", "aimv2_vision_model")
"""Model types that antialias positions as they resample them (the last one does not resample at all)."""


class HuggingFaceTeacher(Teacher):
    """A vision tower of Hugging Face transformers as a teacher."""

    network: VisionPart

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return blocks_of(self.network.tower)

    def embed(self, normalised: Tensor) -> TeacherOutput:
        output = self._run(normalised)
        if self.anatomy.pooled_norm or pools_by_itself(self.network.tower):
            embedding = output.pooler_output
        else:
            tokens = output.last_hidden_state
            embedding = tokens[:, 0] if self.anatomy.pooling == "token" else tokens.mean(dim=1)
        if self.network.projection is not None:
            embedding = self.network.projection(embedding)
        return TeacherOutput(embedding, None if self.network.classifier is None else self.network.classifier(embedding))

    def _run(self, normalised: Tensor) -> Any:
        tower, kind, (rows, columns) = self.network.tower, self.network.tower.config.model_type, self.grid
        if kind == "siglip2_vision_model":  # which takes patches, channels last
            side = self.patch_size
            patches = normalised.unflatten(2, (rows, side)).unflatten(4, (columns, side)).permute(0, 2, 4, 3, 5, 1)
            shapes = torch.tensor([[rows, columns]]).expand(len(normalised), 2)  # read as numbers, so on no device
            return tower(patches.flatten(3).flatten(1, 2), None, shapes)  # no patch is masked
        own_size = tuple(normalised.shape[-2:]) == own_sides(tower.config)
        options: dict[str, Any] = {} if own_size or kind in TAKES_ANY_SIZE else {"interpolate_pos_encoding": True}
        if kind == "vit_mae":  # whose tokens are masked at random and shuffled, unless all stay, in the order of this noise
            options["noise"] = torch.arange(rows * columns, device=normalised.device).expand(len(normalised), -1)
        return tower(pixel_values=normalised, **options)

    def block_state(self, index: int) -> dict[str, Tensor]:
        return canonical_block(renamed_block(self.host_blocks[index]), heads=self.anatomy.block.heads)

    def head_state(self) -> dict[str, Tensor]:
        tower = self.network.tower
        state = named_weights({"projection": self.network.projection, "classifier": self.network.classifier})
        if self.anatomy.final_norm:
            state |= named_weights({"norm": final_norm(tower)})
        if self.anatomy.pooled_norm:
            state |= named_weights({"pooled_norm": tower.pooler.layernorm})
        return state | (pooling_state(tower.head) if self.anatomy.pooling == "attention" else {})

    def patch_embedding(self) -> PatchEmbedding:
        tower = self.network.tower
        projection, weight = patch_layer(tower), patch_layer(tower).weight
        if weight.ndim == 2:
            weight = weight.unflatten(1, (self.patch_size, self.patch_size, 3)).permute(0, 3, 1, 2)
        norms = getattr(tower.embeddings, "rms_norm", None), getattr(tower, "pre_layrnorm", None)
        return PatchEmbedding.of(weight, projection.bias, self.positions_on(*self.grid), *norms)

    @torch.no_grad()
    def positions_on(self, rows: int, columns: int) -> Tensor:
        tower, side = self.network.tower, self.patch_size
        kind, embeddings = tower.config.model_type, tower.embeddings
        if kind == "aimv2_vision_model" and tower.config.is_native:  # sines: what a blank image has beyond blank patches
            blank = embeddings(patch_layer(tower).weight.new_zeros(1, 3, rows * side, columns * side))[0]
            return (blank - embeddings.rms_norm(patch_layer(tower).bias)).T.unflatten(1, (rows, columns)).float()
        table = getattr(embeddings, "position_embeddings", None)
        if table is None:
            table = getattr(embeddings, "position_embedding", None)
        if table is None:
            return torch.zeros(tower.config.hidden_size, rows, columns)
        weights = (table.weight if isinstance(table, nn.Embedding) else table[0]).float()
        own = tuple(edge // side for edge in own_sides(tower.config))
        grid = weights[-math.prod(own) :].T.unflatten(1, own)  # the class token's position, if any, comes first
        if own != (rows, columns):  # as transformers itself fits positions to another size
            mode, antialias = "bilinear" if kind == "siglip2_vision_model" else "bicubic", kind in ANTIALIASES
            grid = F.interpolate(grid[None], size=(rows, columns), mode=mode, align_corners=False, antialias=antialias)[0]
        return grid.clone()

    def attention_positions(self, rows: int, columns: int) -> dict[str, Tensor]:
        tower = self.network.tower
        if isinstance(self.anatomy.positions, RotaryConfig):
            each = 2 * math.pi * tower.rope_embeddings.inv_freq.float().cpu()
            nothing = torch.zeros_like(each)
            return {"frequencies": torch.stack([torch.cat([each, nothing]), torch.cat([nothing, each])]).view(1, 2, 1, -1)}
        tables = bias_tables(tower)
        if not tables:
            return {}
        own = tuple(edge // self.patch_size for edge in own_sides(tower.config))
        shape = tuple(2 * edge - 1 for edge in own)
        apart = torch.stack([table[:-3].T.unflatten(1, shape) for table in tables]).float()
        if own != (rows, columns):
            apart = F.interpolate(apart, size=(2 * rows - 1, 2 * columns - 1), mode="bilinear")
        return {"table": apart, "prefix_bias": torch.stack([table[-3:].T for table in tables]).float()}

    def liberties(self) -> tuple[str, ...]:
        return liberties(renamed_block(self.host_blocks[0]), heads=self.anatomy.block.heads)
