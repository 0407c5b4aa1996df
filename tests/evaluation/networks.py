"""Small stand-ins for a student and a teacher."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Output(NamedTuple):
    embedding: Tensor
    logits: Tensor | None


class Batch(NamedTuple):
    images: Tensor
    indices: Tensor
    unreadable: tuple[tuple[int, str], ...] = ()


class Network(nn.Module):
    """Mean colour, a linear layer, and a classifier if asked for; noise where it is left in training mode."""

    def __init__(self, width: int = 5, classes: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Identity().eval()
        self.classifier = None if classes is None else nn.Linear(width, classes)
        self.batches = 0

    def forward(self, images: Tensor) -> Output:
        self.batches += 1
        embedding = self.frozen(self.dropout(self.linear(images.mean(dim=(2, 3)))))
        return Output(embedding, None if self.classifier is None else self.classifier(embedding))


def batches_of(images: Tensor, *, size: int, unreadable: tuple[int, ...] = ()) -> list[Batch]:
    """Batches in which some images could not be read."""
    batches = []
    for chunk in torch.arange(len(images)).split(size):
        good = torch.tensor([i for i in chunk.tolist() if i not in unreadable], dtype=torch.int64)
        bad = tuple((i, "truncated") for i in chunk.tolist() if i in unreadable)
        batches.append(Batch(images[good] if len(good) else torch.zeros(0, 3, 0, 0), good, bad))
    return batches
