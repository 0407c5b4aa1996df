"""Teachers from timm: its vision transformers, from the hub, from a file, or passed in."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.models import is_model_pretrained
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from sparseformers.errors import TeacherError, WeightsError, suggest
from sparseformers.teachers.base import (
    PASSED_IN,
    TeacherIdentity,
    TeacherOutput,
    check_fit,
    check_image_size,
    own_size,
    square_patch,
)
from sparseformers.teachers.checkpoints import class_names_of, read_weights
from sparseformers.teachers.hubs import expect_hub, hub_errors, licence_of
from sparseformers.teachers.timm_families import (
    TimmFamilyTeacher,
    anatomy_of,
    own_image_size,
    patch_layer,
    preprocessing_of,
    refuse_module,
)

# timm's modules of vision transformers with one grid of tokens, or nearly.
VISION_TRANSFORMERS = ("vision_transformer", "vision_transformer_relpos", "vision_transformer_hybrid", "vision_transformer_sam")
TRANSFORMERS = (*VISION_TRANSFORMERS, "eva", "beit", "deit", "naflexvit", "xcit", "hiera", "cait")
# Weights by which a network is found in a file, in timm's names or in OpenAI's.
ANCHORS = ("patch_embed.proj.weight", "embeds.proj.weight", "visual.class_embedding")


class TimmTeacher(TimmFamilyTeacher):
    """A vision transformer of timm as a teacher."""

    network: Any  # each family has its own attributes

    def embed(self, normalised: Tensor) -> TeacherOutput:
        features = self.network.forward_features(normalised)
        embedding = self.network.forward_head(features, pre_logits=True)
        if not isinstance(self.network.head, nn.Linear):
            return TeacherOutput(embedding, None)
        head = self.network.forward_head(features) if self.anatomy.distilled else self.network.head(embedding)
        return TeacherOutput(head, None) if self.anatomy.projection else TeacherOutput(embedding, head)


def from_hub(name: str, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> TimmTeacher:
    """A timm model with timm's own weights, such as ``vit_base_patch16_224.augreg_in21k_ft_in1k``; see ``load_teacher``."""
    empty = _empty_network(name)
    if not is_model_pretrained(name):
        raise TeacherError(f"timm has no weights for '{name}'.", f"Give them as timm:{name}@FILE.")
    check_image_size(image_size, patch_layer(empty).patch_size[0])
    with hub_errors(f"timm:{name}", by_hand=f"timm:{name}@FILE"):
        expect_hub(empty.pretrained_cfg.get("hf_hub_id"))
        network = timm.create_model(name, pretrained=True, img_size=image_size)
    tag, stated = empty.pretrained_cfg.get("tag", ""), empty.pretrained_cfg.get("license")
    licence = licence_of(f"{name}.{tag}", stated=stated)
    identity = TeacherIdentity(name=f"timm:{name}", source=f"timm hub, {name}", licence=licence)
    return _wrap(network, identity, size=image_size, crop=crop)


def from_file(
    name: str, path: Path, *, place: str | None = None, image_size: tuple[int, int] | None = None, crop: float | None = None
) -> TimmTeacher:
    """A timm model with weights from a local file; its classes and position grid are read off the weights.
    ``place`` tells which of several networks in the file, see :func:`~sparseformers.teachers.checkpoints.read_weights`.
    """
    empty = _empty_network(name)
    check_image_size(image_size, patch_layer(empty).patch_size[0])
    weights = read_weights(path, ANCHORS, place=place)
    state = weights.state
    _refuse_other_patches(empty, state, name, path)
    classes = state["head.weight"].shape[0] if "head.weight" in state else 0
    # timm leaves an img_size of None out.
    network = timm.create_model(name, num_classes=classes, img_size=_size_of(empty, state, image_size) or image_size)
    state = {key: value.float() for key, value in _in_timms_names(state, network).items()}
    check_fit(network.state_dict(), state, what=f"'{path}'")
    network.load_state_dict(state)
    _resize(network, image_size)
    return _wrap(network, weights.identity(f"timm:{name}", path, place, class_names_of(path)), size=image_size, crop=crop)


def architectures() -> dict[str, dict[str, str | None]]:
    """The transformers of timm that have weights: for each the names of these, as of teachers, with their licences."""
    found: dict[str, dict[str, str | None]] = {}
    for name in timm.list_pretrained():
        architecture = name.partition(".")[0]
        if timm.models.model_entrypoint(architecture).__module__.rpartition(".")[2] in TRANSFORMERS:
            stated = timm.models.get_pretrained_cfg_value(name, "license")
            found.setdefault(architecture, {})[f"timm:{name}"] = licence_of(name, stated=stated)
    return found


def on_meta(architecture: str) -> TimmTeacher:
    """A teacher of an architecture without memory or weights; raises TeacherError if it cannot be inherited from."""
    identity = TeacherIdentity(name=f"timm:{architecture}", source="no weights")
    return _wrap(_empty_network(architecture), identity, size=None, crop=None)


