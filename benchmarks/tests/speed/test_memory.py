from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.backends.pytorch import InPyTorch
from benchmarks.speed.memory import PeakMemory, can_measure
from sparseformers.evaluation import Cost
from sparseformers.exporting.formats import Runner

MEGABYTES = 2**20


class Needy(nn.Module):
    """Holds 64 MiB, and needs 8 MiB for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16 * MEGABYTES))

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 2 * MEGABYTES).sum(dim=1)


@dataclass(frozen=True)
class Broken:
    """Cannot be opened."""

    def open(self, batch: int) -> Runner:
        raise ValueError("it is broken")


@pytest.mark.slow
@pytest.mark.skipif(not can_measure(), reason="needs the kernel's count of resident pages")
def test_measure__is_what_a_process_needs(tmp_path: Path) -> None:
    with PeakMemory(1, tmp_path) as memory:
        opening = InPyTorch(Needy(), Cost(0, 0, (1, 1)), "fp32", torch.device("cpu"), compiled=False)
        peaks = memory.measure(opening, (32, 32), (8, 1))
        assert peaks[1] / MEGABYTES == pytest.approx(64 + 8, abs=24)
        assert peaks[8] / MEGABYTES == pytest.approx(64 + 64, abs=24)
        with pytest.raises(RuntimeError, match="ValueError: it is broken"):
            memory.measure(Broken(), (32, 32), (1,))
        assert memory.measure(opening, (32, 32), (1,))[1] / MEGABYTES == pytest.approx(72, abs=24)
    assert not list(tmp_path.iterdir())
