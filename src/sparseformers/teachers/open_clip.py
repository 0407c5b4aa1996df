"""Teachers from OpenCLIP: the image towers of its CLIPs, whether its own vision transformers or timm's plain ones.

The embedding is that of ``encode_image`` before normalisation. Only the image tower is built; a text tower is never loaded.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import _build_vision_tower  # the public create_model would build the text tower too
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from sparseformers.config import BlockConfig, CortexConfig
from sparseformers.teachers import open_clip_names
from sparseformers.teachers.base import (
    PASSED_IN,
    PatchEmbedding,
    Teacher,
    TeacherIdentity,
    TeacherOutput,
    check_fit,
    check_image_size,
    named_weights,
    own_size,
    refuse,
    square_patch,
)
from sparseformers.teachers.canonical import renamed
from sparseformers.teachers.checkpoints import read_weights
from sparseformers.teachers.hubs import licence_of
from sparseformers.teachers.timm_families import (
    TimmFamilyTeacher,
    activation_of,
    anatomy_of,
    own_image_size,
    patch_layer,
    preprocessing_of,
    refuse_module,
)

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
}  # beginnings of a block's weight names in OpenCLIP, and ours


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
        return renamed(self.network.transformer.resblocks[index].state_dict(), RENAMED)

    def head_state(self) -> dict[str, Tensor]:
        room = "norm" if self.anatomy.final_norm else "pooled_norm"
        state = named_weights({room: self.network.ln_post})
        if self.network.proj is not None:
            state["projection.weight"] = self.network.proj.T
        return state

    def patch_embedding(self) -> PatchEmbedding:
        network = self.network
        positions = network.positional_embedding[1:].T.reshape(-1, *network.grid_size)
        return PatchEmbedding.of(network.conv1.weight, network.conv1.bias, positions, None, network.ln_pre)


class OpenClipTimmTeacher(TimmFamilyTeacher):
    """A vision transformer of timm inside an OpenCLIP model (SigLIP, EVA-02, Perception Encoder) as a teacher."""

    network: TimmModel

    @property
    def trunk(self) -> Any:
        return self.network.trunk

    def embed(self, normalised: Tensor) -> TeacherOutput:
        return TeacherOutput(self.network(normalised), None)

    def head_state(self) -> dict[str, Tensor]:
        projection = {f"projection.{name.removeprefix('proj.')}": value for name, value in self.network.head.state_dict().items()}
        return super().head_state() | projection


def from_hub(name: str, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> Teacher:
    """An OpenCLIP image tower with OpenCLIP's own weights, such as ``ViT-B-32/laion2b_s34b_b79k``; see ``load_teacher``."""
    architecture, settings = open_clip_names.find(name)
    network = _build(architecture, quick_gelu=bool(settings.get("quick_gelu")))
    path = open_clip_names.fetch(name, architecture, settings)
    _load(network, _visual_state(read_weights(path, open_clip_names.ANCHORS).state), path)
    _resize(network, image_size)
    licence = licence_of(name.rpartition("/")[2])
    identity = TeacherIdentity(name=f"open_clip:{name}", source=f"OpenCLIP hub, {name}", licence=licence)
    return _wrap(network, identity, settings, crop)


def from_file(
    name: str, path: Path, *, place: str | None = None, image_size: tuple[int, int] | None = None, crop: float | None = None
) -> Teacher:
    """An OpenCLIP image tower with weights from a file of it or of a whole CLIP; its position grid is read off the weights.

    ``name`` is OpenCLIP's name of the architecture, for example ``ViT-B-32`` (``ViT-B-32-quickgelu`` for OpenAI's), or the path
    of a model's configuration file, which ends in ``.json``. Preprocessing is as that says, or as for OpenCLIP's first weights.
    ``place`` tells which of several networks in the file.
    """
    architecture = open_clip_names.find_architecture(name)
    network = _build(architecture)
    weights = read_weights(path, open_clip_names.ANCHORS, place=place)
    state = _visual_state(weights.state)
    size = _size_of(network, state, image_size)
    if size != tuple(_image_size(network)):
        network = _build(architecture, size=size)
    _load(network, state, path)
    _resize(network, image_size)
    identity = weights.identity(f"open_clip:{name}", path, place)
    return _wrap(network, identity, open_clip_names.first_settings(architecture), crop)


