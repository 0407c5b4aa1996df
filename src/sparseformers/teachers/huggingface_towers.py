"""The vision towers of Hugging Face transformers as teachers: ViT, DINOv2 (with registers), CLIP and SigLIP.

Weight names changed between its major versions 4 and 5; both are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import Activation, BlockConfig, CortexConfig
from sparseformers.teachers.base import PatchEmbedding, Teacher, TeacherOutput, named_weights, refuse

WITH_POOLER = ("clip_vision_model", "siglip_vision_model")
"""Model types whose embedding is the pooler's output; that of the others is the class token after the final norm."""

ALWAYS_INTERPOLATES = ("dinov2", "dinov2_with_registers")
"""Model types that resample their positions for any image without being asked."""

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
}
"""Hugging Face's names of activations, and ours."""

RENAMED = (
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("layer_norm1.", "norm1."),
    ("layer_norm2.", "norm2."),
    ("attention.attention.", "attn."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.", "attn."),
    ("self_attn.", "attn."),
    ("attn.o_proj.", "attn.proj."),
    ("attn.out_proj.", "attn.proj."),
    ("attn.query.", "attn.q_proj."),
    ("attn.key.", "attn.k_proj."),
    ("attn.value.", "attn.v_proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("mlp.weights_in.", "mlp.fc1."),
    ("mlp.weights_out.", "mlp.fc2."),
    ("mlp.down_proj.", "mlp.fc2."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
)
"""Beginnings of a block's weight names in transformers, and ours; applied one after the other."""

JOINED = {"attn.qkv": ("attn.q_proj", "attn.k_proj", "attn.v_proj"), "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj")}
"""Our linear layers, each of which joins several of theirs."""


class VisionPart(nn.Module):
    """A model's vision tower with its projection (CLIP's, into the space shared with text) and its linear classifier."""

    tower: Any  # each model type has its own attributes

    def __init__(self, tower: nn.Module, *, projection: nn.Linear | None, classifier: nn.Linear | None) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.classifier = classifier


class HuggingFaceTeacher(Teacher):
    """A vision tower of Hugging Face transformers as a teacher."""

    network: VisionPart

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return blocks_of(self.network.tower)

    def embed(self, normalised: Tensor) -> TeacherOutput:
        tower, config = self.network.tower, self.network.tower.config
        own_size = tuple(normalised.shape[-2:]) == sides_of(config.image_size)
        options = {} if own_size or config.model_type in ALWAYS_INTERPOLATES else {"interpolate_pos_encoding": True}
        output = tower(pixel_values=normalised, **options)
        pools = config.model_type in WITH_POOLER
        embedding = output.pooler_output if pools else output.last_hidden_state[:, 0]
        if self.network.projection is not None:
            embedding = self.network.projection(embedding)
        return TeacherOutput(embedding, None if self.network.classifier is None else self.network.classifier(embedding))

    def block_state(self, index: int) -> dict[str, Tensor]:
        return canonical_block_state(self.host_blocks[index])

    def head_state(self) -> dict[str, Tensor]:
        tower = self.network.tower
        norm = tower.post_layernorm if hasattr(tower, "post_layernorm") else tower.layernorm
        state = named_weights({"norm": norm, "projection": self.network.projection, "classifier": self.network.classifier})
        return state | (_pooling_state(tower.head) if self.anatomy.pooling == "attention" else {})

    def patch_embedding(self) -> PatchEmbedding:
        embeddings, norm = self.network.tower.embeddings, getattr(self.network.tower, "pre_layrnorm", None)
        nested = hasattr(embeddings, "patch_embeddings")
        projection = embeddings.patch_embeddings.projection if nested else embeddings.patch_embedding
        positions = embeddings.position_embeddings[0] if nested else embeddings.position_embedding.weight
        rows, columns = (edge // self.patch_size for edge in sides_of(self.network.tower.config.image_size))
        grid = positions[-rows * columns :].T.reshape(-1, rows, columns)  # the class token's position, if any, comes first
        own = tuple(edge // self.patch_size for edge in self.preprocessing.size)
        if own != (rows, columns):  # as transformers itself fits positions to another size
            antialias = self.network.tower.config.model_type == "dinov2_with_registers"
            grid = F.interpolate(grid[None], size=own, mode="bicubic", align_corners=False, antialias=antialias)[0]
        return PatchEmbedding.of(projection, grid, norm)


def _pooling_state(head: Any) -> dict[str, Tensor]:
    """SigLIP's attention pooling under our names: the joined weights are split into the query's, and the key's and value's."""
    state = {"pooling.latent": head.probe}
    for kind in ("weight", "bias"):
        joined = getattr(head.attention, f"in_proj_{kind}")
        state[f"pooling.q.{kind}"], state[f"pooling.kv.{kind}"] = joined.split([len(joined) // 3, 2 * len(joined) // 3])
    rooms = {"pooling.proj": head.attention.out_proj, "pooling.norm": head.layernorm, "pooling.mlp": head.mlp}
    return state | named_weights(rooms)


def blocks_of(tower: Any) -> list[nn.Module]:
    """A tower's transformer blocks, first to last."""
    holder = tower.encoder if hasattr(tower, "encoder") else tower
    return list(holder.layers if hasattr(holder, "layers") else holder.layer)


def canonical_block_state(block: nn.Module) -> dict[str, Tensor]:
    """The weights of a block under our names; one without counterpart keeps its name, to be refused."""
    state = {}
    for full_name, value in block.state_dict().items():
        name = full_name
        for theirs, ours in RENAMED:
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        state[name] = value
    for joined, parts in JOINED.items():
        for kind in ("weight", "bias"):
            if all(f"{part}.{kind}" in state for part in parts):
                state[f"{joined}.{kind}"] = torch.cat([state.pop(f"{part}.{kind}") for part in parts])
    return state


def anatomy_of(part: VisionPart, name: str) -> CortexConfig:
    """The cortex that a tower and its heads call for; raises TeacherError for a part that the cortex does not have."""
    config: Any = part.tower.config
    state = canonical_block_state(blocks_of(part.tower)[0])
    gated = bool(getattr(config, "use_swiglu_ffn", False))
    if config.hidden_act not in ACTIVATIONS:
        raise refuse(name, f"its activation is {config.hidden_act}")
    pools_by_attention = config.model_type == "siglip_vision_model"
    if pools_by_attention and not hasattr(part.tower, "head"):
        raise refuse(name, "its SigLIP tower has no pooling head, so there is no image embedding")
    return CortexConfig(
        block=BlockConfig(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            feed_forward_width=state["mlp.fc2.weight"].shape[1],
            activation="silu" if gated else ACTIVATIONS[config.hidden_act],
            gated=gated,
            qkv_bias="attn.qkv.bias" in state,
            attention_bias="attn.proj.bias" in state,
            feed_forward_bias="mlp.fc2.bias" in state,
            layer_scale="ls1.gamma" in state,
            norm_eps=config.layer_norm_eps,
        ),
        depth=len(blocks_of(part.tower)),
        prefix_tokens=0 if pools_by_attention else 1 + getattr(config, "num_register_tokens", 0),
        pooling="attention" if pools_by_attention else "token",
        attention_pool_heads=config.num_attention_heads if pools_by_attention else 1,
        projection=None if part.projection is None else part.projection.out_features,
        projection_bias=part.projection is not None and part.projection.bias is not None,
        classes=None if part.classifier is None else part.classifier.out_features,
    )


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, which a configuration has once where they are equal, or one after the other."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
