"""Data of figures: RoIs and sampling points of a student on an image or a photograph, as plain tensors.

Legend: S stages, N latent tokens, P sampling points per token; RoIs are (x1, y1, x2, y2) and points (x, y), in [0, 1]
of the image (or outside of it), x to the right, y down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from sparseformers.config import PreprocessingConfig
from sparseformers.data import evaluation_view
from sparseformers.data.loading import from_bytes
from sparseformers.model.sparseformer import SMALLEST_SIDE, SparseFormer
from sparseformers.modes import evaluation_mode
from sparseformers.rois import centre_and_size, neighbourhoods

Box = tuple[float, float, float, float]  # (x1, y1, x2, y2) in [0, 1] of an image
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)  # all of an image
# ``whole``: the student is given the whole photograph in its own shape, at as many pixels as it was made for. ``own``: what it
# sees when it embeds or is evaluated, often a central crop; what lies outside of it is drawn dark.
ViewKind = Literal["whole", "own"]
TitledImage = tuple[str, Image.Image]  # a title and a decoded RGB image of any size
Photographs = Iterable[TitledImage]

LONGEST_DRAWN = 640  # pixels along the longer side of a photograph as it is drawn, at most: more than a panel has
EDGE = 1e-6  # a share of an image, next to nothing
COVERED_AT_A_POINT = 0.95  # coverage right at a lone sampling point


@dataclass(frozen=True, eq=False)
class RoIPicture:
    """An image with the RoIs and sampling points of each token at each stage; raises ValueError for other shapes."""

    image: Tensor  # 3 x H x W in [0, 1], red-green-blue, float32 on the processor: the picture as it is drawn
    rois: Tensor  # S x N x 4, the RoIs at the start and after each focusing iteration
    points: tuple[Tensor, ...]  # N x P x 2 for each of the last stages, in their order; the last is that of the final RoIs
    title: str
    frame: Box = WHOLE  # the part of ``image`` that the student was given, (x1, y1, x2, y2) in [0, 1] of the image
    attention_map: Tensor | None = None  # h x w of the frame, of sum 1: the map that RoIs were split by, where they are split

    def __post_init__(self) -> None:
        check_picture(self.image)
        if self.rois.ndim != 3 or self.rois.shape[-1] != 4:
            raise ValueError(f"the RoIs of a picture must be S x N x 4, not {tuple(self.rois.shape)}")
        for points in self.points:
            if points.ndim != 3 or points.shape[0] != self.rois.shape[1] or points.shape[-1] != 2:
                raise ValueError(f"the points of a stage must be {self.rois.shape[1]} x P x 2, not {tuple(points.shape)}")
        if not self.points:
            raise ValueError("a picture needs the sampling points of at least one stage")

    @property
    def stage_names(self) -> tuple[str, ...]:
        """``start`` for the RoIs before any change, then ``iteration 1`` ..., or ``split 1`` ... and ``leaves``."""
        last = len(self.rois) - 1
        if self.attention_map is None:
            return ("start", *(f"iteration {stage}" for stage in range(1, last + 1)))
        return ("start", *(f"split {stage}" for stage in range(1, last)), "leaves")

    def placed(self, image: Tensor, frame: Box) -> RoIPicture:
        """The same RoIs and points on the whole of an image (3 x H x W in [0, 1]), of which this one shows the part ``frame``."""
        x1, y1, x2, y2 = frame
        corner, sides = torch.tensor([x1, y1]), torch.tensor([x2 - x1, y2 - y1])
        points = tuple(corner + each * sides for each in self.points)
        rois = corner.repeat(2) + self.rois * sides.repeat(2)
        return dataclasses.replace(self, image=image, rois=rois, points=points, frame=frame)


def check_picture(image: Tensor) -> None:
    """Raises ValueError unless a picture is 3 x H x W."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a picture must be 3 x H x W, not {tuple(image.shape)}")


