"""Teachers from timm: every plain ``VisionTransformer``, from the hub, from a file, or passed in."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.models import is_model_pretrained
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig
from sparseformers.errors import TeacherError, WeightsError, suggest
from sparseformers.teachers.base import (
    FROM_PYTHON,
    PASSED_IN,
    PatchEmbedding,
    Teacher,
    TeacherIdentity,
    TeacherOutput,
    check_fit,
    check_image_size,
    own_size,
    square_patch,
)
from sparseformers.teachers.checkpoints import class_names_of, read_weights
from sparseformers.teachers.hubs import expect_hub, hub_errors, licence_of
from sparseformers.teachers.plain_vit import anatomy_of, canonical_block_state, head_state_of, patch_embedding_of, refuse_module

ANCHORS = ("patch_embed.proj.weight", "visual.class_embedding")
"""Weights by which a network is found in a file, in timm's names or in OpenAI's."""


class TimmTeacher(Teacher):
    """A timm ``VisionTransformer`` as a teacher."""

    network: VisionTransformer

    @property
    def host_blocks(self) -> Sequence[nn.Module]:
        return list(self.network.blocks)

    def embed(self, normalised: Tensor) -> TeacherOutput:
        embedding = self.network.forward_head(self.network.forward_features(normalised), pre_logits=True)
        if not isinstance(self.network.head, nn.Linear):
            return TeacherOutput(embedding, None)
        head = self.network.head(embedding)
        return TeacherOutput(head, None) if self.anatomy.projection else TeacherOutput(embedding, head)

    def block_state(self, index: int) -> dict[str, Tensor]:
        return canonical_block_state(self.network.blocks[index])

    def head_state(self) -> dict[str, Tensor]:
        return head_state_of(self.network, projects=self.anatomy.projection is not None)

    def patch_embedding(self) -> PatchEmbedding:
        return patch_embedding_of(self.network)


def from_hub(name: str, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> TimmTeacher:
    """A timm model with timm's own weights, such as ``vit_base_patch16_224.augreg_in21k_ft_in1k``; see ``load_teacher``."""
    empty = _empty_network(name)
    if not is_model_pretrained(name):
        raise TeacherError(f"timm has no weights for '{name}'.", f"Give them as timm:{name}@FILE.")
    check_image_size(image_size, empty.patch_embed.patch_size[0])
    with hub_errors(f"timm:{name}", by_hand=f"timm:{name}@FILE"):
        expect_hub(empty.pretrained_cfg.get("hf_hub_id"))
        network = timm.create_model(name, pretrained=True, img_size=image_size)
    tag = empty.pretrained_cfg.get("tag", "")
    return _wrap(network, name=f"timm:{name}", source=f"timm hub, {name}", crop=crop, licence=licence_of(f"{name}.{tag}"))


def from_file(
    name: str,
    path: Path,
    *,
    place: str | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
) -> TimmTeacher:
    """A timm model with weights from a local file; its classes and position grid are read off the weights.

    ``place`` tells which of several networks in the file, see :func:`~sparseformers.teachers.checkpoints.read_weights`.
    """
    empty = _empty_network(name)
    check_image_size(image_size, empty.patch_embed.patch_size[0])
    weights = read_weights(path, ANCHORS, place=place)
    state = weights.state
    _refuse_other_patches(empty, state, name, path)
    classes = state["head.weight"].shape[0] if "head.weight" in state else 0
    # timm leaves an img_size of None out.
    network = timm.create_model(name, num_classes=classes, img_size=_size_of(empty, state, image_size) or image_size)
    state = {key: value.float() for key, value in checkpoint_filter_fn(state, network).items()}
    check_fit(network.state_dict(), state, what=f"'{path}'")
    network.load_state_dict(state)
    if image_size is not None:
        network.set_input_size(img_size=image_size)
    named = f"timm:{name}@{path}" + (f"#{place}" if place else "")
    names = class_names_of(path)
    return _wrap(network, name=named, source=weights.source(path), place=weights.place, crop=crop, class_names=names)


