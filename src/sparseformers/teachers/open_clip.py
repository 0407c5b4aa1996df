"""Teachers from OpenCLIP: the image towers of its CLIPs, whether its own vision transformers or timm's plain ones.

The embedding is that of ``encode_image`` before normalisation. Only the image tower is built; a text tower is never loaded.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig
from sparseformers.teachers.base import Teacher, TeacherIdentity, check_block, check_image_size
from sparseformers.teachers.files import check_state_fits, licence_of, read_weights
from sparseformers.teachers.open_clip_names import (
    Architecture,
    check_version,
    configuration_errors,
    fetch,
    find_architecture,
    find_weights,
    first_settings,
    split_name,
)
from sparseformers.teachers.open_clip_towers import (
    OpenClipTeacher,
    OpenClipTimmTeacher,
    clip_anatomy,
    clip_timm_anatomy,
    refuse_tower,
)
from sparseformers.torchvision_guard import import_torchvision

import_torchvision()

from open_clip.model import _build_vision_tower  # noqa: E402  # the public create_model would build the text tower too
from open_clip.timm_model import TimmModel  # noqa: E402
from open_clip.transform import PreprocessCfg, merge_preprocess_dict  # noqa: E402
from open_clip.transformer import VisionTransformer  # noqa: E402
from timm.layers import resample_abs_pos_embed  # noqa: E402


def from_hub(name: str, *, image_size: int | None = None, crop: float | None = None) -> Teacher:
    """An OpenCLIP image tower with the weights that OpenCLIP has for it.

    Args:
        name: ARCH/TAG, for example ``ViT-B-32/laion2b_s34b_b79k``.
        image_size: side in pixels, if not the tower's own; its position embeddings are resampled.
        crop: share of the shorter side that the central crop keeps; all of it by default, as OpenCLIP has it.

    Raises:
        TeacherError: if OpenCLIP does not know the name, the hub cannot be reached, or it cannot be inherited from.
        WeightsError: if the weights do not fit.
    """
    check_version()
    arch, tag = split_name(name)
    architecture = find_architecture(arch)
    settings = find_weights(architecture, tag)
    network = _build(architecture, quick_gelu=bool(settings.get("quick_gelu")))
    path = fetch(name, architecture, settings)
    _load(network, _visual_state(read_weights(path)), what=str(path))
    _resize(network, image_size)
    return _wrap(
        network,
        name=f"open_clip:{name}",
        source=f"OpenCLIP hub, {name}",
        licence=licence_of(tag),
        settings=settings,
        crop=crop,
    )


def from_file(name: str, path: Path, *, image_size: int | None = None, crop: float | None = None) -> Teacher:
    """An OpenCLIP image tower with weights from a local file; its position grid is read off the weights.

    Preprocessing is what a configuration file says of it, or that of the first weights that OpenCLIP lists for the architecture.

    Args:
        name: OpenCLIP's name of the architecture, for example ``ViT-B-32`` (``ViT-B-32-quickgelu`` for OpenAI's), or the
            path of a model's configuration file, which ends in ``.json``.
        path: a .safetensors file or a .pth state dict (read with ``weights_only``) of a whole CLIP or its image tower.
        image_size: side in pixels, if not the one that the weights were made at.
        crop: share of the shorter side that the central crop keeps; all of it by default.

    Raises:
        TeacherError: for an unknown or unsuitable architecture.
        WeightsError: if the file cannot be read or does not fit.
    """
    check_version()
    architecture = find_architecture(name)
    network = _build(architecture)
    state = _visual_state(read_weights(path))
    side = _side_of(state)
    if side is not None and (side, side) != tuple(network.image_size):
        network = _build(architecture, side=side)
    _load(network, state, what=str(path))
    _resize(network, image_size)
    return _wrap(
        network,
        name=f"open_clip:{name}@{path}",
        source=str(path),
        licence=None,
        settings=first_settings(architecture),
        crop=crop,
    )


def from_module(
    network: nn.Module,
    *,
    name: str = "a module passed in",
    source: str = "passed in from Python",
    licence: str | None = None,
    image_size: int | None = None,
    crop: float | None = None,
) -> Teacher:
    """An OpenCLIP model, or its image tower, that exists already; the teacher is a copy, the module stays as it is.

    Args:
        network: a ``CLIP``, or its ``visual``; preprocessing is read from its ``preprocess_cfg`` where it has one.
        name: what to call it.
        source: where its weights came from.
        licence: the licence that its weights come under.
        image_size: side in pixels, if not the tower's own; its position embeddings are resampled.
        crop: share of the shorter side that the central crop keeps; all of it by default.

    Raises:
        TeacherError: with the reason, where it cannot be inherited from.
    """
    check_version()
    tower = getattr(network, "visual", network)
    refuse_tower(tower, name)
    tower = copy.deepcopy(tower)
    _resize(tower, image_size)
    settings = getattr(tower, "preprocess_cfg", None) or {}
    return _wrap(tower, name=name, source=source, licence=licence, settings=settings, crop=crop)


def _wrap(
    network: nn.Module, *, name: str, source: str, licence: str | None, settings: Mapping[str, Any], crop: float | None
) -> Teacher:
    native = isinstance(network, VisionTransformer)
    teacher = (OpenClipTeacher if native else OpenClipTimmTeacher)(
        network,
        identity=TeacherIdentity(name=name, source=source, licence=licence),
        anatomy=clip_anatomy(network, name) if native else clip_timm_anatomy(network, name),
        preprocessing=_preprocessing(network, settings, crop),
        patch_size=_patch_size(network),
    )
    check_block(teacher.block_state(0), teacher.anatomy, name=name)
    return teacher


def _build(architecture: Architecture, *, quick_gelu: bool = False, side: int | None = None) -> Any:
    """The image tower without memory, refused here if it cannot be inherited from: before anything is fetched."""
    config = architecture.config
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if side is not None:
        vision["image_size"] = side
    with torch.device("meta"), configuration_errors(architecture):
        network = _build_vision_tower(config["embed_dim"], vision, quick_gelu or config.get("quick_gelu", False))
    refuse_tower(network, f"open_clip:{architecture.name}")
    return network


def _load(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    check_state_fits(network, state, what=what)
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _visual_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's part of a whole CLIP, or all of what is its image tower alone."""
    visual = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    return visual or dict(state)


