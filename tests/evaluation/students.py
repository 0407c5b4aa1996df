"""Stand-ins for trained students, of a tiny teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseformers.config import BlockConfig, CortexConfig, OriginalFocusingConfig, SparseFormerConfig
from sparseformers.model import SparseFormer
from sparseformers.model.sparseformer import SparseFormerOutput
from sparseformers.teachers import Teacher
from tests.tiny import SIDE


class Mover(nn.Module):
    """Gives the teacher's embedding of images of any size, with RoIs that go where they are told."""

    def __init__(self, teacher: Teacher, first: Tensor, last: Tensor) -> None:
        super().__init__()
        self.teacher = teacher
        self.first, self.last = first, last

    def forward(self, images: Tensor) -> SparseFormerOutput:
        images = nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        embedding, logits = self.teacher(images)
        rois = torch.stack([self.first, (self.first + self.last) / 2, self.last]).expand(len(images), -1, -1, -1)
        return SparseFormerOutput(embedding, logits, torch.zeros(len(images), 1, 1), rois, torch.zeros(len(images), 1, 1))


def original(teacher: Teacher) -> SparseFormer:
    """A network of the first paper with an embedding as wide as the teacher's."""
    block = BlockConfig(width=teacher.anatomy.embedding_width, heads=4, feed_forward_width=48)
    focusing = OriginalFocusingConfig(tokens=4, width=32, iterations=2, channels=8, points=4, heads=4)
    cortex = CortexConfig(block=block, depth=1, prefix_tokens=0, pooling="average", pool_first=True, classes=3)
    return SparseFormer(SparseFormerConfig(focusing=focusing, cortex=cortex))
