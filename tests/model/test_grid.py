from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.export import Dim

from sparseformers import rois as roi_arithmetic
from sparseformers.config import BlockConfig, CortexConfig, GridConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.model import SparseFormer
from sparseformers.model.grid import RoIStep
from sparseformers.model.position import read_map
from tests.model.small import scattered


def front_model(*, tokens: int = 6, looks: int = 2, trained: bool = True, **options: Any) -> SparseFormer:
    torch.manual_seed(0)
    focusing = GridConfig(tokens=tokens, looks=looks, patch_size=4, **options)
    config = SparseFormerConfig(
        focusing=focusing,
        cortex=CortexConfig(
            block=BlockConfig(width=32, heads=2, feed_forward_width=48),
            depth=2,
            prefix_tokens=2,
            prefix_from_front=True,
        ),
    )
    model = SparseFormer(config).eval()
    return cast(SparseFormer, scattered(model, scale=0.2)) if trained else model


def random_images(height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tokens", [1, 4, 6, 7])
@pytest.mark.parametrize("looks", [0, 1, 3])
def test_shapes(tokens: int, looks: int) -> None:
    model = front_model(tokens=tokens, looks=looks)
    output = model(random_images(48, 36))
    assert output.embedding.shape == (2, 32)
    assert output.tokens.shape == (2, 2 + tokens, 32)
    assert output.rois.shape == (2, 1 + looks, tokens, 4)
    points = model.sampling_points(random_images(48, 36))
    assert [tuple(look.shape) for look in points] == [(2, tokens, 16, 2)] * (1 + looks)


def test_rois_begin_as_cells_and_move_within_the_bound_once_trained() -> None:
    model = front_model(bound=0.3)
    rois = model(random_images()).rois
    torch.testing.assert_close(rois[:, 0], roi_arithmetic.cells(6).expand(2, -1, -1))
    for before, after in zip(rois.unbind(1)[:-1], rois.unbind(1)[1:], strict=True):
        centre, size = roi_arithmetic.centre_and_size(before)
        moved, scaled = roi_arithmetic.centre_and_size(after)
        assert (moved - centre).abs().max() > 0
        assert ((moved - centre).abs() <= 0.3 * size + 1e-6).all()
        assert ((scaled / size).log().abs() <= 0.3 + 1e-5).all()


def test_untrained__rois_stay_and_further_looks_change_nothing() -> None:
    with_looks, without = front_model(trained=False, looks=2), front_model(trained=False, looks=0)
    rois = with_looks(random_images()).rois
    torch.testing.assert_close(rois, rois[:, :1].expand_as(rois))
    assert without(random_images()).rois.shape[1] == 1


def test_other_numbers_of_tokens__from_one_model() -> None:
    model = front_model(tokens=9)
    images = random_images()
    own = model(images)
    torch.testing.assert_close(model(images, 9).embedding, own.embedding, rtol=0, atol=0)
    for tokens in (1, 4, 16):
        output = model(images, tokens=tokens)
        assert output.tokens.shape == (2, 2 + tokens, 32)
        assert output.rois.shape[2] == tokens
        assert not torch.allclose(output.embedding, own.embedding)


def test_gradient__of_coordinates_reaches_the_steps_alone() -> None:
    """The tokens that a step reads learn nothing from where it sends the RoI."""
    step = cast(RoIStep, scattered(RoIStep(16, 0.4)))
    tokens = torch.randn(2, 5, 16, requires_grad=True)
    rois = roi_arithmetic.cells(5).expand(2, -1, -1).clone().requires_grad_()
    step(tokens, rois).square().sum().backward()
    assert tokens.grad is None
    assert rois.grad is None
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in step.parameters())


def test_every_parameter_learns_from_the_embedding() -> None:
    model = front_model()
    model(random_images()).embedding.square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum()]
    assert silent == []


def test_read_map__at_cells_is_the_map_itself_and_between_them_the_mean() -> None:
    position_map = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0))
    cells = roi_arithmetic.cells(6)[None]
    torch.testing.assert_close(read_map(position_map, cells)[0], position_map.flatten(1).T)
    between = (cells[:, :1] + cells[:, 1:2]) / 2
    torch.testing.assert_close(read_map(position_map, between)[0, 0], position_map[:, 0, :2].mean(dim=-1))


def test_compiles_whole() -> None:
    model, images = front_model(), random_images()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images).embedding, model(images).embedding, rtol=0, atol=1e-5)


def test_exports_for_any_batch_and_size() -> None:
    model, images = front_model(), random_images()
    shapes = {"images": {0: Dim("batch"), 2: Dim.AUTO, 3: Dim.AUTO}}
    exported = torch.export.export(model, (images,), dynamic_shapes=shapes).module()
    for size in ((5, 3, 48, 80), (1, 3, 100, 36)):
        other = torch.rand(size, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(exported(other).embedding, model(other).embedding, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tokens": 0}, "at least one latent token, not 0"),
        ({"looks": -1}, "cannot be -1 further looks"),
        ({"patch_size": 0}, "a side of 0 pixels"),
        ({"bound": 1.5}, "not 1.5"),
    ],
)
def test_config__refuses(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        GridConfig(**options)


def test_config__prefix_tokens_have_one_home() -> None:
    block = BlockConfig(width=32, heads=2, feed_forward_width=48)
    with pytest.raises(ConfigError, match="prefix tokens are the front's"):
        SparseFormerConfig(focusing=GridConfig(tokens=4), cortex=CortexConfig(block=block, depth=1))
