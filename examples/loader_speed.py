"""Does reading images keep up? The training loader beside a bare loop, in images a second, with the same number of processes.

The bare loop opens each file with Pillow, decodes all of it, and makes the same kind of view of it: nothing is checked, counted,
put into batches or sent to another process. Another one decodes large JPEGs at a half, a quarter or an eighth of their size, as
the loader does, and the last part says what that changes: the same regions of both decodings, as pixels (PSNR) and, with a
teacher, as embeddings. Loops take turns and the median of their turns counts, so that a busy machine slows all of them alike.

    python examples/loader_speed.py --data caltech101/train --image-size 112
    python examples/loader_speed.py --data caltech101/train --enlarge 2000 1500 --teacher bundled
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image

from sparseformers.data import ImageViews, SampleStream, batch_loader, find_images, read_image, training_view
from sparseformers.data.loading import BATCHES_AHEAD
from sparseformers.teachers import load_teacher

View = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """What to read, and how long."""

    data: Path
    """A folder of images."""
    image_size: int = 112
    """Side of the views in pixels."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Numbers of reading processes; 0 reads in the process itself."""
    batch_size: int = 32
    """Images of a batch."""
    seconds: float = 4.0
    """Length of a turn."""
    turns: int = 5
    """Turns of each loop."""
    enlarge: tuple[int, int] | None = None
    """Width and height in pixels of canvases full of the images, to read in their place: as large as a camera's photographs."""
    limit: int = 200
    """At most so many images are enlarged, and compared."""
    teacher: str | None = None
    """Compare this teacher's embeddings of both decodings, too; as for bootstrap."""
    json: bool = False
    """Print the figures as JSON."""


class Speed(NamedTuple):
    """Images a second with one number of processes: medians over the turns."""

    workers: int
    loader: float
    bare: float
    """Decoding files whole."""
    scaled: float
    """Decoding large JPEGs at a fraction of their size."""
    share: float
    """Median of loader / bare, turn by turn."""
    share_of_scaled: float
    """Median of loader / scaled, turn by turn."""


class Likeness(NamedTuple):
    """The same regions of images decoded whole and at a fraction: what that changes."""

    images: int
    scaled_down: int
    """Images of them that are decoded at a fraction at all; the figures are of these."""
    psnr_mean: float
    """In dB, of pixels in [0, 1]; infinite where no image is scaled down."""
    psnr_least: float
    cosine_mean: float | None
    """Of the teacher's embeddings, centred on their mean; None without a teacher."""
    cosine_least: float | None


class LoaderTurns:
    """The training loader, running on from turn to turn."""

    def __init__(self, paths: Sequence[Path], view: View, settings: Settings, workers: int) -> None:
        stream = SampleStream(len(paths), batch_size=settings.batch_size, seed=0, total=None)
        self.batches = iter(batch_loader(ImageViews(paths, view, seed=0), stream, workers=workers))
        self.ahead = 1 + workers * BATCHES_AHEAD

    def turn(self, seconds: float) -> float:
        """Images a second, without what lay ready when the turn began."""
        for _ in range(self.ahead):
            next(self.batches)
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            images += len(next(self.batches).images)
        return images / (time.perf_counter() - start)


def bare_turn(paths: Sequence[Path], view: View, seconds: float, workers: int, *, scaled: bool) -> float:
    """Images a second of as many bare loops at once."""
    if workers == 0:
        return bare_loop(paths, view, seconds, scaled)
    with multiprocessing.Pool(workers, torch.set_num_threads, (1,)) as pool:
        tasks = [(paths[worker::workers], view, seconds, scaled) for worker in range(workers)]
        return sum(pool.starmap(bare_loop, tasks))


def bare_loop(paths: Sequence[Path], view: View, seconds: float, scaled: bool) -> float:
    """Images a second of one process."""
    at_least: int = view.at_least  # type: ignore[attr-defined]
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist()  # in any order, as the loader does
    start, images = time.perf_counter(), 0
    for index in itertools.cycle(order):
        with Image.open(paths[index]) as image:
            if scaled:
                image.draft(None, (at_least, at_least))
            view(image.convert("RGB"))
        images += 1
        if time.perf_counter() - start >= seconds:
            break
    return images / (time.perf_counter() - start)


def measure_speed(paths: Sequence[Path], settings: Settings, workers: int) -> Speed:
    """The three loops in turn."""
    view = training_view((settings.image_size, settings.image_size), "default")
    turns = []
    for _ in range(settings.turns):
        # The loader is made anew, or its processes would read ahead in the turns of the others.
        loader = LoaderTurns(paths, view, settings, workers).turn(settings.seconds)
        whole, scaled = (bare_turn(paths, view, settings.seconds, workers, scaled=scaled) for scaled in (False, True))
        turns.append((loader, whole, scaled, loader / whole, loader / scaled))
    return Speed(workers, *(round(statistics.median(column), 3) for column in zip(*turns, strict=True)))


