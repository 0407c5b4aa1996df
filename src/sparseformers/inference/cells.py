"""The grid front: a resize, a convolution, and constants.

What it reads in cells of equal size are the patches of the image at one resolution, so that reading and patch embedding are a
convolution whose kernel and stride are a patch. Positions, biases and prefix tokens are one tensor. The normalisation goes into
the convolution: a resize keeps sums of one, and no pixel lies outside.
"""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn

from sparseformers import rois as roi_arithmetic
from sparseformers.model.focusing import Focus, refuse_other_tokens
from sparseformers.model.grid import GridFront
from sparseformers.model.position import read_map
from sparseformers.model.sparseformer import Normalise


def has_cells(front: nn.Module, tokens: int) -> TypeGuard[GridFront]:
    """Whether a front is one that can be folded here: its rows have as many cells each."""
    rows, columns = roi_arithmetic.grid_of(tokens)
    return isinstance(front, GridFront) and rows * columns == tokens


class FoldedCells(nn.Module):
    """Images in [0, 1] to tokens; the normalisation is inside.

    Args:
        front: whose modules become part of this one.
        normalise: of the student.
        tokens: N.
    """

    cells: Tensor
    points: Tensor
    positions: Tensor

    def __init__(self, front: GridFront, normalise: Normalise, tokens: int) -> None:
        super().__init__()
        side = front.patch_size
        rows, columns = roi_arithmetic.grid_of(tokens)
        self.size = rows * side, columns * side
        self.resize, self.pre_norm, self.prefix = front.resize, front.pre_norm, front.prefix
        cells = roi_arithmetic.cells(tokens).to(front.cells.device).unsqueeze(0)  # 1 x N x 4
        weight = front.embedding.weight.detach()  # D x 3 x P x P
        bias = -(weight * (normalise.mean / normalise.std)).sum(dim=(1, 2, 3))
        bias = bias if front.embedding.bias is None else bias + front.embedding.bias.detach()
        self.embedding = nn.Conv2d(3, len(weight), kernel_size=side, stride=side, bias=False, device=weight.device)
        self.embedding.weight = nn.Parameter(weight / normalise.std, requires_grad=False)
        self.register_buffer("cells", cells)
        self.register_buffer("points", roi_arithmetic.regular_points(cells, side))
        self.register_buffer("positions", read_map(front.embedding.positions.detach(), cells) + bias)

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """As :meth:`GridFront.forward`, of images that are not normalised."""
        refuse_other_tokens(tokens, self.cells.shape[1])
        patches = self.embedding(self.resize(images.float(), self.size))  # B x D x rows x columns
        latent = self.pre_norm(patches.flatten(2).transpose(1, 2) + self.positions)
        rois = self.cells.expand(images.shape[0], -1, -1)
        return Focus(self.prefix(latent), rois.unsqueeze(1), (self.points.expand(images.shape[0], -1, -1, -1),))
