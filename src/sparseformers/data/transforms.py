"""From a decoded image to the network's input in [0, 1]: random views to train on, fixed ones to evaluate with.

Everything works on Pillow images up to the last step: as fast on one core as tensors, and the same to the bit whatever the
number of threads. Randomness comes from torch's global generator alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from sparseformers.config import PreprocessingConfig
from sparseformers.data.loading import from_bytes
from sparseformers.errors import ConfigError, suggest

Augmentation = Literal["default", "strong"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("default", "strong")  # for photographs by the thousand, and for a handful
SMALLEST_CROPS: Mapping[Augmentation, float] = {"default": 0.25, "strong": 0.02}  # default share of the image's area

_RATIOS = (3 / 4, 4 / 3)  # width over height of random crops
_LONGEST_SIDES = 20  # longer over shorter side, beyond which the ends of an image are cut off before the resize


def training_view(
    size: tuple[int, int], augmentation: Augmentation, *, crop_scale: float | None = None
) -> Callable[[Image.Image], Tensor]:
    """Makes random views of an RGB image to train on, 3 x H x W in [0, 1]; raises ConfigError for an unknown augmentation.

    ``crop_scale`` is the smallest share of the image's area that a crop keeps, in (0, 1] (default: ``SMALLEST_CROPS``).
    """
    if augmentation not in AUGMENTATIONS:
        problem = f"There is no augmentation '{augmentation}'."
        raise ConfigError(problem, f"{suggest(augmentation, AUGMENTATIONS)} Known: {', '.join(AUGMENTATIONS)}.".strip())
    scale = (SMALLEST_CROPS[augmentation] if crop_scale is None else crop_scale, 1.0)
    return DefaultView(size, scale) if augmentation == "default" else StrongView(size, scale)


class ByteView(ABC):
    """Makes a view of an RGB image, as 3 x H x W in [0, 1] or as bytes."""

    size: tuple[int, int]  # height and width in pixels

    @property
    def bytes(self) -> int:
        return 3 * math.prod(self.size)

    @abstractmethod
    def pixels(self, image: Image.Image) -> Tensor:
        """The view as 3 x H x W bytes."""

    def __call__(self, image: Image.Image) -> Tensor:
        return from_bytes(self.pixels(image))


@dataclass(frozen=True)
class CropView(ByteView):
    """Random crops."""

    size: tuple[int, int]  # height and width in pixels
    scale: tuple[float, float]  # the least and greatest share of the image's area

    @property
    def at_least(self) -> int:
        """Pixels that the image's sides need for its smallest crops to have the full resolution."""
        return math.ceil(max(self.size) / math.sqrt(self.scale[0] * _RATIOS[0]))

    @cached_property
    def _crop(self) -> v2.Transform:
        bicubic = v2.InterpolationMode.BICUBIC
        return v2.RandomResizedCrop(self.size, scale=self.scale, ratio=_RATIOS, interpolation=bicubic, antialias=True)

    def pixels(self, image: Image.Image) -> Tensor:
        return functional.pil_to_tensor(self._crop(image))


@dataclass(frozen=True)
class DefaultView(CropView):
    """A random crop of a quarter of the area or more, a flip, moderate colour jitter."""

    scale: tuple[float, float] = (SMALLEST_CROPS["default"], 1.0)

    @cached_property
    def _change(self) -> v2.Transform:
        jitter = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.2, hue=0.02)
        return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomApply([jitter], p=0.5)])

    def pixels(self, image: Image.Image) -> Tensor:
        return functional.pil_to_tensor(self._change(self._crop(image)))