def enlarged(paths: Sequence[Path], size: tuple[int, int], folder: Path) -> list[Path]:
    """Canvases of ``size`` full of photographs, one begun with each of the images, as JPEGs of the usual quality."""
    made = []
    for number in range(len(paths)):
        canvas, place, row = Image.new("RGB", size), number, 0
        while row < size[1]:
            column, height = 0, 0
            while column < size[0]:
                image = read_image(paths[place % len(paths)])
                canvas.paste(image, (column, row))
                column, height, place = column + image.width, max(height, image.height), place + 1
            row += height
        made.append(folder / f"{number:05}.jpg")
        canvas.save(made[-1], quality=90)
    return made


def compare_decodings(paths: Sequence[Path], settings: Settings) -> Likeness:
    """The same random region of each image, decoded whole and as for training."""
    size, generator = settings.image_size, np.random.default_rng(0)
    at_least: int = training_view((size, size), "default").at_least  # type: ignore[attr-defined]
    pairs = []
    for path in paths:
        whole, part = read_image(path), read_image(path, at_least=at_least)
        if whole.size == part.size:
            continue
        side = math.sqrt(generator.uniform(0.25, 1.0))
        left, top = generator.uniform(0, 1 - side, 2)
        box = np.array([left, top, left + side, top + side])
        pairs.append([cut(image, box, size) for image in (whole, part)])
    if not pairs:
        return Likeness(len(paths), 0, math.inf, math.inf, None, None)
    whole_pixels, part_pixels = (torch.stack(column) for column in zip(*pairs, strict=True))
    psnr = -10 * (whole_pixels - part_pixels).square().mean(dim=(1, 2, 3)).clamp(min=1e-12).log10()
    cosine = teacher_cosine(whole_pixels, part_pixels, settings)
    return Likeness(
        len(paths),
        len(pairs),
        round(float(psnr.mean()), 2),
        round(float(psnr.min()), 2),
        None if cosine is None else round(float(cosine.mean()), 5),
        None if cosine is None else round(float(cosine.min()), 5),
    )


def cut(image: Image.Image, box: np.ndarray, size: int) -> torch.Tensor:
    """A region, in shares of the image's sides, as 3 x size x size in [0, 1]."""
    x1, y1, x2, y2 = box * np.array([image.width, image.height] * 2)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=(x1, y1, x2, y2)))
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


def teacher_cosine(whole: torch.Tensor, part: torch.Tensor, settings: Settings) -> torch.Tensor | None:
    """Centred cosine of the teacher's embeddings of both; None without a teacher."""
    if settings.teacher is None:
        return None
    teacher = load_teacher(settings.teacher, image_size=settings.image_size)
    with torch.inference_mode():
        of_whole, of_part = (
            torch.cat([teacher(some).embedding for some in images.split(settings.batch_size)]) for images in (whole, part)
        )
    mean = of_whole.mean(dim=0)
    return F.cosine_similarity(of_whole - mean, of_part - mean)


def report(speeds: Sequence[Speed], likeness: Likeness) -> Iterator[str]:
    """Lines for a person."""
    for speed in speeds:
        yield (
            f"{speed.workers} processes: loader {speed.loader:.1f} images/s, bare loop {speed.bare:.1f} "
            f"(loader has {speed.share:.2f} of it), with scaled decoding {speed.scaled:.1f} ({speed.share_of_scaled:.2f} of it)"
        )
    if likeness.scaled_down == 0:
        yield f"none of {likeness.images} images is large enough for scaled decoding"
        return
    yield (
        f"{likeness.scaled_down} of {likeness.images} images are decoded at a fraction of their size: "
        f"PSNR {likeness.psnr_mean:.1f} dB, {likeness.psnr_least:.1f} dB at the least"
    )
    if likeness.cosine_mean is not None:
        yield f"centred cosine of the teacher's embeddings: {likeness.cosine_mean:.4f}, {likeness.cosine_least:.4f} at the least"


def main(settings: Settings) -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    paths = find_images([settings.data])
    with tempfile.TemporaryDirectory() as folder:
        chosen = paths[:: max(1, -(-len(paths) // settings.limit))]
        if settings.enlarge is not None:
            paths = chosen = enlarged(chosen, settings.enlarge, Path(folder))
        speeds = [measure_speed(paths, settings, workers) for workers in settings.workers]
        likeness = compare_decodings(chosen, settings)
    if settings.json:
        print(
            json.dumps(
                {"settings": json_ready(settings), "speeds": [speed._asdict() for speed in speeds]}
                | {"decoding": likeness._asdict()},
                indent=2,
            )
        )
    else:
        print("\n".join(report(speeds, likeness)))


def json_ready(settings: Settings) -> dict[str, object]:
    """The settings as plain values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(settings).items()}


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
