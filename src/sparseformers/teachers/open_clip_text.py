"""The text towers of OpenCLIP's models: what tells what a student's embeddings mean in words. No image tower is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.errors import SparseFormersError, TeacherError
from sparseformers.teachers.files import check_state_fits, expect_hub, read_weights
from sparseformers.teachers.open_clip_names import (
    Architecture,
    check_version,
    configuration_errors,
    fetch,
    find_architecture,
    find_weights,
    split_name,
)
from sparseformers.torchvision_guard import import_torchvision

import_torchvision()

import open_clip  # noqa: E402
from open_clip.model import _build_text_tower  # noqa: E402  # the public create_model would build the image tower too
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer  # noqa: E402

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "openai": tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
    "simple": tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES),
}
"""OpenCLIP's prompts for ImageNet by name, with ``{}`` for the name of a class."""

NOT_TEXT = ("visual.", "logit_scale", "logit_bias")
"""Beginnings of the names in a whole CLIP that are not its text tower's."""

Tokenizer = Callable[[Sequence[str]], Tensor]


class TextTower(nn.Module):
    """Texts to embeddings in the space of a teacher's images; frozen.

    It has what OpenCLIP's ``build_zero_shot_classifier`` asks of a model.

    Args:
        network: OpenCLIP's text tower; from tokens M x L to embeddings M x D.
        tokenizer: OpenCLIP's, from M texts to tokens M x L.
        name: the teacher's.
        width: D.
    """

    def __init__(self, network: nn.Module, tokenizer: Tokenizer, *, name: str, width: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.width = width

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """As OpenCLIP's models do it: tokens M x L -> M x D, of length 1 with ``normalize``."""
        result = self.network(text)
        embedding = result if isinstance(result, Tensor) else result[0]
        return F.normalize(embedding, dim=-1) if normalize else embedding

    def forward(self, texts: Sequence[str]) -> Tensor:
        """M texts -> M x D, of length 1."""
        return self.encode_text(self.tokenizer(list(texts)).to(self._device), normalize=True)

    def classifier(self, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The embedding of each class, by OpenCLIP: that of its name in every template, normalised, averaged, normalised.

        Args:
            class_names: C names.
            templates: sentences with ``{}`` for the name.

        Returns:
            C x D, of length 1.
        """
        weights: Tensor = open_clip.build_zero_shot_classifier(
            self, self.tokenizer, class_names, templates, num_classes_per_batch=None, device=self._device
        )
        return weights.T

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def from_hub(name: str) -> TextTower:
    """The text tower of a model with the weights that OpenCLIP has for it.

    Args:
        name: ARCH/TAG, for example ``ViT-B-32/laion2b_s34b_b79k``.

    Raises:
        TeacherError: if OpenCLIP does not know the name, or the hub cannot be reached.
        WeightsError: if the weights do not fit.
    """
    check_version()
    arch, tag = split_name(name)
    architecture = find_architecture(arch)
    settings = find_weights(architecture, tag)
    path = fetch(name, architecture, settings)
    return _load(name, architecture, path, quick_gelu=bool(settings.get("quick_gelu")))


def from_file(name: str, path: Path) -> TextTower:
    """The text tower of a model in a local file.

    Args:
        name: OpenCLIP's name of the architecture, or the path of a model's configuration file.
        path: a .safetensors file or a .pth state dict (read with ``weights_only``) of the whole CLIP.

    Raises:
        TeacherError: for an unknown architecture, or a file without a text tower.
        WeightsError: if the file cannot be read or does not fit.
    """
    check_version()
    return _load(f"{name}@{path}", find_architecture(name), path)


def _load(name: str, architecture: Architecture, path: Path, *, quick_gelu: bool = False) -> TextTower:
    name = f"open_clip:{name}"
    state = _text_state(read_weights(path))
    if not state:
        raise TeacherError(
            f"The file '{path}' of the teacher '{name}' holds an image tower without a text tower.",
            "Give the file of the whole CLIP: --teacher open_clip:ARCH@FILE.",
        )
    network = _build(name, architecture, quick_gelu=quick_gelu)
    check_state_fits(network, state, what=str(path))
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return TextTower(network, _tokenizer(name, architecture), name=name, width=architecture.config["embed_dim"])


def _text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's part of a whole CLIP; nothing where there is none."""
    if not any(name.startswith("visual.") for name in state):
        return {}  # an image tower alone, whose own names are like those of a text tower
    inside = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    if not inside:
        return {name: value for name, value in state.items() if not name.startswith(NOT_TEXT)}
    # A counter that transformers kept among the weights before its version 4.31.
    return {name: value for name, value in inside.items() if not name.endswith("embeddings.position_ids")}


def _build(name: str, architecture: Architecture, *, quick_gelu: bool) -> nn.Module:
    """The tower with starting values; of transformers' ones (their configuration comes from a hub) the form alone."""
    config = architecture.config
    text = {**config["text_cfg"], "hf_model_pretrained": False}
    hub = _from_hub("text tower", name, text.get("hf_model_name"))
    with torch.random.fork_rng(devices=[]), hub, configuration_errors(architecture):
        return _build_text_tower(config["embed_dim"], text, quick_gelu or config.get("quick_gelu", False))


def _tokenizer(name: str, architecture: Architecture) -> Tokenizer:
    text: dict[str, Any] = architecture.config["text_cfg"]
    hub = text.get("hf_tokenizer_name")
    with _from_hub("tokenizer", name, hub):
        if not architecture.from_file:
            tokenizer: Tokenizer = open_clip.get_tokenizer(architecture.name)
            return tokenizer
        options = {"context_length": text.get("context_length", DEFAULT_CONTEXT_LENGTH), **text.get("tokenizer_kwargs", {})}
        return HFTokenizer(hub, tokenizer_mode=text.get("tokenizer_mode"), **options) if hub else SimpleTokenizer(**options)


@contextmanager
def _from_hub(part: str, name: str, repository: str | None) -> Iterator[None]:
    """Turns what a hub's client raises on a part that comes from a hub even where the weights are a file."""
    try:
        expect_hub(repository)
        yield
    except Exception as error:
        if repository is None or isinstance(error, SparseFormersError):
            raise
        raise TeacherError(
            f"The {part} of '{name}' comes from '{repository}' and could not be fetched ({type(error).__name__}).",
            f"Check the network, or bring '{repository}' into the hub's cache of this machine.",
        ) from error
