"""The inherited front without further looks: a resize, a convolution, and constants.

Its RoIs are the cells of a grid for good. What it reads there are the patches of the image at one resolution, so that sampling
and patch embedding are a convolution whose kernel and stride are a patch. Positions, biases and prefix tokens are one tensor.
The normalisation goes into the convolution: a resize keeps sums of one, and no pixel lies outside.
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
    """Whether a front is one that can be folded here: its rows have as many cells each, and it does not look again."""
    rows, columns = roi_arithmetic.grid_of(tokens)
    return isinstance(front, GridFront) and not front.blocks and rows * columns == tokens


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
        self.grid = roi_arithmetic.grid_of(tokens)
        self.pyramid, self.pre_norm, self.prefix = front.pyramid, front.pre_norm, front.prefix
        cells = roi_arithmetic.cells(tokens).to(front.cells.device).unsqueeze(0)  # 1 x N x 4
        weight = front.embedding.weight.detach()  # D x 3 x P x P
        bias = -(weight * (normalise.mean / normalise.std)).sum(dim=(1, 2, 3))
        bias = bias if front.embedding.bias is None else bias + front.embedding.bias.detach()
        side = front.pyramid.patch_size
        self.embedding = nn.Conv2d(3, len(weight), kernel_size=side, stride=side, bias=False, device=weight.device)
        self.embedding.weight = nn.Parameter(weight / normalise.std, requires_grad=False)
        self.register_buffer("cells", cells)
        self.register_buffer("points", roi_arithmetic.regular_points(cells, side))
        self.register_buffer("positions", read_map(front.embedding.positions.detach(), cells) + bias)

    def forward(self, images: Tensor, tokens: int | None = None) -> Focus:
        """As :meth:`GridFront.forward`, of images that are not normalised."""
        refuse_other_tokens(tokens, self.cells.shape[1])
        patches = self.embedding(self.pyramid.level(images, self.grid))  # B x D x rows x columns
        latent = self.pre_norm(patches.flatten(2).transpose(1, 2) + self.positions)
        rois = self.cells.expand(images.shape[0], -1, -1)
        return Focus(self.prefix(latent), rois.unsqueeze(1), (self.points.expand(images.shape[0], -1, -1, -1),))
