"""The teacher on an image with few patches: what a token of each cell of a coarse grid should be, block by block."""

from __future__ import annotations

from torch import Tensor, nn

from sparseformers.inheritance.inherit import inherit
from sparseformers.teachers import Teacher


class CoarseTokens(nn.Module):
    """The leading blocks of a teacher on images so small that they have N patches, one for each cell of a grid.

    Its weights are copies, and frozen.

    Args:
        teacher: to ask.
        tokens: N.
        depth: blocks to go through, from 0.
    """

    def __init__(self, teacher: Teacher, *, tokens: int, depth: int) -> None:
        super().__init__()
        student = inherit(teacher, front="grid", tokens=tokens).student
        self.prefix_tokens = student.config.cortex.prefix_tokens
        """R."""
        self.normalise, self.front, self.blocks = student.normalise, student.focusing, student.cortex.blocks[:depth]
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images M x 3 x H x W in [0, 1] of any size -> the teacher's tokens there, M x (R+N) x D."""
        tokens = self.front(self.normalise(images)).tokens
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def latent(self, images: Tensor) -> Tensor:
        """The same without the prefix tokens: M x N x D."""
        tokens: Tensor = self(images)
        return tokens[:, self.prefix_tokens :]
