"""Loading the authors' released weights: strictly, into our network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import WeightsError
from sparseformers.model import SparseFormer
from sparseformers.released.names import name_table, rename, reverse
from sparseformers.released.shapes import OfficialActivation, config_from_state, head_of, variant_of_config
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.files import read_weights, unwrap


def load_official(source: str | Path | Mapping[str, Any], *, activation: OfficialActivation = "gelu") -> SparseFormer:
    """Loads weights that the authors of SparseFormer released; what network they belong to is read off names and shapes.

    Args:
        source: a .pth file (read without running code) or .safetensors file, or a state dict; plain, or under ``model``.
        activation: of the cortex: ``gelu``, or ``quick_gelu`` for the models bootstrapped from OpenAI's CLIP.

    Returns:
        The model in evaluation mode, float32. It normalises for itself: give it images in [0, 1].

    Raises:
        WeightsError: if the file is missing, damaged or carries code, if the weights are not those of one of the authors'
            networks, if any is missing, unexpected or of another shape, or if the activation is not that of the network.
    """
    state = read_official(source)
    config = config_from_state(state, activation)
    return build(config, state, what=name_of(source))


def read_official(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict under the authors' names that ``source`` is, holds, or has under ``model``."""
    if isinstance(source, Mapping):
        return unwrap(source, what=name_of(source))
    path = Path(source)
    if not path.is_file():
        raise WeightsError(f"There is no weight file '{path}'.", "Check the path; sparseformers.create_model fetches by name.")
    return read_weights(path)


def build(config: SparseFormerConfig, state: Mapping[str, Tensor], *, what: str) -> SparseFormer:
    """The network of a configuration with the authors' weights.

    Args:
        config: from :func:`config_from_state`.
        state: weights under the authors' names.
        what: what they are, for messages.

    Raises:
        WeightsError: listing at most ten names each that are missing, unexpected or of another shape.
    """
    table = name_table(variant_of_config(config), depth=config.cortex.depth, head=head_of(state))
    with torch.device("meta"):
        expected = rename(SparseFormer(config).state_dict(), reverse(table))
    check_fit(_shapes(expected), _shapes(state), what=what)
    student = SparseFormer(config)
    student.load_state_dict(rename(state, table))
    return student.eval()


def name_of(source: str | Path | Mapping[str, Any]) -> str:
    """What to call a source in messages."""
    return "the given state dict" if isinstance(source, Mapping) else f"'{source}'"


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
