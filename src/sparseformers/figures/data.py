"""What there is to draw: where a student looks at an image, as plain tensors.

Legend: S stages, N latent tokens, P sampling points per token; RoIs are (x1, y1, x2, y2) and points (x, y), in [0, 1]
of the image (or outside of it), x to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseformers.model.sparseformer import SparseFormer
from sparseformers.modes import evaluation_mode
from sparseformers.rois import centre_and_size, neighbourhoods

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in [0, 1] of an image."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""All of an image."""

EDGE = 1e-6
"""Of an image: next to nothing."""

SEEN_AT_A_POINT = 0.95
"""Coverage right at a lone sampling point."""


@dataclass(frozen=True, eq=False)
class FocusPicture:
    """An image with where each token looked at each stage.

    Raises:
        ValueError: if the shapes are other than said here.
    """

    image: Tensor
    """3 x H x W in [0, 1], red-green-blue, float32 on the processor: the picture as it is drawn."""
    rois: Tensor
    """S x N x 4, the RoIs at the start and after each focusing iteration."""
    points: tuple[Tensor, ...]
    """One N x P x 2 per look at the image, in their order; the last is that of the final RoIs."""
    title: str
    """What to call the image, such as its file name."""
    frame: Box = WHOLE
    """The part of ``image`` that the student was given, (x1, y1, x2, y2) in [0, 1] of the image."""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3:
            raise ValueError(f"a picture must be 3 x H x W, not {_shape(self.image)}")
        if self.rois.ndim != 3 or self.rois.shape[-1] != 4:
            raise ValueError(f"the RoIs of a picture must be S x N x 4, not {_shape(self.rois)}")
        for points in self.points:
            if points.ndim != 3 or points.shape[0] != self.rois.shape[1] or points.shape[-1] != 2:
                raise ValueError(f"the points of a look must be {self.rois.shape[1]} x P x 2, not {_shape(points)}")
        if not self.points:
            raise ValueError("a picture needs the sampling points of at least one look")


def trace_focus(student: SparseFormer, images: Tensor, titles: Sequence[str]) -> list[FocusPicture]:
    """Looks at images with a student and notes where it looked.

    The student runs in evaluation mode without gradients; each of its modules is back in its own mode afterwards.

    Args:
        student: any SparseFormer, on any device.
        images: B x 3 x H x W in [0, 1], red-green-blue.
        titles: one per image.

    Returns:
        One picture per image. To draw on a finer version of an image, ``dataclasses.replace(picture, image=finer)``.

    Raises:
        ValueError: if titles and images differ in number, or the images are none that a SparseFormer takes.
    """
    if len(titles) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(titles)} titles")
    device = next(student.parameters()).device
    with evaluation_mode(student), torch.inference_mode():
        on_device = images.to(device)
        traced_rois = student(on_device).rois
        traced_points = student.sampling_points(on_device)
    # Cloned outside of inference mode, so that callers get ordinary tensors.
    rois, points = _on_processor(traced_rois), [_on_processor(look) for look in traced_points]
    drawn = _on_processor(images)
    return [
        FocusPicture(image=drawn[index], rois=rois[index], points=tuple(look[index] for look in points), title=title)
        for index, title in enumerate(titles)
    ]


def placed(picture: FocusPicture, image: Tensor, frame: Box) -> FocusPicture:
    """What was seen of a part of an image, on the whole of it.

    Args:
        picture: of the part.
        image: 3 x H x W in [0, 1], the whole image.
        frame: where the part lies in it.

    Returns:
        The same RoIs and points in the coordinates of ``image``.
    """
    x1, y1, x2, y2 = frame
    corner, sides = torch.tensor([x1, y1]), torch.tensor([x2 - x1, y2 - y1])
    return FocusPicture(
        image=image,
        rois=corner.repeat(2) + picture.rois * sides.repeat(2),
        points=tuple(corner + look * sides for look in picture.points),
        title=picture.title,
        frame=frame,
    )


def coverage(picture: FocusPicture, *, height: int, width: int) -> Tensor:
    """How strongly each pixel is looked at, by the sampling points of the last look.

    Every point sees a Gaussian neighbourhood whose radius is half the spacing of its token's points (the RoI's side over
    the square root of P, per axis); neighbourhoods add up and saturate. A point outside of what the student was given sees
    its border, as in the network. Points that are not finite see nothing.

    Args:
        picture: with N x P x 2 points in its last look.
        height: H of the result, in pixels.
        width: W of the result, in pixels.

    Returns:
        H x W in [0, 1], float32: 0 where nothing looks, 0.95 right at a lone point, nearly 1 where several look.
    """
    points = picture.points[-1].float()
    radius = neighbourhoods(picture.rois[-1], points.shape[-2]).unsqueeze(-2).expand_as(points)  # N x P x 2
    x1, y1, x2, y2 = picture.frame
    x2, y2 = x2 - EDGE, y2 - EDGE  # the pixel before the far border, not the one behind it
    across = _neighbourhood(points[..., 0].clamp(x1, x2), radius[..., 0], width)  # NP x W
    down = _neighbourhood(points[..., 1].clamp(y1, y2), radius[..., 1], height)  # NP x H
    looks = down.T @ across
    return (1 - (looks * math.log(1 - SEEN_AT_A_POINT)).exp()) * inside_frame(picture, height=height, width=width)


def inside_frame(picture: FocusPicture, *, height: int, width: int) -> Tensor:
    """Which of H x W pixels the student was given: 1.0 there and 0.0 elsewhere, float32."""
    return inside_rois(torch.tensor([picture.frame]), height=height, width=width)


def inside_rois(rois: Tensor, *, height: int, width: int) -> Tensor:
    """Which pixels lie inside at least one RoI.

    Args:
        rois: N x 4.
        height: H of the result, in pixels.
        width: W of the result, in pixels.

    Returns:
        H x W, 1.0 inside and 0.0 outside, float32.
    """
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
    """Where the centres of that many pixels lie in [0, 1]."""
    return (torch.arange(pixels, dtype=torch.float32) + 0.5) / pixels


def _on_processor(tensor: Tensor) -> Tensor:
    """An own float32 copy in main memory."""
    return tensor.detach().to("cpu", torch.float32).clone()


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape)
