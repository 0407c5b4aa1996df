"""RoIs gliding from the initial grid through the focusing iterations: the frames as data, and as a .gif, .webp or .mp4."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.figures.colours import token_colours
from sparseformers.figures.data import FocusPicture, inside_frame, inside_rois
from sparseformers.figures.figure import check_suffix, replacing_figure
from sparseformers.figures.layout import LONGEST_SIDE
from sparseformers.figures.panels import draw_photograph, draw_rois
from sparseformers.figures.sheet import check_count, open_sheet
from sparseformers.figures.stages import iteration_name
from sparseformers.rois import centre_and_size, from_centre_and_size

Frame = npt.NDArray[np.uint8]
"""H x W x 3, red-green-blue."""

FRAMES_PER_MOVE = 10
"""From one stage to the next."""
MOVING, PAUSE, LAST_PAUSE = 0.08, 0.9, 2.0
"""Seconds that a frame is shown: on the way, at a stage, at the last one."""
SMALLEST_SIZE = 1e-6
"""Of a RoI, in the logarithm of its size."""
FRAME_RATE = 25
"""Frames a second of an .mp4, in which a frame that stays longer is repeated."""
WEBP_QUALITY = 70
"""Of 100."""


@dataclass(frozen=True, eq=False)
class Glide:
    """Where the RoIs are in each frame of an animation."""

    rois: Tensor
    """T x N x 4; at each stage exactly the student's."""
    stages: tuple[int, ...]
    """For each frame, the stage that it shows or is on the way to."""
    seconds: tuple[float, ...]
    """For each frame, how long it is shown."""


def glide(rois: Tensor, *, frames_per_move: int = FRAMES_PER_MOVE) -> Glide:
    """Interpolates RoIs from stage to stage, starting and ending each move slowly, with a pause at each stage.

    Centres move on straight lines, and sizes change by equal factors in equal steps, as the network's adjustments scale them.

    Args:
        rois: S x N x 4, the RoIs at the start and after each iteration.
        frames_per_move: from one stage to the next, at least 1.

    Returns:
        T = 1 + (S-1) * frames_per_move frames.

    Raises:
        ConfigError: if there is one stage only: then nothing moves.
        ValueError: for less than one frame per move.
    """
    if frames_per_move < 1:
        raise ValueError(f"a move needs at least one frame, not {frames_per_move}")
    if len(rois) < 2:
        raise ConfigError("The RoIs of this model stay where they are: there is nothing to animate.", "Draw a figure instead.")
    centres, sizes = centre_and_size(rois)
    log_sizes = sizes.clamp_min(SMALLEST_SIZE).log()
    frames, stages, seconds = [rois[0].float()], [0], [PAUSE]
    for stage in range(1, len(rois)):
        for step in range(1, frames_per_move):
            share = eased(step / frames_per_move)
            centre, log_size = (torch.lerp(part[stage - 1], part[stage], share) for part in (centres, log_sizes))
            frames.append(from_centre_and_size(centre, log_size.exp()))
        frames.append(rois[stage].float())
        stages += [stage] * frames_per_move
        seconds += [*[MOVING] * (frames_per_move - 1), PAUSE]
    seconds[-1] = LAST_PAUSE
    return Glide(torch.stack(frames), tuple(stages), tuple(seconds))


def eased(share: float) -> float:
    """How far a move has come after a share of its time: slow at both ends (3 t² - 2 t³)."""
    return share * share * (3 - 2 * share)


