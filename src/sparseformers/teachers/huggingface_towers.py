"""The vision towers of Hugging Face transformers as teachers: the form of their blocks and heads, and their weights.

Weight names changed between its major versions 4 and 5; both are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import Activation, BlockConfig, CortexConfig, RelativeConfig, RotaryConfig
from sparseformers.teachers.base import PatchEmbedding, Teacher, TeacherOutput, named_weights, own_size, refuse
from sparseformers.teachers.canonical import canonical_block, liberties, renamed

# Model types whose embedding is the pooler's output (that of most others is the class token after the final norm), those without
# a class token, those that resample their positions for another image size only when asked, and those that antialias them then.
WITH_POOLER = ("clip_vision_model", "metaclip_2_vision_model", "siglip_vision_model", "siglip2_vision_model")
WITHOUT_PREFIX = ("siglip_vision_model", "siglip2_vision_model", "aimv2_vision_model", "ijepa")
RESAMPLE_IF_ASKED = ("vit", "vit_mae", "ijepa", "clip_vision_model", "metaclip_2_vision_model", "siglip_vision_model")
ANTIALIASES = ("dinov2_with_registers", "siglip2_vision_model", "aimv2_vision_model")  # the last one does not resample at all

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}  # Hugging Face's names, and ours

RENAMED = {
    "rms_norm1.": "norm1.",
    "rms_norm2.": "norm2.",
    "ffn.": "mlp.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "attention.attention.": "attn.",
    "attention.output.dense.": "attn.proj.",
    "attention.": "attn.",
    "self_attn.": "attn.",
    "attn.o_proj.": "attn.proj.",
    "attn.out_proj.": "attn.proj.",
    "attn.query.": "attn.q_proj.",
    "attn.key.": "attn.k_proj.",
    "attn.value.": "attn.v_proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.fc1.",
    "mlp.weights_out.": "mlp.fc2.",
    "mlp.down_proj.": "mlp.fc2.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "lambda_1": "gamma_1",
    "lambda_2": "gamma_2",
}  # beginnings of a block's weight names in transformers, and ours; applied one after the other


class VisionPart(nn.Module):
    """A model's vision tower with its projection (CLIP's, into the space shared with text) and its linear classifier."""

    tower: Any  # each model type has its own attributes

    def __init__(self, tower: nn.Module, *, projection: nn.Linear | None, classifier: nn.Linear | None) -> None:
        super().__init__()
        self.tower, self.projection, self.classifier = tower, projection, classifier


def pooling_state(head: Any) -> dict[str, Tensor]:
    """An attention pooling under our names: SigLIP's, or AIMv2's, whose query has no projection and nothing comes after it."""
    if hasattr(head, "probe"):
        state = {"pooling.latent": head.probe}
        for kind in ("weight", "bias"):
            joined = getattr(head.attention, f"in_proj_{kind}")
            state[f"pooling.q.{kind}"], state[f"pooling.kv.{kind}"] = joined.split([len(joined) // 3, 2 * len(joined) // 3])
        rooms = {"pooling.proj": head.attention.out_proj, "pooling.norm": head.layernorm, "pooling.mlp": head.mlp}
        return state | named_weights(rooms)
    width = head.output_proj.out_features
    state = {"pooling.latent": head.cls_token, "pooling.q.weight": torch.eye(width), "pooling.q.bias": torch.zeros(width)}
    state["pooling.kv.weight"] = torch.cat([head.k_proj.weight, head.v_proj.weight])
    biases = [torch.zeros(width) if layer.bias is None else layer.bias for layer in (head.k_proj, head.v_proj)]
    return state | {"pooling.kv.bias": torch.cat(biases)} | named_weights({"pooling.proj": head.output_proj})


def blocks_of(tower: Any) -> list[nn.Module]:
    """A tower's transformer blocks, first to last."""
    holder = tower.encoder if hasattr(tower, "encoder") else tower.model if hasattr(tower, "model") else tower
    return list(holder.layers if hasattr(holder, "layers") else holder.layer)


def patch_layer(tower: Any) -> Any:
    """The convolution, or the linear layer, over the pixels of a patch."""
    names = ("patch_embeddings", "patch_embedding", "patch_embed")
    found = next(getattr(tower.embeddings, name) for name in names if hasattr(tower.embeddings, name))
    return getattr(found, "projection", found)


def final_norm(tower: Any) -> Any:
    """The norm after the last block."""
    return next(getattr(tower, name) for name in ("post_layernorm", "layernorm", "norm", "rms_norm") if hasattr(tower, name))


def pools_by_itself(tower: Any) -> bool:
    """Whether the tower's own pooler gives the embedding."""
    return tower.config.model_type in WITH_POOLER or bool(getattr(tower, "use_head", False))


def bias_tables(tower: Any) -> list[Tensor]:
    """The tables of relative positions, one of each block or a shared one, as transformers has them; none for most types."""
    return [value for key, value in tower.state_dict().items() if key.endswith("relative_position_bias_table")]


