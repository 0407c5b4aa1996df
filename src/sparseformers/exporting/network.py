"""The network that goes into an exported file: from images to embeddings, with what every format can express.

Legend: B batch, C channels of the feature map, N latent tokens, P sampling points per token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import ReadOutConfig
from sparseformers.errors import ConfigError
from sparseformers.exporting.config import ExportConfig
from sparseformers.exporting.resizing import Preprocessing, resample, resampling_matrix
from sparseformers.inference import fold_embedding
from sparseformers.inference.folding import FoldedGrid
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront, Resize
from sparseformers.model.mixed_resolution import MixedResolutionFront
from sparseformers.model.sampling import BilinearSampling

Layer = TypeVar("Layer", bound=nn.Module)


class PortableResize(Resize):
    """As :class:`Resize`, by products with matrices, which all formats have."""

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        rows = resampling_matrix(images.shape[2], size[0], "bilinear", kept=size[0])
        columns = resampling_matrix(images.shape[3], size[1], "bilinear", kept=size[1])
        return resample(images, rows, columns)


class PixelBeside(NamedTuple):
    """One of the two pixels beside a point, along one axis."""

    at: Tensor  # its row or column, int64, always one that the map has
    weight: Tensor  # its share of what is read, in [0, 1]


class GatheredSampling(BilinearSampling):
    """As :class:`BilinearSampling`, by gathers of whole pixels, each with all its channels.

    The runtimes of exported files sample a channel at a time, and compute where to read anew for each. Here the four pixels
    around a point are read as rows of memory and weighted. In PyTorch itself it would be half as fast as its own kernel.
    """

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """Map B x C x H x W, points B x N x P x 2, (x, y) in [0, 1] of the image -> B x N x P x C in the map's precision."""
        batch, _, height, width = features.shape
        pixels = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # B·H·W x C
        image = torch.arange(batch, device=features.device).view(-1, 1, 1) * height  # B x 1 x 1, the first row of each
        x, y = points.float().unbind(-1)  # B x N x P each
        columns, rows = neighbours(x, width, self.outside), neighbours(y, height, self.outside)

        def weighted(row: PixelBeside, column: PixelBeside) -> Tensor:
            index = (image + row.at) * width + column.at
            found = pixels.index_select(0, index.flatten()).unflatten(0, index.shape)  # B x N x P x C
            return found * (row.weight * column.weight).unsqueeze(-1)

        (above, below), (left, right) = rows, columns
        upper, lower = (weighted(row, left) + weighted(row, right) for row in (above, below))
        return (upper + lower).to(features.dtype)


def neighbours(places: Tensor, size: int, outside: Literal["border", "zeros"]) -> tuple[PixelBeside, PixelBeside]:
    """The pixels before and after each place (in [0, 1]) along an axis of ``size`` pixels; see :class:`BilinearSampling`."""
    places = places * size - 0.5  # the middle of the first pixel is 0
    if outside == "border":
        places = places.clamp(0, size - 1)
    before = places.floor()
    share = places - before
    return _neighbour(before, 1 - share, size), _neighbour(before + 1, share, size)


def _neighbour(position: Tensor, weight: Tensor, size: int) -> PixelBeside:
    """A pixel that the map has; one that it does not have weighs nothing."""
    inside = position.clamp(0, size - 1)
    return PixelBeside(inside.long(), weight * (inside == position))


def replace_layers(network: nn.Module, kind: type[Layer], make: Callable[[Layer], nn.Module]) -> nn.Module:
    """Puts a layer that ``make`` makes of it in the place of each of this kind; returns the network."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                module.add_module(name, make(child))
    return network


class EmbeddingNetwork(nn.Module):
    """A copy of a student from images to embeddings; folded for that, so that a file has less to compute.

    ``with_preprocessing`` it takes bytes of any size, and resizes and crops them. ``gathers`` has feature maps read by gathers,
    which is faster everywhere but in PyTorch. ``tokens`` is N, if other than configured.
    """

    def __init__(
        self, student: SparseFormer, *, tokens: int | None = None, with_preprocessing: bool = False, gathers: bool = True
    ) -> None:
        super().__init__()
        self.student = fold_embedding(student, tokens=tokens).cpu()
        self.preprocessing = Preprocessing(student.config.preprocessing) if with_preprocessing else nn.Identity()
        front = self.student.focusing
        if isinstance(front, GridFront | FoldedGrid | MixedResolutionFront):
            front.resize = PortableResize()
        if gathers:
            replace_layers(self.student, BilinearSampling, lambda layer: GatheredSampling(layer.outside))

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1], H and W from 32 up, or with preprocessing B x H x W x 3 bytes -> B x D_out, float32."""
        embedding: Tensor = self.student(self.preprocessing(images))
        return embedding


class DenseNetwork(nn.Module):
    """A copy of a student from images to maps on its own grid; the arguments are those of :class:`EmbeddingNetwork`."""

    def __init__(
        self, student: SparseFormer, *, tokens: int | None = None, with_preprocessing: bool = False, gathers: bool = True
    ) -> None:
        super().__init__()
        self.student, self.tokens, self.grid = copy.deepcopy(student).cpu().eval(), tokens, required_read_out(student).grid
        self.preprocessing = Preprocessing(student.config.preprocessing) if with_preprocessing else nn.Identity()
        replace_layers(self.student, Resize, lambda _: PortableResize())
        if gathers:
            replace_layers(self.student, BilinearSampling, lambda layer: GatheredSampling(layer.outside))

    def forward(self, images: Tensor) -> Tensor:
        """Images as for :class:`EmbeddingNetwork` -> B x D x h x w, float32."""
        dense: Tensor = self.student(self.preprocessing(images), self.tokens, self.grid).dense
        return dense


def required_read_out(student: SparseFormer) -> ReadOutConfig:
    """The configuration of a student's read-out; raises ConfigError if it has none."""
    if student.config.read_out is None:
        raise ConfigError("The student has no read-out, so there is no map to export.", "Train one with bootstrap --dense.")
    return student.config.read_out


class Bfloat16Linear(nn.Module):
    """A linear layer, given in float32, in bfloat16 between values in float32.

    Cast by hand and not by autocast, which would take the matrices of :mod:`sparseformers.exporting.resizing` too, and pixels
    have more digits than bfloat16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().bfloat16(), requires_grad=False)
        bias = cast("Tensor | None", linear.bias)
        self.bias = None if bias is None else nn.Parameter(bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """... x D_in -> ... x D_out, float32."""
        return F.linear(x.bfloat16(), self.weight, self.bias).float()


def network_of(student: SparseFormer, settings: ExportConfig) -> nn.Module:
    """The network that a file with these settings holds; for int8 in float32, to be quantised in the file."""
    gathers, prepares = settings.format != "torch-export", settings.with_preprocessing
    make = EmbeddingNetwork if settings.output == "embedding" else DenseNetwork
    network = make(student, tokens=settings.tokens, with_preprocessing=prepares, gathers=gathers)
    return replace_layers(network, nn.Linear, Bfloat16Linear) if settings.precision == "bf16" else network
