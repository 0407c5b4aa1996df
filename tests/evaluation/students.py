"""Stand-ins for trained students, of a tiny teacher."""

import torch
from torch import Tensor, nn

from sparseformers.model import SparseFormer, SparseFormerOutput
from sparseformers.teachers import Teacher
from tests.model.small import original_config
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
    block, cortex = {"width": teacher.anatomy.embedding_width}, {"depth": 1, "classes": 3}
    return SparseFormer(original_config(tokens=4, width=32, block=block, cortex=cortex))