@dataclass(frozen=True)
class StrongView(CropView):
    """Views that differ so much that a few photographs yield enough of them.

    In the spirit of Asano and Saeed, "The augmented image prior" (ICLR 2023): crops down to 1/50 of the area, turned, sheared,
    flipped, with other colours, now and then grey or blurred. They lie inside the image, so nothing has to be filled in.
    """

    scale: tuple[float, float] = (SMALLEST_CROPS["strong"], 1.0)  # sides are drawn uniformly, so small crops are common
    degrees: float = 30.0  # the greatest rotation to either side
    shear: float = 15.0  # the greatest shear to either side, in degrees

    @cached_property
    def _recolour(self) -> v2.Transform:
        jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        return v2.Compose([v2.RandomApply([jitter], p=0.8), v2.RandomGrayscale(p=0.1)])

    def pixels(self, image: Image.Image) -> Tensor:
        view = self._recolour(self._turned_crop(image))
        if _uniform(0, 1) < 0.1:
            view = view.filter(ImageFilter.GaussianBlur(_uniform(0.3, 1.0) * min(self.size) / 100))
        return functional.pil_to_tensor(view)

    def _turned_crop(self, image: Image.Image) -> Image.Image:
        """A parallelogram inside the image, made upright: its bounding box is resized (antialiased) and then turned."""
        height, width = self.size
        right, down = self._half_axes(image.width, image.height)
        # Half the bounding box of centre +- right +- down, shrunk where it would reach outside of the image.
        reach = (abs(right[0]) + abs(down[0]), abs(right[1]) + abs(down[1]))
        shrink = min(1.0, image.width / (2 * reach[0]), image.height / (2 * reach[1]))
        half = (min(reach[0] * shrink, image.width / 2), min(reach[1] * shrink, image.height / 2))
        centre = (_uniform(half[0], image.width - half[0]), _uniform(half[1], image.height - half[1]))
        left, top = max(centre[0] - half[0], 0.0), max(centre[1] - half[1], 0.0)
        box = (left, top, min(centre[0] + half[0], image.width), min(centre[1] + half[1], image.height))
        # One pixel of the box for one of the view, along each of its sides.
        density = max(width / (2 * math.hypot(*right)), height / (2 * math.hypot(*down)))
        across, along = max(1, math.ceil(2 * reach[0] * density)), max(1, math.ceil(2 * reach[1] * density))
        part = image.resize((across, along), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        # From a view's pixel (x, y) to the box's: its middle + right * (2x/W - 1) + down * (2y/H - 1), in the box's pixels.
        by_x = (right[0] * across / (reach[0] * width), right[1] * along / (reach[1] * width))
        by_y = (down[0] * across / (reach[0] * height), down[1] * along / (reach[1] * height))
        start = [side / 2 - by_x[i] * width / 2 - by_y[i] * height / 2 for i, side in enumerate((across, along))]
        matrix = (by_x[0], by_y[0], start[0], by_x[1], by_y[1], start[1])
        return part.transform((width, height), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)

    def _half_axes(self, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """From a random crop's centre to the middles of its right and its lower side, (x, y) in the image's pixels."""
        share = _uniform(math.sqrt(self.scale[0]), math.sqrt(self.scale[1]))
        ratio = math.exp(_uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        half_width, half_height = (0.5 * share * math.sqrt(width * height * part) for part in (ratio, 1 / ratio))
        flip = -1 if _uniform(0, 1) < 0.5 else 1
        turn = math.radians(_uniform(-self.degrees, self.degrees))
        lean = turn + math.radians(_uniform(-self.shear, self.shear))
        right = (flip * half_width * math.cos(turn), flip * half_width * math.sin(turn))
        return right, (-half_height * math.sin(lean), half_height * math.cos(lean))


@dataclass(frozen=True)
class EvaluationView(ByteView):
    """The teacher's own view without normalisation: resized (1 / crop of the size, rounded down) and cropped as timm does it."""

    preprocessing: PreprocessingConfig

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        return self.preprocessing.size

    def pixels(self, image: Image.Image) -> Tensor:
        filter_ = v2.InterpolationMode(self.preprocessing.interpolation)
        image = functional.center_crop(image, self._cut(image.height, image.width))
        resized = functional.resize(image, self._resized(image.height, image.width), interpolation=filter_, antialias=True)
        return functional.pil_to_tensor(functional.center_crop(resized, list(self.preprocessing.size)))

    def frame(self, *, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of an image of this size that the view shows: (x1, y1, x2, y2) in [0, 1], x to the right, y down."""
        cut = self._cut(height, width)
        spans = []
        for whole, side, resized, seen in zip((height, width), cut, self._resized(*cut), self.preprocessing.size, strict=True):
            start, length = round((resized - seen) / 2) / resized, seen / resized  # of what the first cut left
            near = (round((whole - side) / 2) + start * side) / whole
            spans.append((near, near + length * side / whole))
        (y1, y2), (x1, x2) = spans
        return x1, y1, x2, y2

    def _cut(self, height: int, width: int) -> list[int]:
        """Height and width of the middle that is resized: all of the image unless it is very long."""
        if self.preprocessing.resize == "squash":
            return [height, width]
        longest = _LONGEST_SIDES * min(height, width) * max(self.preprocessing.size) // min(self.preprocessing.size)
        return [min(height, longest), min(width, longest)]

    def _resized(self, height: int, width: int) -> list[int]:
        """Height and width of the resized image, by timm's rounding."""
        to_height, to_width = (math.floor(side / self.preprocessing.crop) for side in self.preprocessing.size)
        if self.preprocessing.resize == "squash":
            return [to_height, to_width]
        if to_height == to_width:
            return [max(to_height, int(to_height * height / width)), max(to_width, int(to_width * width / height))]
        ratio = min(height / to_height, width / to_width)
        return [round(height / ratio), round(width / ratio)]


evaluation_view = EvaluationView


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