def trace_rois(student: SparseFormer, images: Tensor, titles: Sequence[str]) -> list[RoIPicture]:
    """Runs a student on images (B x 3 x H x W in [0, 1]), one title each, and notes its RoIs and sampling points.

    Its modules are back in their own mode afterwards. Raises ValueError if titles and images differ in number, or the images are
    none that a SparseFormer takes.
    """
    if len(titles) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(titles)} titles")
    device = next(student.parameters()).device
    with evaluation_mode(student), torch.inference_mode():
        front = student.run_front(images.to(device))

    def ordinary(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", torch.float32).clone()  # a copy, made outside of inference mode

    drawn, rois, points = ordinary(images), ordinary(front.rois), [ordinary(each) for each in front.points]
    maps = [None] * len(titles) if front.attention_map is None else list(ordinary(front.attention_map))
    return [
        RoIPicture(drawn[index], rois[index], tuple(each[index] for each in points), title, attention_map=maps[index])
        for index, title in enumerate(titles)
    ]


def trace_photographs(
    student: SparseFormer, photographs: Photographs, *, view: ViewKind = "whole", longest: int = LONGEST_DRAWN
) -> list[RoIPicture]:
    """As :func:`trace_rois`, for photographs of any shapes, taken one after the other and drawn in their own shape."""
    # Each has its own shape: there is no batch.
    return [trace_photograph(student, image, drawn_pixels(image, longest), title, view=view) for title, image in photographs]


def trace_photograph(student: SparseFormer, photograph: Image.Image, drawn: Tensor, title: str, *, view: ViewKind) -> RoIPicture:
    """One photograph, already made ready for drawing; as :func:`trace_photographs`."""
    seen = network_input(photograph, student.config.preprocessing, view)
    (picture,) = trace_rois(student, seen.pixels.unsqueeze(0), [title])
    return picture.placed(drawn, seen.frame)


class NetworkInput(NamedTuple):
    """A photograph as a network is given it."""

    pixels: Tensor  # 3 x H x W in [0, 1]
    frame: Box  # its place in the photograph


def network_input(photograph: Image.Image, preprocessing: PreprocessingConfig, kind: ViewKind) -> NetworkInput:
    """A photograph as a network of that preprocessing is given it."""
    if kind == "own":
        own = evaluation_view(preprocessing)
        return NetworkInput(own(photograph), own.frame(height=photograph.height, width=photograph.width))
    size = whole_size(photograph.height, photograph.width, preprocessing.size)
    # Squashed to its own shape, which changes nothing but its size.
    squashed = evaluation_view(dataclasses.replace(preprocessing, size=size, crop=1.0, resize="squash"))
    return NetworkInput(squashed(photograph), WHOLE)


def whole_size(height: int, width: int, made_for: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a photograph at as many pixels as a network was made for, each at least what a student takes."""
    scale = math.sqrt(made_for[0] * made_for[1] / (height * width))
    return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))


def drawn_pixels(photograph: Image.Image, longest: int = LONGEST_DRAWN) -> Tensor:
    """A photograph as it is drawn: 3 x H x W in [0, 1], no side longer than ``longest``, in its own aspect ratio."""
    shown = photograph.copy()
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return from_bytes(functional.pil_to_tensor(shown)).to(torch.float32)


def coverage(picture: RoIPicture, *, height: int, width: int) -> Tensor:
    """Coverage of each pixel by the final sampling points: H x W in [0, 1], float32.

    Every point covers a Gaussian neighbourhood whose radius is half the spacing of its token's points; neighbourhoods add up and
    saturate. A point outside of what the student was given covers its border, as in the network.
    """
    points = picture.points[-1].float()
    radius = neighbourhoods(picture.rois[-1], points.shape[-2]).unsqueeze(-2).expand_as(points)  # N x P x 2
    x1, y1, x2, y2 = picture.frame
    x2, y2 = x2 - EDGE, y2 - EDGE  # the pixel before the far border, not the one behind it
    across = _neighbourhood(points[..., 0].clamp(x1, x2), radius[..., 0], width)  # NP x W
    down = _neighbourhood(points[..., 1].clamp(y1, y2), radius[..., 1], height)  # NP x H
    summed = down.T @ across
    return (1 - (summed * math.log(1 - COVERED_AT_A_POINT)).exp()) * inside_frame(picture, height=height, width=width)


def inside_frame(picture: RoIPicture, *, height: int, width: int) -> Tensor:
    """Mask of the H x W pixels that the student was given: 1.0 there and 0.0 elsewhere, float32."""
    return inside_rois(torch.tensor([picture.frame]), height=height, width=width)


def inside_rois(rois: Tensor, *, height: int, width: int) -> Tensor:
    """Mask of the H x W pixels inside at least one RoI (N x 4): 1.0 inside and 0.0 outside, float32."""
    centre, size = centre_and_size(rois)
    across = (_pixel_centres(width) - centre[:, :1]).abs() <= size[:, :1] / 2  # N x W
    down = (_pixel_centres(height) - centre[:, 1:]).abs() <= size[:, 1:] / 2  # N x H
    return (down.float().T @ across.float() > 0).float()


def _neighbourhood(position: Tensor, radius: Tensor, pixels: int) -> Tensor:
    """Gaussians around N x P positions on one axis of the image -> NP x pixels, 1 at the pixel nearest to a position."""
    position = position.reshape(-1, 1)
    # On the nearest pixel's centre, or a small neighbourhood could fall between the pixels of a coarse result.
    position = ((position * pixels).floor().clamp_max(pixels - 1) + 0.5) / pixels
    distance = (_pixel_centres(pixels) - position) / radius.reshape(-1, 1)
    return (-0.5 * distance.square()).exp().nan_to_num(nan=0.0)


def _pixel_centres(pixels: int) -> Tensor:
    return (torch.arange(pixels, dtype=torch.float32) + 0.5) / pixels
