"""Files of figures and animations, written whole or not at all; and the figure of how a training went. No pyplot, no display."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from sparseformers.errors import ConfigError, MissingExtraError, RunError
from sparseformers.figures.sheet import empty_figure
from sparseformers.files import replacing

FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}

Frame = npt.NDArray[np.uint8]  # H x W x 3, red-green-blue
FRAME_RATE = 25  # frames a second of an .mp4, in which a frame that stays longer is repeated
WEBP_QUALITY = 70  # from 0 to 100


def save_figure(figure: Figure, path: Path, *, dpi: float = 150) -> None:
    """Writes a figure whole or not at all; raises ConfigError for an unknown suffix, and RunError if it cannot be written."""
    path = Path(path)
    check_suffix(path, FORMATS)
    with replacing_figure(path) as temporary:
        figure.savefig(temporary, format=FORMATS[path.suffix.lower()], dpi=dpi)


@contextmanager
def replacing_figure(path: Path) -> Iterator[Path]:
    """A temporary path to write a figure to, renamed onto ``path`` at the end; raises RunError if it cannot be written."""
    try:
        with replacing(path) as temporary:
            yield temporary
    # Pillow says ValueError where a picture has more pixels than its format can hold.
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        problem = f"The figure '{path}' cannot be written ({reason})."
        raise RunError(problem, "Choose a place where you may write, or another format for a very large figure.") from error


def check_target(path: Path, suffixes: Iterable[str] = FORMATS) -> None:
    """Finds out whether a file could be written; ConfigError for another suffix than these, RunError if it could not."""
    check_suffix(path, suffixes)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"The file '{path}' cannot be written ({error.strerror or error})."
        raise RunError(problem, "Choose a place where you may write.") from error


def check_suffix(path: Path, suffixes: Iterable[str]) -> None:
    """Raises ConfigError unless a file has one of these suffixes, in small or capital letters."""
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"Figures cannot be written as '{path.suffix or path.name}'.", f"Use one of: {', '.join(suffixes)}.")


def save_animation(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    """Writes an endless animation of frames with even sides, each for its ``seconds``; raises as :func:`check_animation`."""
    path = Path(path)
    check_animation(path)
    with replacing_figure(path) as temporary:
        WRITERS[path.suffix.lower()](frames, seconds, temporary)


def check_animation(path: Path) -> None:
    """Raises what :func:`save_animation` would for a suffix, or for a library that it asks for."""
    check_suffix(path, WRITERS)
    if path.suffix.lower() == ".mp4":
        MissingExtraError.require("av", "video")


def _write_gif(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    # One palette for all frames and no dithering: what does not move stays the same, and is stored once.
    sample = Image.fromarray(np.concatenate([np.asarray(image) for image in images[:: max(1, len(images) // 6)]]))
    palette = sample.quantize(256, dither=Image.Dither.NONE)
    quantised = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    _save_all(quantised, seconds, path, format="GIF", optimize=True)


def _write_webp(frames: Iterable[Frame], seconds: Sequence[float], path: Path) -> None:
    _save_all([Image.fromarray(frame) for frame in frames], seconds, path, format="WEBP", quality=WEBP_QUALITY, method=4)


def _save_all(images: Sequence[Image.Image], seconds: Sequence[float], path: Path, **options: Any) -> None:
    milliseconds = [round(1000 * shown) for shown in seconds]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, **options)


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


WRITERS = {".gif": _write_gif, ".webp": _write_webp, ".mp4": _write_mp4}  # functions that write an animation, by suffix


CURVES = (
    ("loss", "Loss", "#0072b2"),
    ("centred_cosine", "Held-out centred cosine", "#d55e00"),
    ("map_divergence", "Held-out map: divergence in nats", "#009e73"),
    ("map_overlap", "Held-out map: heaviest parts found", "#cc79a7"),
)  # keys of metrics.jsonl, titles and colours; the last two where the student has a map


def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, centred cosine and, where there is one, the map over the images seen; ``history`` is lines of ``metrics.jsonl``."""
    rows = 2 if any("map_overlap" in record for record in history) else 1
    figure = empty_figure(8.4, 3.0 * rows)
    for place, (key, title, colour) in enumerate(CURVES[: 2 * rows]):
        left, bottom = (0.07, 0.565)[place % 2], (rows - 1 - place // 2 + 0.16) / rows
        axes = figure.add_axes((left, bottom, 0.4, 0.72 / rows))
        known = [entry for entry in history if entry.get("samples") is not None and entry.get(key) is not None]
        pairs = [(float(entry["samples"]), float(entry[key])) for entry in known]
        seen, values = ([pair[axis] for pair in pairs if all(map(math.isfinite, pair))] for axis in (0, 1))
        _draw_curve(axes, seen, values, title=title, colour=colour, smooth=key == "loss")
        if key == "centred_cosine":
            axes.axhline(0, color="#909090", linewidth=0.8, linestyle=":")
    return figure


def _draw_curve(axes: Axes, seen: list[float], values: list[float], *, title: str, colour: str, smooth: bool) -> None:
    """A line over the training images seen; a noisy one is faint, with its running mean on top."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("training images seen", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if not values:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", va="center", color="#707070")
        return
    window = len(values) // 20
    noisy = smooth and window >= 2
    axes.plot(seen, values, color=colour, linewidth=0.8 if noisy else 1.6, alpha=0.35 if noisy else 1.0)
    if noisy:
        window += 1 - window % 2  # an odd one, for a mean without lag
        mean = np.convolve(values, np.full(window, 1 / window), mode="valid").tolist()
        seen, values = seen[window // 2 : -(window // 2)], mean
        axes.plot(seen, values, color=colour, linewidth=1.6)
    axes.plot(seen[-1:], values[-1:], "o", color=colour, markersize=4)
    axes.annotate(f"{values[-1]:.3f}", (seen[-1], values[-1]), xytext=(0, 6), textcoords="offset points", ha="right", fontsize=8)
