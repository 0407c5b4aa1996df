"""Teachers from Hugging Face transformers, by repository or local folder: ViT, DINOv2 (with registers), CLIP and SigLIP.

The embedding is the class token after the final norm (ViT, DINOv2), CLIP's projected image embedding (its pooled class token
where a checkpoint has no projection), or SigLIP's pooled output. Only the vision part of a model is loaded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from sparseformers.config import CLIP_MEAN, CLIP_STD, HALF, PreprocessingConfig
from sparseformers.errors import TeacherError, WeightsError, shorten
from sparseformers.teachers.base import FROM_PYTHON, PASSED_IN, TeacherIdentity, check_image_size, refuse, square_patch
from sparseformers.teachers.hubs import client_errors, expect_hub, hub_errors
from sparseformers.teachers.huggingface_towers import HuggingFaceTeacher, VisionPart, anatomy_of, sides_of

LOGGER = logging.getLogger(__name__)

TOWERS = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
"""Model types that can be inherited from, and the class that loads their vision part."""

REASONS = {
    "swin": "it is windowed",
    "swinv2": "it is windowed",
    "beit": "its attention has relative positions",
    "data2vec-vision": "its attention has relative positions",
    "dinov3_vit": "it uses rotary positions, which its blocks would need for tokens without a fixed place",
    "deit": "it has a distillation token with a head of its own",
    "siglip2": "it takes patches, not images, at a native aspect ratio (checkpoints of one size are of the type siglip)",
}
"""Why some known model types are refused."""

BICUBIC, BILINEAR = 3, 2
FILTERS = {0: "nearest", 1: "lanczos", BILINEAR: "bilinear", BICUBIC: "bicubic"}  # Pillow's numbers of resampling filters

_DINOV2 = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "resample": BICUBIC}
_DINOV2 |= {"image_mean": PreprocessingConfig.mean, "image_std": PreprocessingConfig.std}
_CLIP = {"do_center_crop": True, "resample": BICUBIC, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"resample": BILINEAR, "image_mean": HALF, "image_std": HALF},
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "clip_vision_model": _CLIP,
    "siglip_vision_model": {"resample": BICUBIC, "image_mean": HALF, "image_std": HALF},
}
"""Preprocessing of each type of tower, where a checkpoint's ``preprocessor_config.json`` does not give it."""