def untrained(name: str, *, image_size: tuple[int, int] | None = None) -> TimmTeacher:
    """A timm architecture with random weights."""
    _check_name(name)
    identity = TeacherIdentity(name=f"timm:{name}", source="random weights")
    return from_module(timm.create_model(name), identity, image_size=image_size)


def from_module(
    network: nn.Module,
    identity: TeacherIdentity = PASSED_IN,
    *,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
) -> TimmTeacher:
    """A vision transformer of timm that exists already; the teacher is a copy, the module stays as it is."""
    refuse_module(network, identity.name)
    copied: Any = copy.deepcopy(network).float()
    check_image_size(image_size, patch_layer(copied).patch_size[0])
    _resize(copied, image_size)
    return _wrap(copied, identity, size=image_size, crop=crop)


def _wrap(network: Any, identity: TeacherIdentity, *, size: tuple[int, int] | None, crop: float | None) -> TimmTeacher:
    settings = timm.data.resolve_data_config(model=network)
    size, crop = own_image_size(network) if size is None else size, settings["crop_pct"] if crop is None else crop
    projects = identity.class_names is None and _is_projection(network)
    return TimmTeacher(
        network,
        identity=identity,
        anatomy=anatomy_of(network, identity.name, projects=projects, size=size),
        preprocessing=preprocessing_of(settings, size=size, crop=crop, squash=settings["crop_mode"] == "squash"),
        patch_size=square_patch(patch_layer(network).patch_size, identity.name),
    )


def _resize(network: Any, image_size: tuple[int, int] | None) -> None:
    """Makes a network take another image size, in place; NaFlex networks take any."""
    if image_size is None or not hasattr(network, "patch_embed") or image_size == own_image_size(network):
        return
    if not hasattr(network, "set_input_size"):
        problem = f"This version of timm cannot give a {type(network).__name__} another image size."
        raise TeacherError(problem, "Upgrade timm, or use the model at its own size.")
    network.set_input_size(img_size=image_size)


def _in_timms_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights in the names of the authors' own code as timm has them; those in timm's names stay."""
    family = sys.modules[type(network).__module__]
    own = getattr(family, "checkpoint_filter_fn", None) or getattr(family, "_beit_checkpoint_filter_fn", None)
    return dict(state if own is None else own(state, network))


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = suggest(name, [*timm.list_models("vit_*"), *timm.list_pretrained("vit_*")])
        raise TeacherError(f"timm has no model of the name '{name}'.", near or "timm.list_pretrained('vit_*') lists its ViTs.")
    if tag and not is_model_pretrained(name):
        known = timm.list_pretrained(f"{architecture}.*")
        near = suggest(name, known) or (f"Known are: {', '.join(known)}." if known else f"Leave out '.{tag}'.")
        raise TeacherError(f"timm has no weights of the name '{name}'.", near)


def _empty_network(name: str) -> Any:
    """The architecture without memory, to see whether it can be inherited from before anything is fetched."""
    _check_name(name)
    with torch.device("meta"):
        network = timm.create_model(name)
    refuse_module(network, f"timm:{name}")
    return network


def _size_of(empty: Any, state: dict[str, Tensor], image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """The height and width that the weights' position grid was made for, where they tell."""
    if isinstance(empty, NaFlexVit):
        return None
    side, own = empty.patch_embed.patch_size[0], empty.patch_embed.img_size
    if tables := [value for key, value in state.items() if key.endswith("relative_position_bias_table")]:
        differences = len(tables[0]) - 3 * min(1, empty.num_prefix_tokens)
        fits = [size for size in (image_size, own) if size and math.prod(2 * (edge // side) - 1 for edge in size) == differences]
        edge = side * (math.isqrt(differences) + 1) // 2
        return (fits or [(edge, edge)])[0]
    if "pos_embed" not in state or state["pos_embed"].ndim != 3:
        return None
    prefix = 0 if getattr(empty, "no_embed_class", False) else empty.num_prefix_tokens
    return own_size(state["pos_embed"].shape[1] - prefix, side, image_size, own)


def _refuse_other_patches(empty: Any, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Raises WeightsError for weights of another patch size, which timm would resample."""
    weight, side = state.get("patch_embed.proj.weight"), patch_layer(empty).patch_size[0]
    if weight is not None and weight.ndim == 4 and weight.shape[-1] != side:
        problem = f"The weights in '{path}' are of patches of {weight.shape[-1]} pixels, those of '{name}' are of {side}."
        raise WeightsError(problem, f"Name the architecture that they are of, such as one with patch{weight.shape[-1]}.")


def _is_projection(network: Any) -> bool:
    """Tells whether the head projects into the space shared with text: a CLIP that was not fine-tuned to classify."""
    settings = getattr(network, "pretrained_cfg", None) or {}
    name = f"{settings.get('architecture', '')}.{settings.get('tag', '')}"
    shares = "clip" in name or "_pe_core_" in name
    return shares and "_ft" not in name and settings.get("num_classes") == network.num_classes
