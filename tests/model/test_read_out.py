from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from sparseformers.config import BlockConfig, CortexConfig, GridConfig, ReadOutConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.evaluation.cost import measure_cost, multiply_adds
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.model.read_out import FARTHEST, squared_distances
from sparseformers.model.splatting import splat
from sparseformers.rois import cells
from sparseformers.saving import load, save
from tests.exporting.students import FRONTS, SIDE
from tests.model.small import scattered

READ_OUT = ReadOutConfig(hidden=48, grid=(6, 6), patch_size=8)


def images(count: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def reading(front: str = "grid", **read_out: Any) -> SparseFormer:
    """A student with a read-out, as before any training of it."""
    torch.manual_seed(0)
    cortex = replace(FRONTS[front].cortex, depth=2)
    config = replace(FRONTS[front], cortex=cortex, read_out=replace(READ_OUT, **read_out))
    without = scattered(SparseFormer(replace(config, read_out=None))).state_dict()
    student = SparseFormer(config).eval()
    student.load_state_dict(without, strict=False)
    return student


@pytest.mark.parametrize("front", FRONTS)
def test_a_new_one_is_the_tokens_on_the_grid__and_then_learns(front: str) -> None:
    student = reading(front)
    for size in (None, 6, (3, 7)):
        dense = student.dense(images(), size)
        grid = size if isinstance(size, tuple) else (6, 6)
        torch.testing.assert_close(dense, student(images()).to_grid(grid), atol=1e-6, rtol=0)
        assert dense.shape == (2, 32, *grid)
    wanted = torch.randn(2, 32, 6, 6)
    optimiser = torch.optim.AdamW(student.read_out.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = (student.dense(images()) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_embedding_costs_and_is_what_it_was() -> None:
    student = reading()
    plain = SparseFormer(replace(student.config, read_out=None)).eval()
    plain.load_state_dict(student.state_dict(), strict=False)
    assert measure_cost(student, (SIDE, SIDE)).multiply_adds == measure_cost(plain, (SIDE, SIDE)).multiply_adds
    output = student(images())
    assert output.dense is None
    assert torch.equal(output.embedding, plain(images()).embedding)
    assert torch.equal(output.embedding, student(images(), grid=6).embedding)


def test_without_one__dense_is_the_tokens_on_the_grid_and_has_no_size_of_its_own() -> None:
    student = SparseFormer(FRONTS["grid"]).eval()
    torch.testing.assert_close(student.dense(images(), (5, 4)), student(images()).to_grid((5, 4)))
    with pytest.raises(ValueError, match="give the size of the map"):
        student.dense(images())


def test_a_small_vit__costs_at_most_a_fifth_more() -> None:
    block = BlockConfig(width=384, heads=6, feed_forward_width=1536)
    cortex = CortexConfig(block=block, depth=12, prefix_from_front=True)
    read_out = ReadOutConfig(hidden=576, grid=(16, 16), patch_size=14)
    config = SparseFormerConfig(focusing=GridConfig(tokens=64, patch_size=14), cortex=cortex, read_out=read_out)
    with torch.device("meta"):
        student = SparseFormer(config)
    image = torch.empty(1, 3, 224, 224, device="meta")
    embedding, whole = (multiply_adds(WithTokens(student, 64, grid), image) for grid in (None, (16, 16)))
    assert 1.1 < whole / embedding < 1.2


def test_a_map_of_an_earlier_layer__starts_from_the_tokens_there() -> None:
    last, earlier = (reading(layer=layer) for layer in (-1, -2))
    earlier.load_state_dict(last.state_dict())
    front = earlier.focusing(earlier.normalise(images()))
    tokens = earlier.cortex.prefix(front.tokens)
    tokens = earlier.cortex.blocks[0](tokens)
    latent = tokens[:, tokens.shape[1] - front.final_rois.shape[1] :]
    torch.testing.assert_close(earlier.dense(images()), splat(latent, front.final_rois, 6), atol=1e-6, rtol=0)
    assert not torch.allclose(earlier.dense(images()), last.dense(images()), atol=1e-2)
    with pytest.raises(ConfigError, match="2 blocks, and no layer -3 for --dense-layer"):
        reading(layer=-3)


def test_places_ask_near_tokens_first() -> None:
    distances = squared_distances(cells(16)[None], cells(4)[None])
    assert distances.shape == (1, 16, 4)
    assert distances[0, 0].argmin() == 0
    assert distances[0, 15].argmin() == 3
    assert distances[0, 0, 0] == pytest.approx(2 * 0.25**2)
    assert squared_distances(cells(4)[None], torch.full((1, 1, 4), 0.3)).max() == FARTHEST


@pytest.mark.parametrize("front", ["grid", "mixed", pytest.param("focusing", marks=pytest.mark.slow)])
def test_compiles_whole_and_exports(front: str) -> None:
    student = scattered(reading(front))
    torch._dynamo.reset()
    network = WithTokens(student, student.config.focusing.tokens, (6, 6))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    shapes = {"images": {0: Dim("batch", min=1), 2: Dim("height", min=32), 3: Dim("width", min=32)}}
    exported = torch.export.export(network, (images(2, 40, 56),), dynamic_shapes=shapes).module()
    expected = network(images(3)).dense
    assert not torch.allclose(expected, network(images(3)).to_grid(6), atol=1e-2)
    for made in (compiled, exported):
        torch.testing.assert_close(made(images(3)).dense, expected, atol=1e-5, rtol=1e-5)


def test_half_precision_around_it_and_gradients_through_it() -> None:
    student = scattered(reading("mixed"))
    with torch.autocast("cpu", torch.bfloat16):
        dense = student.dense(images())
    assert dense.dtype == torch.float32
    torch.testing.assert_close(dense, student.dense(images()), atol=0.1, rtol=0.1)
    student.train().dense(images()).square().mean().backward()
    without = [name for name, value in student.read_out.named_parameters() if value.grad is None]
    assert not without


def test_pixels_count__and_it_is_saved_and_loaded(tmp_path: Any) -> None:
    student = scattered(reading())
    rois, spread, tokens = torch.rand(1, 4, 4), torch.zeros(2, 32, 6, 6), torch.ones(2, 5, 32)
    one, other = student.read_out(student.normalise(images()), tokens, rois, spread)
    assert not torch.allclose(one, other, atol=1e-3)  # whose tokens are the same
    save(student, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.config == student.config
    assert torch.equal(again.dense(images()), student.dense(images()))
