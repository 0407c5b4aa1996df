"""The reference data under the authors' names."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.released import RELEASES


def weights_of(reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in a file of reference data, under the authors' names."""
    return {name.removeprefix("weights."): value for name, value in reference.items() if name.startswith("weights.")}


def small_weights(fixtures: Path, name: str) -> dict[str, Tensor]:
    """The weights of one of the small models: ``v1`` or ``bootstrapped_clip``."""
    return weights_of(load_file(fixtures / f"official_{name}.safetensors"))


def released_state(fixtures: Path, name: str) -> dict[str, Tensor]:
    """Weights without values, in the shapes of a released model."""
    shapes = json.loads((fixtures / "official_state_dict_shapes.json").read_text())
    released = shapes[RELEASES[name].removesuffix("_converted.pth")]
    return {key: torch.empty(shape, device="meta") for key, shape in released.items()}


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