def renamed_block(block: nn.Module) -> dict[str, Tensor]:
    """The weights of a block under our names, or the host's of projections that are apart; others keep theirs."""
    state = renamed({name: value for name, value in block.state_dict().items() if "relative_position" not in name}, RENAMED)
    without_gate = "mlp.up_proj.weight" in state and "mlp.gate_proj.weight" not in state  # DINOv3's
    return renamed(state, {"mlp.up_proj.": "mlp.fc1."}) if without_gate else state


def anatomy_of(part: VisionPart, name: str, *, grid: tuple[int, int]) -> CortexConfig:
    """The cortex that a tower and its heads call for; raises TeacherError for a part that the cortex does not have."""
    tower, config = part.tower, part.tower.config
    state = canonical_block(renamed_block(blocks_of(tower)[0]), heads=config.num_attention_heads)
    hidden = state["mlp.fc2.weight"].shape[1]
    gated = len(state["mlp.fc1.weight"]) == 2 * hidden
    activation = ACTIVATIONS.get(config.hidden_act)
    if activation is None:
        raise refuse(name, f"its activation is {config.hidden_act}")
    kind = config.model_type
    if kind.startswith("siglip") and not hasattr(tower, "head"):
        raise refuse(name, "its SigLIP tower has no pooling head, so there is no image embedding")
    norm: Literal["layer", "rms"] = "rms" if "norm1.bias" not in state else "layer"
    tables = bias_tables(tower)
    if len(tables) not in (0, 1, len(blocks_of(tower))):
        raise refuse(name, "its blocks have relative positions of their own and share others")
    positions = RelativeConfig(grid=grid, blocks=len(tables)) if tables else None
    pooled_norm = getattr(getattr(tower, "pooler", None), "layernorm", None) is not None
    return CortexConfig(
        block=BlockConfig(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            feed_forward_width=hidden,
            # DINOv2's gated form has SiLU, whatever its configuration says.
            activation="silu" if gated and getattr(config, "use_swiglu_ffn", False) else activation,
            gated=gated,
            qkv_bias="attn.qkv.bias" in state,
            attention_bias="attn.proj.bias" in state,
            feed_forward_bias="mlp.fc2.bias" in state,
            layer_scale="ls1.gamma" in state,
            norm=norm,
            norm_eps=config.rms_norm_eps if norm == "rms" else config.layer_norm_eps,
        ),
        depth=len(blocks_of(tower)),
        positions=RotaryConfig(coordinates="image", aspect=grid[0] / grid[1]) if kind == "dinov3_vit" else positions,
        prefix_tokens=0 if kind in WITHOUT_PREFIX else 1 + _registers(tower),
        final_norm=not isinstance(final_norm(tower), nn.Identity),
        pooled_norm=pooled_norm,
        **_pooling_of(tower, pooled_norm),
        projection=None if part.projection is None else part.projection.out_features,
        projection_bias=part.projection is not None and part.projection.bias is not None,
        classes=None if part.classifier is None else part.classifier.out_features,
    )


def _registers(tower: Any) -> int:
    registers = getattr(tower.embeddings, "register_tokens", None)
    return 0 if registers is None else int(registers.shape[1])


def _pooling_of(tower: Any, pooled_norm: bool) -> dict[str, Any]:
    if hasattr(tower, "head") and pools_by_itself(tower):
        own = {} if hasattr(tower.head, "probe") else {"attention_pool_width": 0}
        return {"pooling": "attention", "attention_pool_heads": tower.config.num_attention_heads, **own}
    return {"pooling": "average" if pooled_norm or tower.config.model_type in WITHOUT_PREFIX else "token"}


def own_sides(config: Any) -> tuple[int, int]:
    """Height and width in pixels of the images that the positions of a tower are for."""
    if config.model_type == "siglip2_vision_model":
        return own_size(config.num_patches, config.patch_size)
    return sides_of(config.image_size)


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, which a configuration has once where they are equal, or one after the other."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


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
        other_size = tuple(normalised.shape[-2:]) != own_sides(tower.config)
        options: dict[str, Any] = {"interpolate_pos_encoding": True} if other_size and kind in RESAMPLE_IF_ASKED else {}
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
        found = (getattr(embeddings, name, None) for name in ("position_embeddings", "position_embedding"))
        table = next((each for each in found if each is not None), None)
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
        if not (tables := bias_tables(tower)):
            return {}
        own = tuple(edge // self.patch_size for edge in own_sides(tower.config))
        shape = tuple(2 * edge - 1 for edge in own)
        apart = torch.stack([table[:-3].T.unflatten(1, shape) for table in tables]).float()
        if own != (rows, columns):
            apart = F.interpolate(apart, size=(2 * rows - 1, 2 * columns - 1), mode="bilinear")
        return {"table": apart, "prefix_bias": torch.stack([table[-3:].T for table in tables]).float()}

    def liberties(self) -> tuple[str, ...]:
        return liberties(renamed_block(self.host_blocks[0]), heads=self.anatomy.block.heads)
