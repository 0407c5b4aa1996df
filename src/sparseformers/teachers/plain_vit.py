"""Reads timm's ``VisionTransformer``, for the adapters of timm and of OpenCLIP's models with a timm tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from timm.layers import AttentionPoolLatent, GluMlp, SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sparseformers.config import Activation, BlockConfig, CortexConfig
from sparseformers.teachers.base import PatchEmbedding, named_weights, refuse

POOLINGS: Mapping[str, Literal["token", "average", "attention"]] = {"token": "token", "avg": "average", "map": "attention"}
"""timm's names of poolings, and ours."""


def refuse_module(network: nn.Module, name: str) -> None:
    """Raises TeacherError with the reason, unless the network is a plain ``VisionTransformer``."""
    reason = None
    if getattr(network, "rope", None) is not None:
        reason = "it uses rotary positions, which its blocks would need for tokens without a fixed place"
    elif not isinstance(network, VisionTransformer):
        reason = f"its {type(network).__name__} is windowed, convolutional or otherwise not a plain vision transformer"
    elif hasattr(network, "head_dist"):
        reason = "it has a distillation token with a head of its own"
    elif type(network) is not VisionTransformer:
        reason = f"its {type(network).__name__} changes the plain vision transformer that it derives from"
    elif hasattr(network.patch_embed, "backbone"):
        reason = "it is a hybrid with a convolutional backbone"
    elif network.global_pool not in POOLINGS:
        reason = f"its pooling '{network.global_pool}' is none of token, average or attention pooling"
    elif type(network.blocks[0]).__name__ != "Block":
        reason = f"its {type(network.blocks[0]).__name__} blocks are not plain pre-norm blocks"
    if reason:
        raise refuse(name, reason)


def anatomy_of(network: VisionTransformer, name: str, *, projects: bool) -> CortexConfig:
    """The cortex that a network which :func:`refuse_module` let pass calls for; raises TeacherError as that does.

    ``projects`` tells whether its head, where it has one, projects the embedding rather than classifies it.
    """
    block = network.blocks[0]
    has_head = isinstance(network.head, nn.Linear)
    _refuse_norms(network, name)
    return CortexConfig(
        block=BlockConfig(
            width=network.embed_dim,
            heads=block.attn.num_heads,
            feed_forward_width=block.mlp.fc2.in_features,
            activation=activation_of(block.mlp.act, name),
            gated=_is_gated(block.mlp, name),
            qkv_bias=block.attn.qkv.bias is not None,
            attention_bias=block.attn.proj.bias is not None,
            feed_forward_bias=block.mlp.fc2.bias is not None,
            query_key_norm=not isinstance(block.attn.q_norm, nn.Identity),
            layer_scale=not isinstance(block.ls1, nn.Identity),
            norm_eps=block.norm1.eps,
        ),
        depth=len(network.blocks),
        prefix_tokens=network.num_prefix_tokens,
        final_norm=not isinstance(network.norm, nn.Identity),
        pooling=POOLINGS[network.global_pool],
        pool_prefix_tokens=network.pool_include_prefix,
        pooled_norm=not isinstance(network.fc_norm, nn.Identity),
        attention_pool_heads=_pool_heads(network, name),
        projection=network.head.out_features if has_head and projects else None,
        projection_bias=has_head and projects and network.head.bias is not None,
        classes=network.head.out_features if has_head and not projects else None,
    )


def head_state_of(network: VisionTransformer, *, projects: bool) -> dict[str, Tensor]:
    """The weights after the blocks, under the names of ``CortexTransformer``."""
    rooms = {"norm": network.norm, "pooled_norm": network.fc_norm, "projection" if projects else "classifier": network.head}
    if network.global_pool == "map":
        rooms["pooling"] = network.attn_pool
    return named_weights(rooms)


def patch_embedding_of(network: VisionTransformer) -> PatchEmbedding:
    """The patch embedding with the positions of the network's own grid."""
    rows, columns = network.patch_embed.grid_size
    positions = torch.zeros(network.embed_dim, rows, columns)
    if network.pos_embed is not None:
        positions = network.pos_embed[0, -rows * columns :].T.reshape(positions.shape)
    return PatchEmbedding.of(network.patch_embed.proj, positions, network.norm_pre)


def canonical_block_state(block: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm block; the two halves of a SwiGLU are joined into one projection."""
    state = dict(block.state_dict())
    if isinstance(block.mlp, SwiGLU):
        for kind in ("weight", "bias"):
            if f"mlp.fc1_g.{kind}" in state:
                state[f"mlp.fc1.{kind}"] = torch.cat([state.pop(f"mlp.fc1_g.{kind}"), state.pop(f"mlp.fc1_x.{kind}")])
    return state


def activation_of(module: nn.Module, name: str) -> Activation:
    """Our name of a PyTorch, timm or OpenCLIP activation module; raises TeacherError for one that the cortex does not have."""
    kind = type(module).__name__
    if kind == "GELUTanh" or (kind == "GELU" and getattr(module, "approximate", "none") == "tanh"):
        return "gelu_tanh"
    known: dict[str, Activation] = {"GELU": "gelu", "QuickGELU": "quick_gelu", "ReLU": "relu", "SiLU": "silu"}
    if kind not in known:
        raise refuse(name, f"its activation is {kind}")
    return known[kind]


def _refuse_norms(network: VisionTransformer, name: str) -> None:
    """Raises TeacherError unless all norms from the first block on are LayerNorms of one epsilon, as the cortex's are."""
    eps = network.blocks[0].norm1.eps
    inherited = [network.blocks, network.norm, network.fc_norm, *([network.attn_pool] if network.attn_pool is not None else [])]
    for norm in (module for part in inherited for module in part.modules() if "norm" in type(module).__name__.lower()):
        if not isinstance(norm, nn.LayerNorm):
            raise refuse(name, f"it normalises by {type(norm).__name__}, not LayerNorm")
        if norm.eps != eps:
            raise refuse(name, f"its norms differ in their epsilon ({eps} and {norm.eps})")


def _pool_heads(network: VisionTransformer, name: str) -> int:
    pool = network.attn_pool
    if pool is None:
        return 1
    plain = isinstance(pool, AttentionPoolLatent) and pool.latent_len == 1 and pool.pos_embed is None
    hidden_width = network.blocks[0].mlp.fc2.in_features
    if not plain or not isinstance(pool.q, nn.Linear) or pool.mlp is None or pool.mlp.fc2.in_features != hidden_width:
        raise refuse(name, "its attention pooling is not that of SigLIP: one latent query, then a feed-forward network")
    return int(pool.num_heads)


def _is_gated(mlp: nn.Module, name: str) -> bool:
    if isinstance(mlp, GluMlp):
        if mlp.gate_last:
            raise refuse(name, "the gate of its feed-forward network is the last half, not the first")
        return True
    return isinstance(mlp, SwiGLU)