def untrained(name: str, *, image_size: tuple[int, int] | None = None) -> TimmTeacher:
    """A timm architecture with random weights."""
    _check_name(name)
    return from_module(timm.create_model(name), name=f"timm:{name}", source="random weights", image_size=image_size)


def from_module(
    network: nn.Module,
    *,
    name: str = PASSED_IN,
    source: str = FROM_PYTHON,
    licence: str | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
) -> TimmTeacher:
    """A timm ``VisionTransformer`` that exists already; the teacher is a copy, the module stays as it is."""
    refuse_module(network, name)
    copied: Any = copy.deepcopy(network)
    if image_size is not None:
        check_image_size(image_size, copied.patch_embed.patch_size[0])
        copied.set_input_size(img_size=image_size)
    return _wrap(copied, name=name, source=source, crop=crop, licence=licence)


def _wrap(
    network: VisionTransformer,
    *,
    name: str,
    source: str,
    crop: float | None,
    class_names: tuple[str, ...] | None = None,
    licence: str | None = None,
    place: str = "",
) -> TimmTeacher:
    return TimmTeacher(
        network,
        identity=TeacherIdentity(name=name, source=source, place=place, licence=licence, class_names=class_names),
        anatomy=anatomy_of(network, name, projects=class_names is None and _is_projection(network)),
        preprocessing=_preprocessing(network, crop),
        patch_size=square_patch(network.patch_embed.patch_size, name),
    )


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = suggest(name, [*timm.list_models("vit_*"), *timm.list_pretrained("vit_*")])
        raise TeacherError(f"timm has no model of the name '{name}'.", near or "timm.list_pretrained('vit_*') lists its ViTs.")
    if tag and not is_model_pretrained(name):
        known = timm.list_pretrained(f"{architecture}.*")
        near = suggest(name, known) or (f"Known are: {', '.join(known)}." if known else f"Leave out '.{tag}'.")
        raise TeacherError(f"timm has no weights of the name '{name}'.", near)


def _empty_network(name: str) -> VisionTransformer:
    """Builds the architecture without memory, to see whether it can be inherited from before anything is fetched."""
    _check_name(name)
    with torch.device("meta"):
        network = timm.create_model(name)
    refuse_module(network, f"timm:{name}")
    return network


def _size_of(empty: VisionTransformer, state: dict[str, Tensor], image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """The height and width that the weights' position grid was made for, where they tell."""
    if "pos_embed" not in state or state["pos_embed"].ndim != 3:
        return None
    prefix = 0 if empty.no_embed_class else empty.num_prefix_tokens
    return own_size(state["pos_embed"].shape[1] - prefix, empty.patch_embed.patch_size[0], image_size, empty.patch_embed.img_size)


def _refuse_other_patches(empty: VisionTransformer, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Raises WeightsError for weights of another patch size, which timm would resample."""
    weight, side = state.get("patch_embed.proj.weight"), empty.patch_embed.patch_size[0]
    if weight is not None and weight.shape[-1] != side:
        problem = f"The weights in '{path}' are of patches of {weight.shape[-1]} pixels, those of '{name}' are of {side}."
        raise WeightsError(problem, f"Name the architecture that they are of, such as one with patch{weight.shape[-1]}.")


def _is_projection(network: VisionTransformer) -> bool:
    """Tells whether the head projects into the space shared with text: a CLIP that was not fine-tuned to classify."""
    settings = getattr(network, "pretrained_cfg", None) or {}
    name = f"{settings.get('architecture', '')}.{settings.get('tag', '')}"
    return "clip" in name and "_ft" not in name and settings.get("num_classes") == network.num_classes


def _preprocessing(network: VisionTransformer, crop: float | None) -> PreprocessingConfig:
    settings = timm.data.resolve_data_config(model=network)
    height, width = network.patch_embed.img_size
    return PreprocessingConfig(
        size=(height, width),
        crop=settings["crop_pct"] if crop is None else crop,
        interpolation="bicubic" if settings["interpolation"] == "random" else settings["interpolation"],
        resize="squash" if settings["crop_mode"] == "squash" else "shorter",
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )
