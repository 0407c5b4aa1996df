"""The text towers of OpenCLIP's models, to compare a student's embeddings with texts. No image tower is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import _build_text_tower  # the public create_model would build the image tower too
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from sparseformers.errors import TeacherError
from sparseformers.teachers import open_clip_names
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.checkpoints import read_weights
from sparseformers.teachers.hubs import client_errors, expect_hub

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "openai": tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
    "simple": tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES),
}  # OpenCLIP's prompts for ImageNet by name, with ``{}`` for the name of a class

NOT_TEXT = ("visual.", "logit_scale", "logit_bias")  # beginnings of the names in a whole CLIP that are not of its text tower

Tokenizer = Callable[[Sequence[str]], Tensor]


class TextTower(nn.Module):
    """A frozen text tower: texts to embeddings in the space of a teacher's images, ``width`` (D) wide.
    OpenCLIP's tokenizer makes tokens M x L of M texts, and its text tower embeddings M x D of these. It has the methods that
    OpenCLIP's ``build_zero_shot_classifier`` calls.
    """

    def __init__(self, network: nn.Module, tokenizer: Tokenizer, *, name: str, width: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.tokenizer, self.name, self.width = tokenizer, name, width

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Embeds tokens M x L as OpenCLIP's models do: M x D, of length 1 with ``normalize``."""
        result = self.network(text)
        embedding = result if isinstance(result, Tensor) else result[0]
        return F.normalize(embedding, dim=-1) if normalize else embedding

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeds M texts: M x D, of length 1."""
        return self.encode_text(self.tokenizer(list(texts)).to(self._device), normalize=True)

    def classifier(self, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Embeds C names by OpenCLIP, each in every template, normalised, averaged, normalised: C x D."""
        weights: Tensor = open_clip.build_zero_shot_classifier(
            self, self.tokenizer, class_names, templates, num_classes_per_batch=None, device=self._device
        )
        return weights.T

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def from_hub(name: str) -> TextTower:
    """The text tower of a model with OpenCLIP's own weights, such as ``ViT-B-32/laion2b_s34b_b79k``."""
    architecture, settings = open_clip_names.find(name)
    path = open_clip_names.fetch(name, architecture, settings)
    return _load(name, architecture, path, quick_gelu=bool(settings.get("quick_gelu")))


def from_file(name: str, path: Path, *, place: str | None = None) -> TextTower:
    """The text tower of a model from a local file of the whole CLIP; ``name`` and ``place`` as for the image tower."""
    return _load(f"{name}@{path}", open_clip_names.find_architecture(name), path, place=place)


def _load(
    name: str, architecture: open_clip_names.Architecture, path: Path, *, quick_gelu: bool = False, place: str | None = None
) -> TextTower:
    name = f"open_clip:{name}"
    state = _text_state(read_weights(path, open_clip_names.ANCHORS, place=place).state)
    if not state:
        problem = f"The file '{path}' of the teacher '{name}' holds an image tower without a text tower."
        raise TeacherError(problem, "Give the file of the whole CLIP: --teacher open_clip:ARCH@FILE.")
    network = _build(name, architecture, quick_gelu=quick_gelu)
    check_fit(network.state_dict(), state, what=f"'{path}'")
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return TextTower(network, _tokenizer(name, architecture), name=name, width=architecture.config["embed_dim"])


def _text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's part of a whole CLIP; empty where there is none."""
    if not any(name.startswith("visual.") for name in state):
        return {}  # an image tower alone, whose own names are like those of a text tower
    inside = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    if not inside:
        return {name: value for name, value in state.items() if not name.startswith(NOT_TEXT)}
    # A counter that transformers kept among the weights before its version 4.31.
    return {name: value for name, value in inside.items() if not name.endswith("embeddings.position_ids")}


def _build(name: str, architecture: open_clip_names.Architecture, *, quick_gelu: bool) -> nn.Module:
    """Builds the tower with random weights; only the configuration of a tower of transformers is fetched."""
    config = architecture.config
    text = {**config["text_cfg"], "hf_model_pretrained": False}
    hub = _from_hub("text tower", name, text.get("hf_model_name"))
    with torch.random.fork_rng(devices=[]), hub, open_clip_names.configuration_errors(architecture):
        return _build_text_tower(config["embed_dim"], text, quick_gelu or config.get("quick_gelu", False))


def _tokenizer(name: str, architecture: open_clip_names.Architecture) -> Tokenizer:
    text: dict[str, Any] = architecture.config["text_cfg"]
    hub = text.get("hf_tokenizer_name")
    with _from_hub("tokenizer", name, hub):
        if not architecture.from_file:
            return open_clip.get_tokenizer(architecture.name)
        options = {"context_length": text.get("context_length", DEFAULT_CONTEXT_LENGTH), **text.get("tokenizer_kwargs", {})}
        return HFTokenizer(hub, tokenizer_mode=text.get("tokenizer_mode"), **options) if hub else SimpleTokenizer(**options)


@contextmanager
def _from_hub(part: str, name: str, repository: str | None) -> Iterator[None]:
    """Raises one TeacherError for whatever a hub's client raises on a part that is fetched even for weights in a file."""
    problem = f"The {part} of '{name}' comes from '{repository}' and could not be fetched"
    remedy = f"Check the network, or bring '{repository}' into the hub's cache of this machine."
    with client_errors(TeacherError, problem, remedy) if repository else nullcontext():
        expect_hub(repository)
        yield
