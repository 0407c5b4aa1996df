"""Our network with the authors' weights gives what their code gives, and has exactly their parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sparseformers.config import (
    BlockConfig,
    CortexConfig,
    FocusingConfig,
    PreprocessingConfig,
    SparseFormerConfig,
    named_config,
)
from sparseformers.model import SparseFormer
from tests.model.official_names import our_name, our_state

RELEASED = {
    "sf_base_augreg": "sparseformer_btsp_augreg_base",
    "sf_large_augreg": "sparseformer_btsp_augreg_large",
    "sf_base_clip": "sparseformer_btsp_openai_clip_base",
    "sf_large_clip": "sparseformer_btsp_openai_clip_large",
}
MILLIONS = {"sf_base_augreg": 64.2, "sf_large_augreg": 212.4, "sf_base_clip": 63.8, "sf_large_clip": 212.2}

ALREADY_NORMALISED = PreprocessingConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""The reference inputs went straight into the authors' network."""


def small_augreg() -> SparseFormerConfig:
    return SparseFormerConfig(
        focusing=FocusingConfig(tokens=16, width=64, channels=16, position_encoding="released"),
        cortex=CortexConfig(block=BlockConfig(width=128, heads=2, feed_forward_width=512, norm_eps=1e-5), depth=2, classes=10),
        preprocessing=ALREADY_NORMALISED,
    )


def small_clip() -> SparseFormerConfig:
    return SparseFormerConfig(
        focusing=FocusingConfig(tokens=19, width=64, channels=16, points=9, position_encoding="released"),
        cortex=CortexConfig(
            block=BlockConfig(width=128, heads=2, feed_forward_width=512, activation="quick_gelu", norm_eps=1e-5),
            depth=2,
            projection=24,
        ),
        preprocessing=ALREADY_NORMALISED,
    )


def check_parity(config: SparseFormerConfig, reference: dict[str, Tensor], *, head: str) -> None:
    weights = {name.removeprefix("weights."): value for name, value in reference.items() if name.startswith("weights.")}
    model = SparseFormer(config).eval()
    model.load_state_dict(our_state(weights, head=head))
    with torch.no_grad():
        output = model(reference["input"])
    result = output.embedding if head == "projection" else output.logits
    torch.testing.assert_close(result, reference["output"], atol=2e-5, rtol=0)
    torch.testing.assert_close(output.rois[:, -1], reference["rois.0"], atol=2e-5, rtol=0)
    # The position encoding's highest frequency, 128 pi, magnifies the rounding of the RoIs.
    torch.testing.assert_close(output.tokens, reference["tokens"], atol=2e-4, rtol=0)


def test_clip_agrees_with_the_authors(fixtures: Path) -> None:
    check_parity(small_clip(), load_file(fixtures / "official_bootstrapped_clip.safetensors"), head="projection")


def test_augreg_agrees_with_the_authors(shared: Path) -> None:
    reference = load_file(shared / "fixtures" / "official_bootstrapped_augreg.safetensors")
    check_parity(small_augreg(), reference, head="classifier")


@pytest.mark.parametrize("name", RELEASED)
def test_named_sizes_have_the_parameters_of_the_released_models(name: str, fixtures: Path) -> None:
    released = json.loads((fixtures / "official_state_dict_shapes.json").read_text())[RELEASED[name]]
    config = named_config(name)
    with torch.device("meta"):
        model = SparseFormer(config)
    head = "classifier" if config.cortex.projection is None else "projection"
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == {key: tuple(shape) for key, shape in our_state(released, head=head).items()}
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == sum(torch.Size(shape).numel() for shape in released.values())
    assert count / 1e6 == pytest.approx(MILLIONS[name], rel=1e-3)


def test_a_name_that_the_authors_do_not_have() -> None:
    with pytest.raises(KeyError, match=r"layers\.1\.1\.weight"):
        our_name("layers.1.1.weight", head="classifier")
