"""The teacher itself, built of this package's own parts, for attention maps and for baselines at a lower resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.errors import ConfigError
from sparseformers.model.cortex import build_cortex
from sparseformers.model.layers import build_norm
from sparseformers.model.sparseformer import Normalise, check_images
from sparseformers.rois import cells
from sparseformers.teachers import Teacher, TeacherOutput


class TeacherPatchTokens(nn.Module):
    """One token for each patch of a regular grid: its pixels projected, its position added, normed where the teacher does."""

    def __init__(self, teacher: Teacher, rows: int, columns: int) -> None:
        super().__init__()
        patches, block = teacher.patch_embedding(), teacher.anatomy.block
        width, channels, patch, _ = patches.weight.shape
        with torch.device("meta"):  # no starting values: each is the teacher's
            self.projection = nn.Conv2d(channels, width, patch, stride=patch, bias=patches.bias is not None)
            self.patch_norm = build_norm(block) if patches.patch_norm else nn.Identity()
            self.norm = build_norm(block) if patches.pre_norm else nn.Identity()
        _fill(self.projection, patches.projection)
        _fill(self.patch_norm, patches.patch_norm)
        _fill(self.norm, patches.pre_norm)
        self.positions = nn.Parameter(teacher.positions_on(rows, columns).flatten(1).T.contiguous())

    def forward(self, normalised: Tensor) -> Tensor:
        """Normalised images B x 3 x H x W -> B x N x D, row by row."""
        return self.norm(self.patch_norm(self.projection(normalised).flatten(2).mT) + self.positions)


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    module.load_state_dict({name: value.detach().float().clone() for name, value in state.items()}, assign=True)


class RebuiltTeacher(nn.Module):
    """A teacher of any host library as patch tokens and a cortex of all its blocks; it gives the teacher's own embeddings.

    Its weights are copies, and frozen. On another ``grid`` (rows, columns) of patches its position embeddings are resampled.
    Raises ConfigError for a grid without patches, and WeightsError if the teacher's weights do not fit its anatomy.
    """

    rois: Tensor

    def __init__(self, teacher: Teacher, *, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        if grid is not None and min(grid) < 1:
            raise ConfigError(f"A grid of {grid[0]} x {grid[1]} patches holds none.", "Use 1 or more a side.")
        patch = teacher.patch_size
        # Height and width in pixels of the images that it takes.
        self.size = teacher.preprocessing.size if grid is None else (grid[0] * patch, grid[1] * patch)
        self.grid = rows, columns = self.size[0] // patch, self.size[1] // patch
        self.normalise = Normalise(teacher.preprocessing.mean, teacher.preprocessing.std)
        self.patches = TeacherPatchTokens(teacher, rows, columns)
        self.register_buffer("rois", cells(rows * columns, rows / columns).unsqueeze(0), persistent=False)  # 1 x N x 4
        anatomy = teacher.anatomy_on(rows, columns)
        with torch.device("meta"):
            self.cortex = build_cortex(anatomy)
        self.cortex.load_state_dict(teacher.cortex_state() | teacher.positions_state(rows, columns), assign=True)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> TeacherOutput:
        """Embeds images B x 3 x H x W in [0, 1] of the height and width ``size``; raises ValueError for another size."""
        embedding, logits, *_ = self.cortex(self.tokens(images), self.rois)
        return TeacherOutput(embedding, logits)

    def tokens(self, images: Tensor) -> Tensor:
        """The patch tokens that enter the first block, B x N x D, without prefix tokens; images as for :meth:`forward`."""
        if tuple(images.shape[-2:]) != self.size:
            raise ValueError(f"the teacher takes images of {self.size}, not {tuple(images.shape[-2:])}")
        return self.patches(self.normalise(images))


class LowResolutionTeacher(RebuiltTeacher):
    """The teacher at a lower resolution: fewer tokens, no training. What a student with as many tokens has to beat.
    It shrinks images of any size and shape to about so many patches, in rows and columns as the teacher's own.
    """

    def __init__(self, teacher: Teacher, tokens: int) -> None:
        height, width = teacher.preprocessing.size
        sides = (math.sqrt(tokens * height / width), math.sqrt(tokens * width / height))
        rows, columns = (max(min(1, tokens), round(side)) for side in sides)
        super().__init__(teacher, grid=(rows, columns))
        self.patch_count = rows * columns

    def forward(self, images: Tensor) -> TeacherOutput:
        """Shrinks images B x 3 x H x W in [0, 1] (bilinear, antialiased; any H and W from 32 up) and embeds them."""
        check_images(images)
        return super().forward(F.interpolate(images, self.size, mode="bilinear", antialias=True))