def draw_frames(
    pictures: Sequence[FocusPicture],
    *,
    side: int = 320,
    columns: int | None = None,
    frames_per_move: int = FRAMES_PER_MOVE,
    on_frame: Callable[[], None] = lambda: None,
) -> Iterator[Frame]:
    """Draws the frames of an animation one after the other, with the name of the stage above the photographs.

    Args:
        pictures: 1 to 64, all of the same student.
        side: pixels along the longer side of a photograph.
        columns: photographs side by side; by default as many as make the frame about square.
        frames_per_move: as for :func:`glide`.
        on_frame: told of each frame that is taken.

    Raises:
        ConfigError: for no picture or more than 64, or if nothing moves.
        ValueError: if the pictures differ in their numbers of stages or tokens.
    """
    check_count(len(pictures))
    if any(picture.rois.shape != pictures[0].rois.shape for picture in pictures):
        raise ValueError("the pictures of an animation must have the same numbers of stages and tokens")
    glides = [glide(picture.rois, frames_per_move=frames_per_move) for picture in pictures]
    for frame in range(len(glides[0].stages)):
        yield _draw_frame(pictures, glides, frame, side=side, columns=columns)
        on_frame()


def _draw_frame(
    pictures: Sequence[FocusPicture], glides: Sequence[Glide], frame: int, *, side: int, columns: int | None
) -> Frame:
    """One frame; each is drawn anew, so that no frame depends on another."""
    images, titles = [picture.image for picture in pictures], [picture.title for picture in pictures]
    heading = iteration_name(glides[0].stages[frame])
    figure, rows = open_sheet(images, titles, [heading], columns=columns)
    colours = token_colours(pictures[0].rois.shape[1])
    for picture, (axes,), gliding in zip(pictures, rows, glides, strict=True):
        height, width = picture.image.shape[-2:]
        rois = gliding.rois[frame]
        bright = inside_frame(picture, height=height, width=width) * inside_rois(rois, height=height, width=width)
        draw_photograph(axes, picture.image, bright)
        draw_rois(axes, rois, colours, width=width, height=height)
    figure.set_dpi(side / LONGEST_SIDE)
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # Video codecs halve the resolution of colours, so both sides have to be even.
    return np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])


def save_animation(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    """Writes an animation that runs again and again, whole or not at all.

    Args:
        frames: H x W x 3, all of one size with even sides.
        seconds: how long each of them is shown.
        path: with the suffix .gif, .webp or .mp4; missing folders are made, an old file is replaced.

    Raises:
        ConfigError: for another suffix.
        MissingExtraError: for .mp4 where PyAV is not installed.
        RunError: if the file cannot be written.
    """
    path = Path(path)
    check_animation(path)
    with replacing_figure(path) as temporary:
        WRITERS[path.suffix.lower()](frames, seconds, temporary)


def check_animation(path: Path) -> None:
    """Raises what :func:`save_animation` would for a suffix, or for a library that it asks for."""
    check_suffix(path, WRITERS)
    if path.suffix.lower() == ".mp4" and importlib.util.find_spec("av") is None:
        raise MissingExtraError.for_package("av", "video")


def _write_gif(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    # One palette for all frames and no dithering: what does not move stays the same, and is stored once.
    sample = Image.fromarray(np.concatenate([np.asarray(image) for image in images[:: max(1, len(images) // 6)]]))
    palette = sample.quantize(256, dither=Image.Dither.NONE)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    first.save(path, format="GIF", save_all=True, append_images=others, duration=_milliseconds(seconds), loop=0, optimize=True)


def _write_webp(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(
        path,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=_milliseconds(seconds),
        loop=0,
        quality=WEBP_QUALITY,
        method=4,
    )


def _write_mp4(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    """H.264, which every browser plays; a frame that stays longer is repeated, which costs next to nothing."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAME_RATE), options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        for number, (pixels, shown) in enumerate(zip(frames, seconds, strict=True)):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            for _ in range(round(shown * FRAME_RATE)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _milliseconds(seconds: Sequence[float]) -> list[int]:
    return [round(1000 * shown) for shown in seconds]


WRITERS: Mapping[str, Callable[[Iterable[Frame], Sequence[float], Path], None]] = {
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".mp4": _write_mp4,
}
"""What writes an animation, by the suffix of its file."""