def from_module(network: nn.Module, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> Teacher:
    """An OpenCLIP ``CLIP``, or its ``visual``, that exists already; the teacher is a copy, the module stays as it is."""
    tower = getattr(network, "visual", network)
    _refuse_tower(tower, PASSED_IN.name)
    tower = copy.deepcopy(tower)
    _resize(tower, image_size)
    return _wrap(tower, PASSED_IN, getattr(tower, "preprocess_cfg", None) or {}, crop)


def architectures() -> dict[str, dict[str, str | None]]:
    """The models of OpenCLIP that have weights: for each the names of these, as of teachers, with their licences."""
    found: dict[str, dict[str, str | None]] = {}
    for architecture, tag in open_clip.list_pretrained():
        found.setdefault(architecture, {})[f"open_clip:{architecture}/{tag}"] = licence_of(f"{architecture}/{tag}")
    return found


def on_meta(architecture: str) -> Teacher:
    """A teacher of an architecture without memory or weights; raises TeacherError if it cannot be inherited from."""
    found = open_clip_names.find_architecture(architecture)
    identity = TeacherIdentity(name=f"open_clip:{architecture}", source="no weights")
    return _wrap(_build(found), identity, open_clip_names.first_settings(found), None)


def _wrap(network: nn.Module, identity: TeacherIdentity, settings: Mapping[str, Any], crop: float | None) -> Teacher:
    native = isinstance(network, VisionTransformer)
    merged, crop = merge_preprocess_dict(PreprocessCfg(), dict(settings)), 1.0 if crop is None else crop
    squash = merged["resize_mode"] == "squash"
    return (OpenClipTeacher if native else OpenClipTimmTeacher)(
        network,
        identity=identity,
        anatomy=(_clip_anatomy if native else _clip_timm_anatomy)(network, identity.name),
        preprocessing=preprocessing_of(merged, size=_image_size(network), crop=crop, squash=squash),
        patch_size=_patch_size(network),
    )


def _build(architecture: open_clip_names.Architecture, *, quick_gelu: bool = False, size: tuple[int, int] | None = None) -> Any:
    """Builds the image tower without memory, to see whether it can be inherited from before anything is fetched."""
    config = architecture.config
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if size is not None:
        vision["image_size"] = size
    with torch.device("meta"), open_clip_names.configuration_errors(architecture):
        network = _build_vision_tower(config["embed_dim"], vision, quick_gelu or config.get("quick_gelu", False))
    _refuse_tower(network, f"open_clip:{architecture.name}")
    return network


def _load(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    check_fit(network.state_dict(), state, what=f"'{path}'")
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _visual_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's part of a whole CLIP, or all of what is its image tower alone."""
    visual = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    return visual or dict(state)


def _size_of(network: Any, state: Mapping[str, Tensor], image_size: tuple[int, int] | None) -> tuple[int, int]:
    """The height and width that the position grid was made for, where the weights tell; else the network's own."""
    own, name, prefix = _image_size(network), "positional_embedding", 1
    if isinstance(network, TimmModel):
        own_class = getattr(network.trunk, "no_embed_class", False)
        name, prefix = "trunk.pos_embed", 0 if own_class else network.trunk.num_prefix_tokens
    return own_size(state[name].shape[-2] - prefix, _patch_size(network), image_size, own) if name in state else own


def _resize(network: Any, image_size: tuple[int, int] | None) -> None:
    if image_size is None:
        return
    patch = _patch_size(network)
    check_image_size(image_size, patch)
    if isinstance(network, TimmModel):
        if hasattr(network.trunk, "patch_embed"):  # those of timm without one take any size
            network.trunk.set_input_size(img_size=image_size)
        network.image_size = image_size
        return
    grid, positions = (image_size[0] // patch, image_size[1] // patch), network.positional_embedding.detach().unsqueeze(0)
    resampled = resample_abs_pos_embed(positions, new_size=list(grid), old_size=list(network.grid_size), num_prefix_tokens=1)
    network.positional_embedding = nn.Parameter(resampled[0])
    network.grid_size, network.image_size = grid, image_size


def _image_size(network: Any) -> tuple[int, int]:
    if isinstance(network, TimmModel) and hasattr(network.trunk, "patch_embed"):
        return own_image_size(network.trunk)
    height, width = network.image_size
    return height, width


def _patch_size(network: Any) -> int:
    holder = patch_layer(network.trunk) if isinstance(network, TimmModel) else network
    return square_patch(holder.patch_size, PASSED_IN.name)


def _refuse_tower(network: nn.Module, name: str) -> None:
    if isinstance(network, TimmModel):
        refuse_module(network.trunk, name)
        if extra := [kind for kind in network.head._modules if kind not in ("drop", "proj")]:
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


def _clip_anatomy(network: VisionTransformer, name: str) -> CortexConfig:
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


def _clip_timm_anatomy(network: TimmModel, name: str) -> CortexConfig:
    anatomy = anatomy_of(network.trunk, name, projects=True, size=_image_size(network))
    projection = getattr(network.head, "proj", None)
    if projection is None:
        return anatomy
    return dataclasses.replace(anatomy, projection=projection.out_features, projection_bias=projection.bias is not None)
