"""The network that goes into an exported file: from images to embeddings, with what every format can express.

Legend: B batch, C channels of the feature map, N latent tokens, P sampling points per token.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.config import PreprocessingConfig, ReadOutConfig
from sparseformers.errors import ConfigError
from sparseformers.exporting.config import ExportConfig
from sparseformers.inference import fold_embedding
from sparseformers.model import SparseFormer
from sparseformers.model.grid import Resize
from sparseformers.model.sampling import BilinearSampling

Layer = TypeVar("Layer", bound=nn.Module)
Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def bilinear(distance: Tensor) -> Tensor:
    """The triangle, of support 1."""
    return (1 - distance).clamp(min=0)


def bicubic(distance: Tensor) -> Tensor:
    """Keys' cubic of support 2 with a = -0.5, as Pillow has it (Keys, 1981)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))


def lanczos(distance: Tensor) -> Tensor:
    """The windowed sine of support 3 (Duchon, 1979)."""
    angle = math.pi * distance.clamp(min=1e-6)  # sin(x) / x is 1 there in float32
    windowed = 3 * angle.sin() * (angle / 3).sin() / (angle * angle)
    return torch.where(distance < 3, windowed, torch.zeros_like(windowed))


FILTERS: Mapping[str, Callable[[Tensor], Tensor]] = {"bilinear": bilinear, "bicubic": bicubic, "lanczos": lanczos}
"""Weight by distance, in pixels of the coarser of the two images; even functions, given for distances from 0 up."""


def resampling_matrix(size: int, resized: int | Tensor, filter_: Filter, *, kept: int, first: int | Tensor = 0) -> Tensor:
    """The matrix that turns a line of pixels into a resized one: antialiased, by the convention of Pillow and of PyTorch.

    A line of ``size`` pixels (a symbol where the file takes any) becomes one of ``resized`` pixels (an integer, or an int64
    tensor of no dimensions), of which ``kept`` from ``first`` on are wanted: ``kept`` x ``size``, float32, rows that sum to 1. By
    products with it a resize is the same in all formats; OpenVINO reads ONNX's antialiased one and silently computes another.
    """
    resized = torch.as_tensor(resized, dtype=torch.int64)
    target = 2 * (torch.arange(kept) + first).unsqueeze(1) + 1  # middles, in half pixels
    if filter_ == "nearest":
        return (torch.arange(size) == (target * size).div(2 * resized, rounding_mode="floor")).float()
    # Exact up to here: whole numbers in units of 1 / (2 resized) of a pixel.
    apart = ((2 * torch.arange(size) + 1) * resized - target * size).abs()
    coarser = torch.maximum(resized, torch.full_like(resized, size))
    weights = FILTERS[filter_](apart.float() / (2 * coarser).float())
    return weights / weights.sum(dim=1, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor, *, to_levels: bool = False) -> Tensor:
    """Images B x C x H x W by matrices to B x C x H_out x W_out; ``to_levels`` rounds after each, as Pillow does with bytes."""
    rounded = whole_levels if to_levels else torch.nn.Identity()
    return rounded(rows @ rounded(images @ columns.T))


def whole_levels(images: Tensor) -> Tensor:
    """Values rounded to whole ones in 0 ... 255, halves upwards."""
    return (images + 0.5).floor().clamp(0, 255)


