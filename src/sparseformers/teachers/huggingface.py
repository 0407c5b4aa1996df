"""Teachers from Hugging Face transformers, by repository or local folder.

The embedding is the class token after the final norm (ViT, MAE, DINOv2 and 3), the projected image embedding of a CLIP (its
pooled class token where a checkpoint has no projection), the pooled output of SigLIP, BEiT, Data2Vec and of an AIMv2 with a head,
or the mean of the patches (I-JEPA, AIMv2 without a head). Only the vision part of a model is loaded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from sparseformers.config import CLIP_MEAN, CLIP_STD, HALF, PreprocessingConfig
from sparseformers.errors import TeacherError, WeightsError, shorten
from sparseformers.teachers import timm
from sparseformers.teachers.base import PASSED_IN, Teacher, TeacherIdentity, check_image_size, refuse, square_patch
from sparseformers.teachers.hubs import client_errors, expect_hub, hub_errors, licence_of
from sparseformers.teachers.huggingface_towers import HuggingFaceTeacher, VisionPart, anatomy_of, own_sides, sides_of

LOGGER = logging.getLogger(__name__)

TOWERS = {
    "vit": "ViTModel",
    "vit_mae": "ViTMAEModel",
    "ijepa": "IJepaModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "beit": "BeitModel",
    "data2vec-vision": "Data2VecVisionModel",
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "metaclip_2": "MetaClip2VisionModelWithProjection",
    "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    "aimv2": "Aimv2Model",
    "aimv2_vision_model": "Aimv2VisionModel",
}  # model types that can be inherited from, and the class that loads their vision part

CLASSIFIERS = {
    "vit": "ViTForImageClassification",
    "beit": "BeitForImageClassification",
    "data2vec-vision": "Data2VecVisionForImageClassification",
    "ijepa": "IJepaForImageClassification",
}  # those whose classifier takes the image embedding alone, so that it is inherited, and the class that loads both

# Why some known model types are refused.
REASONS = {"swin": "it is windowed", "swinv2": "it is windowed", "deit": "it has a distillation token with a head of its own"}
# Types whose positions transformers always takes for those of square images.
SQUARE_ALONE = ("dinov2", "dinov2_with_registers", "beit", "data2vec-vision")
TIMM_WRAPPER = "timm_wrapper"  # the type of a timm model in transformers
BICUBIC, BILINEAR = 3, 2
FILTERS = {0: "nearest", 1: "lanczos", BILINEAR: "bilinear", BICUBIC: "bicubic"}  # Pillow's numbers of resampling filters

_USUAL = {"image_mean": PreprocessingConfig.mean, "image_std": PreprocessingConfig.std}
_HALVES = {"image_mean": HALF, "image_std": HALF}
_DINOV2 = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "resample": BICUBIC, **_USUAL}
_CLIP = {"do_center_crop": True, "resample": BICUBIC, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"resample": BILINEAR, **_HALVES},
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": {"resample": BILINEAR, **_USUAL},
    "beit": {"resample": BICUBIC, **_HALVES},
    "data2vec-vision": {"resample": BICUBIC, **_HALVES},
    "vit_mae": {"resample": BICUBIC, **_USUAL},
    "ijepa": {"resample": BILINEAR, **_HALVES},
    "clip_vision_model": _CLIP,
    "metaclip_2_vision_model": _CLIP,
    "siglip_vision_model": {"resample": BICUBIC, **_HALVES},
    "siglip2_vision_model": {"resample": BILINEAR, **_HALVES},
    "aimv2_vision_model": _CLIP,
}  # preprocessing of each type of tower, where a checkpoint's ``preprocessor_config.json`` does not give it


def from_hub(name: str, *, image_size: tuple[int, int] | None = None, crop: float | None = None) -> Teacher:
    """A model from a repository of the hub (OWNER/NAME) or a local folder in its format; see ``load_teacher``.
    Classifiers on the image embedding are inherited; those of DINOv2, CLIP and SigLIP also take the mean of the patches and are
    left out.
    """
    with _errors_of(name), _quiet():
        settings, _ = transformers.PretrainedConfig.get_config_dict(name)
        source = name if Path(name).is_dir() else f"Hugging Face hub, {name}"
        if settings.get("model_type") == TIMM_WRAPPER or "pretrained_cfg" in settings:
            return _of_timm(_load_wrapper(name), f"hf:{name}", source, image_size, crop)
        model_type = _check_type(settings, name)
        part = _vision_part(_load(name, model_type), f"hf:{name}")
        processor: dict[str, Any] = {}
        with suppress(OSError):  # it may have none
            processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    architectures = settings.get("architectures") or []
    if model_type not in CLASSIFIERS and any(kind.endswith("ForImageClassification") for kind in architectures):
        LOGGER.warning("The classifier of 'hf:%s' is not inherited: it takes more than the image embedding.", name)
    return _wrap(part, f"hf:{name}", source, processor, image_size, crop)


def from_module(
    network: nn.Module, *, name: str = PASSED_IN.name, image_size: tuple[int, int] | None = None, crop: float | None = None
) -> Teacher:
    """A vision model of transformers, or the vision part of a larger one, that exists already; the teacher is a copy.
    Its preprocessing is the one usual for its type. Raises TeacherError, with the reason, where it cannot be inherited from.
    """
    if getattr(getattr(network, "config", None), "model_type", None) == TIMM_WRAPPER:
        return _of_timm(network, name, PASSED_IN.source, image_size, crop)
    return _wrap(copy.deepcopy(_vision_part(network, name)), name, PASSED_IN.source, {}, image_size, crop)


def _wrap(
    part: VisionPart, name: str, source: str, processor: Mapping[str, Any], image_size: tuple[int, int] | None, crop: float | None
) -> HuggingFaceTeacher:
    config = part.tower.config
    if getattr(config, "num_channels", 3) != 3:
        raise refuse(name, "its images do not have three channels")
    config.return_dict = True
    if config.model_type == "vit_mae":
        config.mask_ratio = 0.0  # all patches are seen, as after its pre-training
    patch = square_patch(sides_of(config.patch_size), name)
    check_image_size(image_size, patch)
    height, width = own_sides(config)
    if image_size not in (None, (height, width)):
        if config.model_type == "aimv2_vision_model" and not config.is_native:
            raise refuse(name, f"transformers does not resample its positions, which are for images of {height} x {width} pixels")
        if height != width and config.model_type != "dinov3_vit":
            raise refuse(name, f"transformers resamples square grids of positions alone, and its images are {height} x {width}")
    if height != width and config.model_type in SQUARE_ALONE:
        raise refuse(name, f"transformers runs it on square images alone, and its positions are for {height} x {width} pixels")
    preprocessing = _preprocessing(processor, config, image_size=image_size, crop=crop)
    return HuggingFaceTeacher(
        part.float(),
        identity=TeacherIdentity(name=name, source=source, licence=licence_of(name), class_names=_class_names(part)),
        anatomy=anatomy_of(part, name, grid=(preprocessing.size[0] // patch, preprocessing.size[1] // patch)),
        preprocessing=preprocessing,
        patch_size=patch,
    )


def _of_timm(network: Any, name: str, source: str, image_size: tuple[int, int] | None, crop: float | None) -> Teacher:
    """The teacher in transformers' wrapper around a timm model, with the preprocessing that the wrapper's configuration has."""
    inner = copy.copy(network.timm_model)
    settings = getattr(network.config, "pretrained_cfg", None) or {}
    inner.pretrained_cfg = {**(inner.pretrained_cfg or {}), "architecture": network.config.architecture, **settings}
    identity = TeacherIdentity(name=name, source=source, licence=licence_of(name))
    return timm.from_module(inner, identity, image_size=image_size, crop=crop)


def _load_wrapper(name: str) -> nn.Module:
    config = transformers.AutoConfig.from_pretrained(name)
    headed = getattr(config, "num_labels", 0) and "TimmWrapperModel" not in (config.architectures or [])
    kind = transformers.AutoModelForImageClassification if headed else transformers.AutoModel
    return kind.from_pretrained(name, config=config)


def _check_type(settings: Mapping[str, Any], name: str) -> str:
    model_type = settings.get("model_type")
    if not model_type:
        raise TeacherError(f"'{name}' holds no model of transformers (its config.json names no type).", "Check the name.")
    if model_type not in TOWERS:
        raise refuse(f"hf:{name}", REASONS.get(model_type, f"its type '{model_type}' is none of {', '.join(TOWERS)}"))
    return str(model_type)


def _load(name: str, model_type: str) -> nn.Module:
    """Loads the vision part of a checkpoint; a missing weight is an error, not a random one."""
    config = transformers.AutoConfig.from_pretrained(name)
    kind, options = TOWERS[model_type], {}
    if CLASSIFIERS.get(model_type) in (config.architectures or []):
        kind = CLASSIFIERS[model_type]
    elif model_type == "vit":
        options["add_pooling_layer"] = False
    elif model_type == "clip_vision_model" and "CLIPVisionModel" in (config.architectures or []):
        kind = "CLIPVisionModel"  # whose weights some versions of transformers name without the part that it is
    if not hasattr(transformers, kind):
        problem = f"transformers {transformers.__version__} does not have the model of 'hf:{name}' ({kind}) yet."
        raise TeacherError(problem, "Upgrade it with: pip install --upgrade transformers.")
    if model_type in ("clip", "metaclip_2"):
        config.vision_config.projection_dim = config.projection_dim
    if kind != "Aimv2Model":  # of which transformers does not find the vision part by itself
        config = getattr(config, "vision_config", config)
    if kind in ("BeitModel", "Data2VecVisionModel"):
        options["add_pooling_layer"] = True
    load = partial(getattr(transformers, kind).from_pretrained, name, config=config, output_loading_info=True)
    network, report = load(**options)
    if any(key.startswith("pooler.") for key in report["missing_keys"]):  # a checkpoint without one
        network, report = load(add_pooling_layer=False)
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
    holders = ("vit", "beit", "data2vec_vision", "ijepa", "dinov2", "dinov2_with_registers", "vision_model")
    tower = next((getattr(network, holder) for holder in holders if hasattr(network, holder)), network)
    if type(tower).__name__.endswith("Backbone"):
        raise refuse(name, f"a {type(tower).__name__} gives feature maps, not an embedding")
    model_type = getattr(getattr(tower, "config", None), "model_type", type(network).__name__)
    if model_type not in PROCESSORS:
        raise refuse(name, REASONS.get(model_type, f"its type '{model_type}' is none of {', '.join(PROCESSORS)}"))
    classifier = getattr(network, "classifier", None) if model_type in CLASSIFIERS else None
    classifier = classifier if isinstance(classifier, nn.Linear) else None
    return VisionPart(tower, projection=getattr(network, "visual_projection", None), classifier=classifier)


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
    edges = _edges(settings.get("size"), default=own_sides(config))
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
    """One error for whatever goes wrong: about the folder if the name is one, otherwise about the hub."""
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