def from_hub(name: str, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> HuggingFaceTeacher:
    """A model from a repository of the hub (OWNER/NAME) or a local folder in its format; see ``load_teacher``.

    The classifier of a ViT is inherited; those of DINOv2, CLIP and SigLIP also take the mean of the patches and are left out.
    """
    with _errors_of(name), _quiet():
        settings, _ = transformers.PretrainedConfig.get_config_dict(name)
        model_type = _check_type(settings, name)
        part = _vision_part(_load(name, model_type), f"hf:{name}")
        processor: dict[str, Any] = {}
        with suppress(OSError):  # it may have none
            processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    architectures = settings.get("architectures") or []
    if model_type != "vit" and any(kind.endswith("ForImageClassification") for kind in architectures):
        LOGGER.warning("The classifier of 'hf:%s' is not inherited: it takes more than the image embedding.", name)
    source = name if Path(name).is_dir() else f"Hugging Face hub, {name}"
    return _wrap(part, name=f"hf:{name}", source=source, processor=processor, image_size=image_size, crop=crop)


def from_module(
    network: nn.Module, *, name: str = PASSED_IN, image_size: tuple[int, int] | None = None, crop: float | None = None
) -> HuggingFaceTeacher:
    """A ViT, DINOv2, CLIP or SigLIP of transformers, or its vision part, that exists already; the teacher is a copy.

    Its preprocessing is the one usual for its type. Raises TeacherError, with the reason, where it cannot be inherited from.
    """
    part = copy.deepcopy(_vision_part(network, name))
    return _wrap(part, name=name, source=FROM_PYTHON, processor={}, image_size=image_size, crop=crop)


def _wrap(
    part: VisionPart,
    *,
    name: str,
    source: str,
    processor: Mapping[str, Any],
    image_size: tuple[int, int] | None,
    crop: float | None,
) -> HuggingFaceTeacher:
    config = part.tower.config
    patch = square_patch(sides_of(config.patch_size), name)
    check_image_size(image_size, patch)
    rows, columns = sides_of(config.image_size)
    if image_size not in (None, (rows, columns)) and rows != columns:
        raise refuse(name, f"transformers resamples square grids of positions alone, and its images are {rows} x {columns}")
    return HuggingFaceTeacher(
        part.float(),
        identity=TeacherIdentity(name=name, source=source, class_names=_class_names(part)),
        anatomy=anatomy_of(part, name),
        preprocessing=_preprocessing(processor, config, image_size=image_size, crop=crop),
        patch_size=patch,
    )


def _check_type(settings: Mapping[str, Any], name: str) -> str:
    model_type = settings.get("model_type")
    if not model_type:
        raise TeacherError(f"'{name}' holds no model of transformers (its config.json names no type).", "Check the name.")
    if model_type not in TOWERS:
        known = "vit, dinov2, dinov2_with_registers, clip or siglip"
        raise refuse(f"hf:{name}", REASONS.get(model_type, f"its type '{model_type}' is none of {known}"))
    return str(model_type)


def _load(name: str, model_type: str) -> nn.Module:
    """Loads the vision part of a checkpoint; a missing weight is an error, not a random one."""
    config = transformers.AutoConfig.from_pretrained(name)
    kind, options = TOWERS[model_type], {}
    if model_type == "vit" and "ViTForImageClassification" in (config.architectures or []):
        kind = "ViTForImageClassification"
    elif model_type == "vit":
        options["add_pooling_layer"] = False
    elif model_type == "clip_vision_model" and "CLIPVisionModel" in (config.architectures or []):
        kind = "CLIPVisionModel"  # whose weights some versions of transformers name without the part that it is
    if model_type == "clip":
        config.vision_config.projection_dim = config.projection_dim
    config = getattr(config, "vision_config", config)
    network, report = getattr(transformers, kind).from_pretrained(name, config=config, output_loading_info=True, **options)
    missing = {key for key in report["missing_keys"] if not key.endswith("mask_token")}
    if kind == "CLIPVisionModel" and not missing:
        return getattr(network, "vision_model", network)
    if missing == {"visual_projection.weight"}:
        return network.vision_model
    if missing:
        problem = f"The weights of 'hf:{name}' do not fit (missing: {shorten(missing)})."
        raise WeightsError(problem, "Check that they belong to its config.json.")
    return network


def _vision_part(network: nn.Module, name: str) -> VisionPart:
    holders = ("vit", "dinov2", "dinov2_with_registers", "vision_model")
    tower = next((getattr(network, holder) for holder in holders if hasattr(network, holder)), network)
    model_type = getattr(getattr(tower, "config", None), "model_type", type(network).__name__)
    if model_type not in PROCESSORS:
        raise refuse(name, REASONS.get(model_type, f"its type '{model_type}' is none of {', '.join(PROCESSORS)}"))
    classifier = getattr(network, "classifier", None) if model_type == "vit" else None
    return VisionPart(
        tower,
        projection=getattr(network, "visual_projection", None),
        classifier=classifier if isinstance(classifier, nn.Linear) else None,
    )


def _class_names(part: VisionPart) -> tuple[str, ...] | None:
    if part.classifier is None:
        return None
    names = tuple(str(part.tower.config.id2label.get(index)) for index in range(part.classifier.out_features))
    return None if names[0] in ("LABEL_0", "None") else names


def _preprocessing(
    processor: Mapping[str, Any], config: Any, *, image_size: tuple[int, int] | None, crop: float | None
) -> PreprocessingConfig:
    settings = {**PROCESSORS[config.model_type], **{key: value for key, value in processor.items() if value is not None}}
    crops = bool(settings.get("do_center_crop"))
    edges = _edges(settings.get("size"), default=sides_of(config.image_size))
    kept = _edges(settings.get("crop_size"), default=edges) if crops else edges
    squashes = not crops and "shortest_edge" not in (settings["size"] if isinstance(settings.get("size"), Mapping) else {})
    normalises = settings.get("do_normalize", True)
    return PreprocessingConfig(
        size=image_size or kept,
        crop=min(kept[0] / edges[0], kept[1] / edges[1], 1.0) if crop is None else crop,
        interpolation=FILTERS.get(int(settings["resample"]), "bicubic"),  # type: ignore[arg-type]  # one of the literals
        resize="squash" if squashes else "shorter",
        mean=tuple(settings["image_mean"]) if normalises else (0.0, 0.0, 0.0),
        std=tuple(settings["image_std"]) if normalises else (1.0, 1.0, 1.0),
    )


def _edges(size: Any, *, default: tuple[int, int]) -> tuple[int, int]:
    """Height and width in an image processor's size, which is a number, or a mapping with one of several keys."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width") or size.get("height"))
    return sides_of(size) if size and size != (None, None) else default


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Raises one error for whatever goes wrong: about the folder if the name is one, otherwise about the hub."""
    if Path(name).is_dir():
        remedy = "It needs a config.json and its model.safetensors; fetch it again if it was cut short."
        with client_errors(WeightsError, f"The folder '{name}' cannot be read as a model", remedy):
            yield
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise WeightsError(f"There is no folder '{name}'.", "Give an existing folder, or a repository as OWNER/NAME.")
    with hub_errors(f"hf:{name}", by_hand="hf:FOLDER"):
        expect_hub(name)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from warning about the parts of a checkpoint that are left out on purpose."""
    log = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