class Preprocessing(nn.Module):
    """Resize and central crop of bytes, as :func:`sparseformers.data.evaluation_view` does them with Pillow.

    Bytes are rounded after each of the two passes, too, so that few values differ, by a level or two, where a sum lies in the
    middle. But images of more than twenty shorter sides may be shifted by a pixel, and where the aspect ratio changes (squash),
    recent versions of Pillow choose the order of the passes by the sizes, which moves a few values by up to 16 levels.
    """

    def __init__(self, config: PreprocessingConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor) -> Tensor:
        """B x H x W x 3 bytes, red-green-blue, any H and W -> B x 3 x height x width in [0, 1]."""
        sizes = zip(images.shape[1:3], self._resized(images.shape[1], images.shape[2]), self.config.size, strict=True)
        rows, columns = (
            resampling_matrix(size, resized, self.config.interpolation, kept=kept, first=_centred(resized, kept))
            for size, resized, kept in sizes
        )
        return resample(images.permute(0, 3, 1, 2).float(), rows, columns, to_levels=True) / 255

    def _resized(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Height and width of the resized image before the crop: int64 of no dimensions, by timm's rounding."""
        to_height, to_width = (math.floor(side / self.config.crop) for side in self.config.size)
        goal = torch.tensor(to_height), torch.tensor(to_width)
        if self.config.resize == "squash":
            return goal
        tall, wide = torch.full((), height), torch.full((), width)
        if to_height == to_width:  # the longer side is rounded down
            return (
                torch.maximum(goal[0], (to_height * tall).div(wide, rounding_mode="floor")),
                torch.maximum(goal[1], (to_width * wide).div(tall, rounding_mode="floor")),
            )
        # The side that needs the least shrinking gets its goal, the other one what it is by the same ratio.
        by_height = tall * to_width <= wide * to_height
        over, under = torch.where(by_height, tall, wide), torch.where(by_height, goal[0], goal[1])
        return _rounded_quotient(tall * under, over), _rounded_quotient(wide * under, over)


def _rounded_quotient(dividend: Tensor, divisor: Tensor) -> Tensor:
    """The quotient of positive whole numbers, rounded to the nearest; halves to even, as Python does."""
    quotient = (2 * dividend + divisor).div(2 * divisor, rounding_mode="floor")
    is_half = 2 * divisor * quotient == 2 * dividend + divisor
    return quotient - torch.where(is_half, quotient % 2, torch.zeros_like(quotient))


def _centred(resized: Tensor, kept: int) -> Tensor:
    """The first of the central ``kept`` pixels of ``resized``; halves are rounded to even, as torchvision does."""
    spare = resized - kept
    return (spare + spare.div(2, rounding_mode="floor") % 2).div(2, rounding_mode="floor")


class PortableResize(Resize):
    """As :class:`Resize`, by products with matrices, which all formats have."""

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        sides = zip(images.shape[2:], size, strict=True)
        return resample(images, *(resampling_matrix(side, resized, "bilinear", kept=resized) for side, resized in sides))


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


def make_portable(network: nn.Module, *, gathers: bool) -> None:
    """Puts layers that all formats have in the place of others; see :class:`EmbeddingNetwork` for ``gathers``."""
    replace_layers(network, Resize, lambda _: PortableResize())
    if gathers:
        replace_layers(network, BilinearSampling, lambda layer: GatheredSampling(layer.outside))


class EmbeddingNetwork(nn.Module):
    """A copy of a student from images to embeddings; folded for that, so that a file has less to compute.

    ``with_preprocessing`` it takes bytes of any size, and resizes and crops them. ``gathers`` has feature maps read by gathers,
    which is faster everywhere but in PyTorch. ``tokens`` is N, if other than configured.
    """

    def __init__(
        self, student: SparseFormer, *, tokens: int | None = None, with_preprocessing: bool = False, gathers: bool = True
    ) -> None:
        super().__init__()
        self.student, self.tokens = self._copied(student, tokens), tokens
        self.preprocessing = Preprocessing(student.config.preprocessing) if with_preprocessing else nn.Identity()
        make_portable(self.student, gathers=gathers)

    def _copied(self, student: SparseFormer, tokens: int | None) -> nn.Module:
        return fold_embedding(student, tokens=tokens).cpu()

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1], H and W from 32 up, or with preprocessing B x H x W x 3 bytes -> B x D_out, float32."""
        return self.student(self.preprocessing(images))


class DenseNetwork(EmbeddingNetwork):
    """A copy of a student from images to maps on its own grid."""

    def _copied(self, student: SparseFormer, tokens: int | None) -> nn.Module:
        self.grid = required_read_out(student).grid
        return copy.deepcopy(student).cpu().eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images as for :class:`EmbeddingNetwork` -> B x D x h x w, float32."""
        return self.student(self.preprocessing(images), self.tokens, self.grid).dense


def required_read_out(student: SparseFormer) -> ReadOutConfig:
    """The configuration of a student's read-out; raises ConfigError if it has none."""
    if student.config.read_out is None:
        raise ConfigError("The student has no read-out, so there is no map to export.", "Train one with bootstrap --dense.")
    return student.config.read_out


class Bfloat16Linear(nn.Module):
    """A linear layer, given in float32, in bfloat16 between values in float32.

    Cast by hand and not by autocast, which would take the matrices of a resize too, and pixels have more digits than bfloat16.
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
