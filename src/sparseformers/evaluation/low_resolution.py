"""The teacher at a lower resolution: fewer tokens, no training. What a student with as many tokens has to beat."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sparseformers.evaluation.rebuilt import RebuiltTeacher
from sparseformers.model.sparseformer import check_images
from sparseformers.teachers import Teacher, TeacherOutput


class LowResolutionTeacher(RebuiltTeacher):
    """The teacher on images shrunk to a square of ``side`` x ``side`` patches, whatever size and shape they come in.

    Args:
        teacher: which one.
        side: patches a side; the teacher's position embeddings are resampled to them.

    Raises:
        ConfigError: for a side below 1.
        WeightsError: if the teacher's weights do not fit its anatomy.
    """

    def __init__(self, teacher: Teacher, side: int) -> None:
        super().__init__(teacher, grid=(side, side))

    def forward(self, images: Tensor) -> TeacherOutput:
        """Shrinks images (bilinear, antialiased) and embeds them.

        Args:
            images: B x 3 x H x W in [0, 1]; any H and W from 32 up, usually the teacher's own.

        Raises:
            ValueError: for another number of dimensions or channels, or a smaller image.
        """
        check_images(images)
        return super().forward(F.interpolate(images, self.size, mode="bilinear", antialias=True))
