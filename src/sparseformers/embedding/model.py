"""The network that embeds: a student, a teacher or a released model behind one interface."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig
from sparseformers.embedding.config import EmbedConfig
from sparseformers.embedding.formats import Columns
from sparseformers.errors import ConfigError
from sparseformers.inference import fold_embedding, pack_weights
from sparseformers.model import SparseFormer
from sparseformers.modes import inference
from sparseformers.opening import open_student
from sparseformers.saving import digest
from sparseformers.settings import to_dict
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.teachers.registry import KINDS

Outputs = Callable[[Tensor], dict[str, Tensor]]


class Embedder:
    """A network, and the outputs that are kept of it; raises ConfigError if it does not have them."""

    def __init__(self, network: SparseFormer | Teacher, settings: EmbedConfig) -> None:
        if settings.rois and isinstance(network, Teacher):
            raise ConfigError(f"The teacher '{settings.model}' has no regions of interest.", "Leave out --rois.")
        if settings.dense and isinstance(network, SparseFormer) and network.config.read_out is None:
            problem = f"The student '{settings.model}' has no read-out, so there is no map to keep."
            raise ConfigError(problem, "Train one with bootstrap --dense, or keep its --tokens.")
        self.network = network
        self.settings = settings

    @property
    def preprocessing(self) -> PreprocessingConfig:
        return self.network.preprocessing if isinstance(self.network, Teacher) else self.network.config.preprocessing

    def fingerprint(self) -> str:
        """SHA-256 over weights and configuration: two with the same one give the same rows."""
        if isinstance(self.network, Teacher):
            weights, configuration = self.network.fingerprint(), to_dict(self.network.anatomy)
        else:
            weights, configuration = digest(self.network.state_dict()), to_dict(self.network.config)
        described = {"weights": weights, "configuration": configuration, "preprocessing": to_dict(self.preprocessing)}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        described = {
            "model": self.settings.model,
            "fingerprint": self.fingerprint(),
            "preprocessing": to_dict(self.preprocessing),
            "dtype": self.settings.dtype,
        }
        return described | ({"dense_grid": list(self.grid)} if self.settings.dense else {})

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the map of features."""
        if isinstance(self.network, Teacher):
            return self.network.grid
        assert self.network.config.read_out is not None  # which was asked for at the start
        return self.network.config.read_out.grid

    def ready(self, device: torch.device, autocast: torch.dtype | None) -> Callable[[Tensor], Columns]:
        """A function from images B x 3 x H x W in [0, 1] to their rows, for the network in evaluation mode on ``device``."""
        settings = self.settings
        outputs: Outputs = partial(_kept, self.network, settings, self.grid if settings.dense else None)
        if isinstance(self.network, SparseFormer) and not (settings.tokens or settings.rois or settings.dense):
            outputs = _embedding_alone(self.network, in_float32_on_cpu=device.type == "cpu" and autocast is None)
        dtypes = {"rois": "float32"}  # a float16 would move them by pixels of a large image

        def rows(images: Tensor) -> Columns:
            with inference(device, autocast):
                columns = outputs(images.to(device, non_blocking=True))
            arrays = {name: values.float().cpu().numpy() for name, values in columns.items()}
            with np.errstate(over="ignore"):  # what overflows is told of with the file's name
                return {name: values.astype(dtypes.get(name, self.settings.dtype)) for name, values in arrays.items()}

        return rows


def _kept(
    network: SparseFormer | Teacher, settings: EmbedConfig, grid: tuple[int, int] | None, images: Tensor
) -> dict[str, Tensor]:
    if isinstance(network, Teacher) and (settings.tokens or settings.dense):
        embedding, tokens = network.embedding_and_tokens(images)
        rows = tokens.flatten(2).transpose(1, 2)
        return {"embedding": embedding} | {name: rows for name in ("tokens", "dense") if getattr(settings, name)}
    output = network(images) if isinstance(network, Teacher) else network(images, grid=grid)
    kept = {"embedding": output.embedding}
    if settings.dense:
        kept["dense"] = output.dense.flatten(2).transpose(1, 2)
    if settings.tokens:
        kept["tokens"] = output.tokens
    if settings.rois:
        kept["rois"] = output.rois[:, -1]
    return kept


def _embedding_alone(student: SparseFormer, *, in_float32_on_cpu: bool) -> Outputs:
    """The embedding by a copy that does nothing else, which is faster."""
    network: nn.Module = fold_embedding(student)
    if in_float32_on_cpu and torch.backends.mkldnn.is_available():
        network = pack_weights(network)
    return lambda images: {"embedding": network(images)}


def load_network(settings: EmbedConfig) -> SparseFormer | Teacher:
    """The network that ``settings.model`` names; raises ConfigError, or another SparseFormersError if it cannot be loaded."""
    model = settings.model
    if model.partition(":")[0] in KINDS:
        return load_teacher(model, image_size=settings.image_size, crop=settings.crop)
    for name, value in (("image-size", settings.image_size), ("crop", settings.crop)):
        if value is not None:
            problem = f"--{name} is of teachers; '{model}' sees images as it did when it was made."
            raise ConfigError(problem, f"Leave out --{name}.")
    return open_student(model).student
