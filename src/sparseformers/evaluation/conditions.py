"""Conditions that a student was not trained in: how a photograph is changed before student and teacher see it.

All randomness comes from torch's global generator, which :class:`~sparseformers.data.ImageViews` seeds for each image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, derived_seed, evaluation_view, read_image

SIZES = (160, 192, 288, 448)  # sides in pixels of the square images that a student is tried on beside the teacher's own size
GREY = 0.5
BACKGROUND_BLUR = 0.05  # blur of a background, as a share of the side: its colours stay, its objects do not

ImageView = Callable[[Image.Image], Tensor]  # a picklable, hashable function of an RGB image that gives 3 x H x W in [0, 1]


@dataclass(frozen=True)
class Condition:
    """Views of one photograph that student and teacher are shown."""

    name: str
    student: ImageView
    teacher: ImageView  # the teacher's, always at its own size: mostly the same one

    @classmethod
    def of_both(cls, name: str, view: ImageView) -> Condition:
        return cls(name, view, view)


@dataclass(frozen=True)
class ChangedView:
    """A view with something done to it: ``change`` takes 3 x H x W in [0, 1] to the same."""

    view: ImageView
    change: Callable[[Tensor], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        return self.change(self.view(image)).clamp(0, 1)


@dataclass(frozen=True)
class SmallView:
    """The teacher's view shrunk and set at a random place of a larger image: a small object."""

    preprocessing: PreprocessingConfig
    parts: int  # the photograph takes 1 / parts of the side
    backgrounds: tuple[Path, ...] = ()  # photographs to draw a background from, which is blurred; none for plain grey

    def __call__(self, image: Image.Image) -> Tensor:
        (top, left), (height, width), canvas = self._place(torch.rand(2)), self._inner_size(), self._background()
        inner = evaluation_view(dataclasses.replace(self.preprocessing, size=(height, width)))
        canvas[:, top : top + height, left : left + width] = inner(image)
        return canvas

    def object_box(self, seed: int, index: int) -> tuple[float, float, float, float]:
        """The place (x1, y1, x2, y2) in [0, 1] of the photograph in view ``index``, first epoch, of the views of that seed."""
        generator = torch.Generator().manual_seed(derived_seed(seed, 0, index))
        top, left = self._place(torch.rand(2, generator=generator))
        (height, width), (rows, columns) = self._inner_size(), self.preprocessing.size
        return left / columns, top / rows, (left + width) / columns, (top + height) / rows

    def _inner_size(self) -> tuple[int, int]:
        height, width = self.preprocessing.size
        return max(1, round(height / self.parts)), max(1, round(width / self.parts))

    def _place(self, drawn: Tensor) -> tuple[int, int]:
        """Top and left in pixels, of two numbers in [0, 1)."""
        free = [whole - part + 1 for whole, part in zip(self.preprocessing.size, self._inner_size(), strict=True)]
        return int(drawn[0] * free[0]), int(drawn[1] * free[1])

    def _background(self) -> Tensor:
        plain = torch.full((3, *self.preprocessing.size), GREY)
        if not self.backgrounds:
            return plain
        path = self.backgrounds[int(torch.randint(len(self.backgrounds), ()))]
        try:
            scene = evaluation_view(self.preprocessing)(read_image(path, at_least=max(self.preprocessing.size)))
        except UnreadableImageError:
            return plain
        return blurred(scene, BACKGROUND_BLUR)


def blurred(image: Tensor, share: float) -> Tensor:
    """The image 3 x H x W under a Gaussian blur, whose standard deviation is given as a share of the shorter side."""
    deviation = share * min(image.shape[-2:])
    return functional.gaussian_blur(image, kernel_size=[2 * math.ceil(2.5 * deviation) + 1] * 2, sigma=[deviation] * 2)


def compressed(image: Tensor, quality: int) -> Tensor:
    """The image 3 x H x W in [0, 1] after JPEG compression."""
    file = BytesIO()
    # By Pillow: torchvision's own coder is not in every build of it.
    functional.to_pil_image(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as coded:
        return functional.to_dtype(functional.pil_to_tensor(coded), torch.float32, scale=True)


def shift_conditions(preprocessing: PreprocessingConfig, backgrounds: Sequence[Path]) -> list[Condition]:
    """The clean condition, and the others that a student is tried in, each in two strengths.

    - Blur (in shares of the side), noise (in [0, 1]), JPEG quality, brightness and contrast, all of the teacher's own view.
    - A tighter central crop, in shares of the side of the teacher's own.
    - Small objects: the teacher's view at 1/2 and 1/3 of the side, on grey or on a blurred photograph of ``backgrounds``.
    - The student at other sizes, compared with the teacher's answer to the clean image.
    - The student on images of 4:3 and 3:4 of the same area; the teacher sees that part squashed to its own square.
    """
    clean = evaluation_view(preprocessing)
    conditions = [Condition.of_both("clean", clean)]
    conditions += [Condition.of_both(name, ChangedView(clean, change)) for name, change in CHANGES.items()]
    for percent in (70, 50):
        tighter = dataclasses.replace(preprocessing, crop=preprocessing.crop * percent / 100)
        conditions.append(Condition.of_both(f"central {percent}%", evaluation_view(tighter)))
    scenes: dict[str, tuple[Path, ...]] = {"on grey": (), **({"in a scene": tuple(backgrounds)} if backgrounds else {})}
    for where, paths in scenes.items():
        small = [(f"1/{parts} {where}", SmallView(preprocessing, parts, paths)) for parts in (2, 3)]
        conditions += [Condition.of_both(name, view) for name, view in small]
    for side in SIZES:
        if (side, side) != preprocessing.size:
            sized = evaluation_view(dataclasses.replace(preprocessing, size=(side, side)))
            conditions.append(Condition(f"{side} px", sized, clean))
    return [*conditions, _of_shape(preprocessing, "4:3", 4 / 3), _of_shape(preprocessing, "3:4", 3 / 4)]


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blur 1%": partial(blurred, share=0.01),
    "blur 2%": partial(blurred, share=0.02),
    "noise 0.1": partial(functional.gaussian_noise, sigma=0.1),
    "noise 0.25": partial(functional.gaussian_noise, sigma=0.25),
    "JPEG 30": partial(compressed, quality=30),
    "JPEG 10": partial(compressed, quality=10),
    "brightness 60%": partial(functional.adjust_brightness, brightness_factor=0.6),
    "brightness 30%": partial(functional.adjust_brightness, brightness_factor=0.3),
    "contrast 50%": partial(functional.adjust_contrast, contrast_factor=0.5),
    "contrast 25%": partial(functional.adjust_contrast, contrast_factor=0.25),
}  # of the teacher's own view: functions of an image 3 x H x W in [0, 1]


def _of_shape(preprocessing: PreprocessingConfig, name: str, ratio: float) -> Condition:
    """The student on an image of the width ``ratio`` times its height, the teacher on the same part squashed."""
    height, width = preprocessing.size
    size = (round(height / math.sqrt(ratio)), round(width * math.sqrt(ratio)))
    part = dataclasses.replace(preprocessing, size=size, crop=1.0, resize="shorter")
    # From twice the pixels, so that the squashed image is no softer along one side.
    finer = dataclasses.replace(part, size=(2 * size[0], 2 * size[1]))
    squash = partial(functional.resize, size=list(preprocessing.size), antialias=True)
    return Condition(name, evaluation_view(part), ChangedView(evaluation_view(finer), squash))
