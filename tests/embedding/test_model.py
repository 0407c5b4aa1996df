"""A network ready for inference gives what it gave, by the fastest way that there is for what is kept."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sparseformers.embedding import run
from sparseformers.embedding.run import Embedder
from sparseformers.inference import pack_weights
from tests.embedding.small import SIDE, settings, student

CPU = torch.device("cpu")


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What has been packed."""
    found: list[nn.Module] = []

    def noted(network: nn.Module) -> nn.Module:
        found.append(network)
        return pack_weights(network)

    monkeypatch.setattr(run, "pack_weights", noted)
    return found


def test_ready__packs_where_it_can(packed: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = student(), torch.rand(3, 3, SIDE, SIDE)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        expected = network(images).embedding.numpy()
    for option, autocast, nearness in (
        ((), None, 1e-5),
        ((), torch.bfloat16, 0.05),
        (("tokens",), None, 1e-5),
        (("rois",), None, 1e-5),
    ):
        rows = Embedder(network, settings("photos", **dict.fromkeys(option, True))).ready(CPU, autocast)(images)
        assert rows.keys() == {"embedding", *option}
        assert bool(packed) == (not option and autocast is None)
        assert np.linalg.norm(rows["embedding"] - expected) <= nearness * np.linalg.norm(expected)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        packed.clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    np.testing.assert_allclose(Embedder(network, settings("photos")).ready(CPU, None)(images)["embedding"], expected, atol=1e-5)
    assert not packed
