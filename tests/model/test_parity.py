"""Our network with the authors' weights gives what their code gives, and has exactly their parameters."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.model import SparseFormer
from sparseformers.named import NAMED_CONFIGS, named_config
from sparseformers.released import OfficialActivation, config_from_state
from sparseformers.released.form import head_of, name_table, rename, reverse
from sparseformers.released.load import build
from tests.released.reference import released_state, weights_of

ALREADY_NORMALISED = PreprocessingConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""The reference inputs went straight into the authors' network."""


def check_parity(reference: dict[str, Tensor], *, activation: OfficialActivation = "gelu") -> None:
    weights = weights_of(reference)
    config = dataclasses.replace(config_from_state(weights, activation), preprocessing=ALREADY_NORMALISED)
    with torch.no_grad():
        output = build(config, weights, what="the reference")(reference["input"])
    result = output.embedding if output.logits is None else output.logits
    torch.testing.assert_close(result, reference["output"], atol=2e-5, rtol=0)
    # Theirs are noted after the whole focusing loop, after the layer of the last look, and after each block of the cortex.
    iterations = config.focusing.iterations
    torch.testing.assert_close(output.rois[:, iterations], reference["rois.0"], atol=2e-5, rtol=0)
    for layer in range(1, config.cortex.depth + 2):
        torch.testing.assert_close(output.rois[:, -1], reference[f"rois.{layer}"], atol=2e-5, rtol=0)
    # The position encoding's highest frequency, 128 pi, magnifies the rounding of the RoIs.
    torch.testing.assert_close(output.tokens, reference["tokens"], atol=2e-4, rtol=0)


def test_v1_agrees_with_the_authors(fixtures: Path) -> None:
    check_parity(load_file(fixtures / "official_v1.safetensors"))


def test_clip_agrees_with_the_authors(fixtures: Path) -> None:
    check_parity(load_file(fixtures / "official_bootstrapped_clip.safetensors"), activation="quick_gelu")


def test_augreg_agrees_with_the_authors(shared: Path) -> None:
    check_parity(load_file(shared / "fixtures" / "official_bootstrapped_augreg.safetensors"))


def shapes_of(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_named_sizes_have_the_parameters_of_the_released_models(name: str, fixtures: Path) -> None:
    released = released_state(fixtures, name)
    config = named_config(name)
    with torch.device("meta"):
        ours = SparseFormer(config).state_dict()
    table = name_table(config.focusing.kind, depth=config.cortex.depth, head=head_of(released))
    assert shapes_of(rename(released, table)) == shapes_of(ours)
    assert shapes_of(rename(ours, reverse(table))) == shapes_of(released)
