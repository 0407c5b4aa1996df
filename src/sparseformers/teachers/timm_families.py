"""Reads the vision transformers of timm, for the adapters of timm and of OpenCLIP's models with a timm tower.

Its families: ``VisionTransformer`` (also distilled), ``Eva`` (EVA-02, DINOv3, Perception Encoder, ROPE-ViT), ``Beit``,
``VisionTransformerRelPos``, and ``NaFlexVit`` (SigLIP 2, RADIO) at one image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from timm.layers import AttentionPoolLatent, GluMlp, SwiGLU
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from sparseformers.config import Activation, BlockConfig, CortexConfig, PreprocessingConfig
from sparseformers.teachers.base import PatchEmbedding, Teacher, named_weights, refuse
from sparseformers.teachers.canonical import canonical_block, liberties
from sparseformers.teachers.timm_positions import positions_config, positions_state

FAMILIES = (VisionTransformer, VisionTransformerDistilled, Eva, Beit, VisionTransformerRelPos, NaFlexVit)
BLOCKS = {
    "Block": False,
    "EvaBlock": False,
    "RelPosBlock": False,
    "ResPostBlock": True,
    "ResPostRelPosBlock": True,
    "EvaBlockPostNorm": True,
}  # timm's blocks that the cortex has, and whether they norm after a branch
ATTENTIONS = ("Attention", "AttentionRope", "EvaAttention", "RelPosAttention")
POOLINGS: Mapping[str, Literal["token", "average", "attention"]] = {"token": "token", "avg": "average", "map": "attention"}
BESIDE_BLOCKS = ("attn.relative_position_bias_table", "attn.rel_pos.")  # names of what is in a block, but belongs to positions


class TimmFamilyTeacher(Teacher):
    """A teacher whose blocks are those of a timm network."""

    @property
    def trunk(self) -> Any:
        """The timm network."""
        return self.network

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return list(self.trunk.blocks)

    def block_state(self, index: int) -> dict[str, Tensor]:
        return canonical_block(self._own_block_state(index), **self._layout)

    def head_state(self) -> dict[str, Tensor]:
        trunk, projects = self.trunk, self.anatomy.projection is not None
        rooms = {"norm": trunk.norm, "pooled_norm": trunk.fc_norm, "projection" if projects else "classifier": trunk.head}
        if self.anatomy.distilled:
            rooms["distilled_classifier"] = trunk.head_dist
        return named_weights(rooms | ({"pooling": trunk.attn_pool} if trunk.global_pool == "map" else {}))

    def patch_embedding(self) -> PatchEmbedding:
        trunk, embed = self.trunk, patch_layer(self.trunk)
        weight = embed.proj.weight
        if weight.ndim == 2:  # NaFlex: a linear layer over the pixels of a patch
            side, last = self.patch_size, getattr(embed, "channels_last", True)
            weight = weight.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2) if last else weight.unflatten(1, (3, side, side))
        rows, columns = self.grid
        positions = torch.zeros(trunk.embed_dim, rows, columns)
        if isinstance(trunk, NaFlexVit):
            positions = self.positions_on(rows, columns)
        elif getattr(trunk, "pos_embed", None) is not None:
            positions = trunk.pos_embed[0, -rows * columns :].T.reshape(positions.shape)
        return PatchEmbedding.of(weight, embed.proj.bias, positions, embed.norm, getattr(trunk, "norm_pre", None))

    @property
    def has_positions(self) -> bool:
        embed = patch_layer(self.trunk)
        return getattr(embed, "pos_embed_type", "none") != "none" or getattr(self.trunk, "pos_embed", None) is not None

    @torch.no_grad()
    def positions_on(self, rows: int, columns: int) -> Tensor:
        if not isinstance(self.trunk, NaFlexVit):
            return super().positions_on(rows, columns)
        # NaFlex resamples them in several ways. Whatever it does, they are what a blank image has beyond blank patches.
        embed, side = self.trunk.embeds, self.patch_size
        weight = embed.proj.weight
        tokens, _ = embed(weight.new_zeros(1, 3, rows * side, columns * side))
        patch = embed.norm(weight.new_zeros(len(weight)) if embed.proj.bias is None else embed.proj.bias)
        return (tokens[0, self.anatomy.prefix_tokens :] - patch).T.unflatten(1, (rows, columns)).float()

    def attention_positions(self, rows: int, columns: int) -> dict[str, Tensor]:
        return positions_state(self.trunk, (rows, columns))

    def liberties(self) -> tuple[str, ...]:
        return liberties(self._own_block_state(0), **self._layout)

    def _own_block_state(self, index: int) -> dict[str, Tensor]:
        state = self.trunk.blocks[index].state_dict()
        return {name: value for name, value in state.items() if not name.startswith(BESIDE_BLOCKS)}

    @property
    def _layout(self) -> dict[str, Any]:
        rope = getattr(self.trunk, "rope", None)
        interleaved = rope is not None and not getattr(self.trunk.blocks[0].attn, "rotate_half", False)
        return {"heads": self.anatomy.block.heads, "interleaved": interleaved}


def refuse_module(network: Any, name: str) -> None:
    """Raises TeacherError with the reason, unless the network is of a family that can be inherited from."""
    kind = type(network).__name__
    if not isinstance(network, FAMILIES):
        raise refuse(name, f"its {kind} is windowed, convolutional or otherwise not a plain vision transformer")
    if type(network) not in FAMILIES:
        raise refuse(name, f"its {kind} changes the vision transformer that it derives from")
    embed, block, pool = patch_layer(network), network.blocks[0], network.global_pool
    attention = getattr(block, "attn", None)
    reasons = {
        "it is a hybrid with a convolutional backbone": hasattr(embed, "backbone"),
        "its images do not have three channels": network.in_chans != 3,
        "it pads images to whole patches": getattr(embed, "dynamic_img_pad", False),
        "it norms the pixels of a patch": getattr(embed, "norm_input", None) is not None,
        f"its pooling '{pool}' is none of token, average or attention pooling": pool not in POOLINGS,
        f"its {type(block).__name__} blocks are not plain transformer blocks": type(block).__name__ not in BLOCKS,
        f"its {type(attention).__name__} is not plain attention": type(attention).__name__ not in ATTENTIONS,
        "its attention has a gate": getattr(attention, "gate", None) is not None,
        "its feed-forward network is not linear": not isinstance(getattr(getattr(block, "mlp", None), "fc2", None), nn.Linear),
        "its blocks differ from one another": len({_form(each) for each in network.blocks}) > 1,
        f"its head is a {type(network.head).__name__}, not one linear layer": type(network.head) not in (nn.Linear, nn.Identity),
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        raise refuse(name, reason)


def _form(block: Any) -> tuple[Any, ...]:
    """What has to be the same in all blocks, beside the shapes of their weights."""
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    kinds = (block, attention, mlp, getattr(mlp, "act", None), getattr(mlp, "fc2", None))
    return (*map(type, kinds), getattr(attention, "num_heads", None))


def patch_layer(network: Any) -> Any:
    """The module that makes tokens of pixels."""
    return network.embeds if isinstance(network, NaFlexVit) else network.patch_embed


def own_image_size(network: Any) -> tuple[int, int]:
    """Height and width that a network is made for; of those that take any, what its weights were published for."""
    if isinstance(network, NaFlexVit):
        height, width = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, 256, 256))[1:]
    else:
        height, width = network.patch_embed.img_size
    return height, width


def preprocessing_of(settings: Mapping[str, Any], *, size: tuple[int, int], crop: float, squash: bool) -> PreprocessingConfig:
    """The preprocessing that the settings of timm or OpenCLIP stand for."""
    return PreprocessingConfig(
        size=size,
        crop=crop,
        interpolation="bicubic" if settings["interpolation"] == "random" else settings["interpolation"],
        resize="squash" if squash else "shorter",
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def anatomy_of(network: Any, name: str, *, projects: bool, size: tuple[int, int]) -> CortexConfig:
    """The cortex that a network which :func:`refuse_module` let pass calls for; raises TeacherError as that does.
    ``projects`` tells whether its head, where it has one, projects the embedding rather than classifies it; ``size`` is the
    height and width of its images.
    """
    block = network.blocks[0]
    attention, mlp = block.attn, block.mlp
    states = {name.rpartition(".")[0] for name in block.state_dict()} | set(block.state_dict())
    has_head = isinstance(network.head, nn.Linear)
    if has_head and not projects and network.head.bias is None:
        raise refuse(name, "its classifier has no bias")
    if isinstance(mlp, GluMlp) and mlp.gate_last:
        raise refuse(name, "the gate of its feed-forward network is the last half, not the first")
    norm, eps = _norms_of(network, name)
    rows, columns = (side // patch_layer(network).patch_size[0] for side in size)
    attends = not isinstance(network, Eva) or network.global_pool != "map"
    return CortexConfig(
        block=BlockConfig(
            width=network.embed_dim,
            heads=attention.num_heads,
            feed_forward_width=mlp.fc2.in_features,
            activation=activation_of(mlp.act, name),
            gated=isinstance(mlp, GluMlp | SwiGLU),
            qkv_bias=any(f"attn.{each}" in states for each in ("qkv.bias", "q_bias", "v_bias", "q_proj.bias", "v_proj.bias")),
            attention_bias=attention.proj.bias is not None,
            feed_forward_bias=mlp.fc2.bias is not None,
            query_key_norm="attn.q_norm" in states,
            attention_norm="attn.norm" in states,
            feed_forward_norm="mlp.norm" in states,
            layer_scale="ls1" in states or "gamma_1" in states,
            post_norm=BLOCKS[type(block).__name__],
            norm=norm,
            norm_eps=eps,
        ),
        depth=len(network.blocks),
        positions=positions_config(network, (rows, columns), name),
        prefix_tokens=network.num_prefix_tokens,
        final_norm=not isinstance(network.norm, nn.Identity),
        pooling=POOLINGS[network.global_pool],
        pool_prefix_tokens=getattr(network, "pool_include_prefix", not attends),
        pooled_norm=not isinstance(network.fc_norm, nn.Identity),
        distilled=isinstance(network, VisionTransformerDistilled),
        **_pool_of(network, name),
        projection=network.head.out_features if has_head and projects else None,
        projection_bias=has_head and projects and network.head.bias is not None,
        classes=network.head.out_features if has_head and not projects else None,
    )


def activation_of(module: nn.Module, name: str) -> Activation:
    """Our name of a PyTorch, timm or OpenCLIP activation module; raises TeacherError for one that the cortex does not have."""
    kind = type(module).__name__
    if kind == "GELUTanh" or (kind == "GELU" and getattr(module, "approximate", "none") == "tanh"):
        return "gelu_tanh"
    known: dict[str, Activation] = {"GELU": "gelu", "QuickGELU": "quick_gelu", "ReLU": "relu", "SiLU": "silu"}
    if kind not in known:
        raise refuse(name, f"its activation is {kind}")
    return known[kind]


def _norms_of(network: Any, name: str) -> tuple[Literal["layer", "rms"], float]:
    """The kind of all norms and their epsilon; raises TeacherError where they differ, as the cortex has one of each."""
    first = network.blocks[0].norm1
    leaves = [module for module in network.modules() if not list(module.children())]
    for norm in (module for module in leaves if "norm" in type(module).__name__.lower()):
        known = isinstance(norm, nn.LayerNorm | nn.RMSNorm) or type(norm).__name__ in ("RmsNorm", "RmsNormFp32")
        if isinstance(first, nn.LayerNorm) != isinstance(norm, nn.LayerNorm) or not known:
            raise refuse(name, f"it normalises by {type(norm).__name__}, too")
        if norm.eps != first.eps:
            raise refuse(name, f"its norms differ in their epsilon ({first.eps} and {norm.eps})")
    return ("layer" if isinstance(first, nn.LayerNorm) else "rms"), first.eps


def _pool_of(network: Any, name: str) -> dict[str, Any]:
    pool, mlp = getattr(network, "attn_pool", None), network.blocks[0].mlp
    if pool is None:
        return {}
    plain = isinstance(pool, AttentionPoolLatent) and pool.latent_len == 1 and pool.pos_embed is None
    plain = plain and isinstance(pool.q, nn.Linear) and pool.mlp is not None and isinstance(pool.q_norm, nn.Identity)
    alike = plain and type(pool.mlp) is type(mlp) and type(pool.mlp.act) is type(mlp.act) and isinstance(mlp.norm, nn.Identity)
    if not alike:
        raise refuse(name, "its attention pooling is not that of SigLIP: one latent query, then a feed-forward network")
    hidden = pool.mlp.fc1.out_features
    own_width = None if hidden == mlp.fc2.in_features else hidden
    return {"attention_pool_heads": int(pool.num_heads), "attention_pool_width": own_width}
