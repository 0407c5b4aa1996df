"""Networks for the test of peak memory, in a module that imports next to nothing: the process that is measured imports it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    def open(self, batch: int) -> None:
        raise ValueError("it is broken")
