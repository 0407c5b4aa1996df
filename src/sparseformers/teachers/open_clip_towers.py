"""The image towers of OpenCLIP as teachers: its own vision transformers, and timm's plain ones inside its models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from sparseformers.config import BlockConfig, CortexConfig
from sparseformers.teachers.base import PatchEmbedding, Teacher, TeacherOutput
from sparseformers.teachers.plain_vit import (
    activation_of,
    anatomy_of,
    canonical_block_state,
    head_state_of,
    patch_embedding_of,
    refuse,
    refuse_module,
)
from sparseformers.torchvision_guard import import_torchvision

import_torchvision()

from open_clip.timm_model import TimmModel  # noqa: E402
from open_clip.transformer import VisionTransformer  # noqa: E402

RENAMED = {
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "ls_1.": "ls1.",
    "ls_2.": "ls2.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "attn.ln_q.": "attn.q_norm.",
    "attn.ln_k.": "attn.k_norm.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
"""Beginnings of a block's weight names: OpenCLIP's and ours."""


class OpenClipTeacher(Teacher):
    """OpenCLIP's own ``VisionTransformer`` as a teacher."""

    network: VisionTransformer

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return list(self.network.transformer.resblocks)

    def embed(self, normalised: Tensor) -> TeacherOutput:
        result = self.network(normalised)
        return TeacherOutput(result if isinstance(result, Tensor) else result[0], None)

    def block_state(self, index: int) -> dict[str, Tensor]:
        state = self.network.transformer.resblocks[index].state_dict()
        return {_rename(name): value for name, value in state.items()}

    def head_state(self) -> dict[str, Tensor]:
        room = "norm" if self.anatomy.final_norm else "pooled_norm"
        state = {f"{room}.{name}": value for name, value in self.network.ln_post.state_dict().items()}
        if self.network.proj is not None:
            state["projection.weight"] = self.network.proj.T
        return state

    def patch_embedding(self) -> PatchEmbedding:
        network, (rows, columns) = self.network, self.network.grid_size
        positions = network.positional_embedding[1:].T.reshape(-1, rows, columns)
        norm = network.ln_pre
        return PatchEmbedding(
            weight=network.conv1.weight,
            bias=network.conv1.bias,
            positions=positions,
            pre_norm=(norm.weight, norm.bias) if isinstance(norm, nn.LayerNorm) else None,
        )


class OpenClipTimmTeacher(Teacher):
    """A timm ``VisionTransformer`` inside an OpenCLIP model (SigLIP) as a teacher."""

    network: TimmModel

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return list(self.network.trunk.blocks)

    def embed(self, normalised: Tensor) -> TeacherOutput:
        return TeacherOutput(self.network(normalised), None)

    def block_state(self, index: int) -> dict[str, Tensor]:
        return canonical_block_state(self.network.trunk.blocks[index])

    def head_state(self) -> dict[str, Tensor]:
        projection = {f"projection.{name.removeprefix('proj.')}": value for name, value in self.network.head.state_dict().items()}
        return head_state_of(self.network.trunk, projects=True) | projection

    def patch_embedding(self) -> PatchEmbedding:
        return patch_embedding_of(self.network.trunk)


def _rename(name: str) -> str:
    """A weight's name with its beginning as ours; a name without counterpart stays, to be refused."""
    return next((ours + name.removeprefix(theirs) for theirs, ours in RENAMED.items() if name.startswith(theirs)), name)


def refuse_tower(network: nn.Module, name: str) -> None:
    """Raises TeacherError with the reason, for a tower that cannot be inherited from."""
    if isinstance(network, TimmModel):
        refuse_module(network.trunk, name)
        extra = [kind for kind in network.head._modules if kind not in ("drop", "proj")]
        if extra:
            raise refuse(name, f"its head has a part '{extra[0]}' besides a linear projection")
        return
    reason = None
    if type(network) is not VisionTransformer:
        reason = f"its {type(network).__name__} is convolutional or otherwise not a plain vision transformer"
    elif network.attn_pool is not None:
        reason = "it pools by CoCa's attentional pooler"
    elif network.pool_type not in ("tok", "avg"):
        reason = f"its pooling '{network.pool_type}' is neither the class token nor the average"
    elif not network.transformer.batch_first:
        reason = "its blocks take tokens before the batch"
    if reason:
        raise refuse(name, reason)


def clip_anatomy(network: VisionTransformer, name: str) -> CortexConfig:
    """The cortex that OpenCLIP's own tower calls for.

    Raises:
        TeacherError: for an activation that the cortex does not have.
    """
    block = network.transformer.resblocks[0]
    return CortexConfig(
        block=BlockConfig(
            width=network.conv1.out_channels,
            heads=block.attn.num_heads,
            feed_forward_width=block.mlp.c_fc.out_features,
            activation=activation_of(block.mlp.gelu, name),
            qkv_bias=block.attn.in_proj_bias is not None,
            query_key_norm=isinstance(getattr(block.attn, "ln_q", None), nn.LayerNorm),
            layer_scale=not isinstance(block.ls_1, nn.Identity),
            norm_eps=block.ln_1.eps,
        ),
        depth=len(network.transformer.resblocks),
        final_norm=not network.final_ln_after_pool,
        pooling="token" if network.pool_type == "tok" else "average",
        pooled_norm=network.final_ln_after_pool,
        projection=None if network.proj is None else network.proj.shape[1],
    )


def clip_timm_anatomy(network: TimmModel, name: str) -> CortexConfig:
    """The cortex that a timm tower calls for, with the projection that OpenCLIP puts after it.

    Raises:
        TeacherError: with the reason, where a part of it has no counterpart in the cortex.
    """
    anatomy = anatomy_of(network.trunk, name, projects=True)
    projection = getattr(network.head, "proj", None)
    if projection is None:
        return anatomy
    return dataclasses.replace(anatomy, projection=projection.out_features, projection_bias=projection.bias is not None)