def _side_of(state: Mapping[str, Tensor]) -> int | None:
    """The side in pixels that the square position grid of OpenCLIP's own tower was made for."""
    if "positional_embedding" not in state or "conv1.weight" not in state:
        return None
    grid = math.isqrt(state["positional_embedding"].shape[0] - 1)
    return grid * state["conv1.weight"].shape[-1] if grid * grid == state["positional_embedding"].shape[0] - 1 else None


def _resize(network: Any, image_size: int | None) -> None:
    """Makes the tower take another image size, in place."""
    if image_size is None:
        return
    patch = _patch_size(network)
    check_image_size(image_size, patch)
    if isinstance(network, TimmModel):
        network.trunk.set_input_size(img_size=image_size)
        network.image_size = (image_size, image_size)
        return
    grid = (image_size // patch, image_size // patch)
    positions = network.positional_embedding.detach().unsqueeze(0)
    resampled = resample_abs_pos_embed(positions, new_size=list(grid), old_size=list(network.grid_size), num_prefix_tokens=1)
    network.positional_embedding = nn.Parameter(resampled[0])
    network.grid_size, network.image_size = grid, (image_size, image_size)


def _patch_size(network: Any) -> int:
    return int(network.trunk.patch_embed.patch_size[0] if isinstance(network, TimmModel) else network.patch_size[0])


def _preprocessing(network: Any, settings: Mapping[str, Any], crop: float | None) -> PreprocessingConfig:
    merged = merge_preprocess_dict(PreprocessCfg(), dict(settings))
    size = network.trunk.patch_embed.img_size if isinstance(network, TimmModel) else network.image_size
    return PreprocessingConfig(
        size=(size[0], size[1]),
        crop=1.0 if crop is None else crop,
        interpolation="bicubic" if merged["interpolation"] == "random" else merged["interpolation"],
        resize="squash" if merged["resize_mode"] == "squash" else "shorter",
        mean=tuple(merged["mean"]),
        std=tuple(merged["std"]),
    )
