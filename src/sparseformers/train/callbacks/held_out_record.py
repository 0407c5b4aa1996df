"""The record of a run's held-out images: a folder of small files.

``cosines.jsonl`` has a line for each view as of the newest measurement. ``rois-SAMPLES.safetensors`` has the RoIs on the first
images: at the first measurement in each eighth of the training, and at the newest one. ``images.safetensors`` has these images,
and ``worst.safetensors`` those that ended farthest from the teacher: nobody needs the data, which may have been moved, to see how
a run went. Every file is a function of the measurement alone, so a run that is killed and resumed ends with the same ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparseformers.data import to_bytes
from sparseformers.files import replacing, synchronise
from sparseformers.saving import write_tensors
from sparseformers.train.callbacks import Callback
from sparseformers.train.held_out import FollowedRoIs, HeldOut, Measurement
from sparseformers.train.state import TrainingState

FOLLOWED_IMAGES = 4  # held-out images of which the RoIs are kept
PARTS = 8  # of the training, of each of which the first measurement's RoIs are kept
MOST_POINTS = 16_384  # N x P, sampling points of an image that are kept
WORST_IMAGES = 12  # pictures of those that ended farthest from the teacher
PICTURE_SIDE = 224  # longest side of a picture that is kept, in pixels


@dataclass(frozen=True)
class ViewCosine:
    """The cosine between student and teacher on one view of a held-out image."""

    samples: int  # images seen when it was measured
    index: int  # of the view among those of all held-out images
    name: str  # of the image: its path, or SHARD:MEMBER
    view: int | None  # of several of the image, from 0; None where there is but one
    cosine: float  # in [-1, 1]
    centred_cosine: float  # in [-1, 1], as seen from the teacher's mean embedding


class Moment(NamedTuple):
    """The student's RoIs on the first held-out images at one moment of the training."""

    samples: int  # images seen by then
    progress: float  # share of the budget spent by then, in [0, 1]
    rois: Tensor  # B x S x N x 4, float32
    points: Tensor  # B x N x P x 2, float32: of the last stage
    maps: tuple[Tensor, Tensor] | None = None  # B x h x w, float32 each: the student's and the teacher's, where there are any


class Picture(NamedTuple):
    """A small picture of a held-out image, as the student sees it."""

    title: str  # the image's file name; for one of the worst, the index of its view
    image: Tensor  # 3 x H x W bytes


class HeldOutRecord(Callback):
    """The files of the record in a folder, written by the main process alone; a callback that keeps each measurement."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._cosines = folder, folder / "cosines.jsonl"
        self._images, self._worst = folder / "images.safetensors", folder / "worst.safetensors"

    def on_measured(self, state: TrainingState, held_out: HeldOut, measurement: Measurement) -> None:
        """Keeps a measurement; raises OSError if it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if measurement.followed is not None:
            self._write_rois(measurement.followed, state.samples, state.progress)
            if not self._images.is_file():
                shown = to_bytes(held_out.focus_images[:FOLLOWED_IMAGES].cpu())
                write_pictures(self._images, list(map(Picture, held_out.focus_names, shown)))
        columns = (each.tolist() for each in (measurement.indices, measurement.cosine, measurement.centred_cosine))
        rows = zip(*columns, strict=True)
        cosines = [ViewCosine(state.samples, index, *held_out.name(index), cosine, centred) for index, cosine, centred in rows]
        self._write_cosines(cosines)
        if state.progress >= 1:
            pictures = ((cosine.index, held_out.picture(cosine.index)) for cosine in worst_of(cosines))
            write_pictures(self._worst, [Picture(str(index), image) for index, image in pictures if image is not None])

    def rewind(self, samples: int | None) -> None:
        """Drops what was measured after ``samples``, or all for None: a resumed run measures it again."""
        if samples is None:
            self._images.unlink(missing_ok=True)
        for path in self._rois_files():
            if samples is None or _samples_of(path) > samples:
                path.unlink()
        measured = self.cosines()
        if samples is None or (measured and measured[0].samples > samples):
            self._cosines.unlink(missing_ok=True)
            self._worst.unlink(missing_ok=True)

    def cosines(self) -> list[ViewCosine]:
        """The cosines of all views at the newest measurement, in the order of the images; none if they cannot be read."""
        try:
            return [ViewCosine(**json.loads(line)) for line in self._cosines.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, TypeError):
            return []

    def moments(self) -> list[Moment]:
        """The kept RoIs in their order; a file that cannot be read is left out."""
        return [moment for path in self._rois_files() if (moment := _read_moment(path)) is not None]

    def images(self) -> list[Picture]:
        """The images that the moments are of; none where they cannot be read."""
        return read_pictures(self._images)

    def worst(self) -> dict[int, Tensor]:
        """Pictures of the worst views, 3 x H x W bytes, by the index of the view; none before the training's end."""
        return {int(picture.title): picture.image for picture in read_pictures(self._worst) if picture.title.isdecimal()}

    def _rois_files(self) -> list[Path]:
        """The newest last."""
        return sorted((path for path in self.folder.glob("rois-*.safetensors") if path.stem[5:].isdecimal()), key=_samples_of)

    def _write_rois(self, followed: FollowedRoIs, samples: int, progress: float) -> None:
        rois, points = followed.rois[:FOLLOWED_IMAGES].float().cpu(), _thinned(followed.points[:FOLLOWED_IMAGES]).half().cpu()
        tensors = {"rois": rois.contiguous(), "points": points.contiguous()}
        for name, shares in zip(("map", "attended"), followed.maps or (), strict=False):
            tensors[name] = shares[:FOLLOWED_IMAGES].float().cpu().contiguous()
        with replacing(self.folder / f"rois-{samples:08}.safetensors") as temporary:
            write_tensors(temporary, tensors, {"progress": repr(progress)})
        kept: set[int] = set()
        *earlier, _ = self._rois_files()
        for path in earlier:
            part = min(PARTS, math.floor(PARTS * float(_read(path)[1].get("progress", 0))))
            if part in kept:
                path.unlink()
            kept.add(part)

    def _write_cosines(self, cosines: Sequence[ViewCosine]) -> None:
        with replacing(self._cosines) as temporary:
            temporary.write_text("".join(json.dumps(vars(cosine)) + "\n" for cosine in cosines), encoding="utf-8")
            synchronise(temporary)


def worst_of(cosines: Sequence[ViewCosine], count: int = WORST_IMAGES) -> list[ViewCosine]:
    """The views with the lowest centred cosine, the lowest first."""
    return sorted(cosines, key=lambda each: (each.centred_cosine, each.index))[:count]


def _thinned(points: Tensor) -> Tensor:
    """At most ``MOST_POINTS`` of an image's points B x N x P x 2: of each token the same ones, in no pattern."""
    tokens, count = points.shape[1:3]
    most = max(1, MOST_POINTS // tokens)
    if count <= most:
        return points
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values
    return points[:, :, chosen.to(points.device)]


def write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    """Writes small versions of pictures, whole or not at all."""
    tensors = {f"{number:03}": small(picture.image) for number, picture in enumerate(pictures)}
    titles = json.dumps([picture.title for picture in pictures])  # in ASCII: file names may be no valid UTF-8
    with replacing(path) as temporary:
        write_tensors(temporary, tensors, {"titles": titles})


def read_pictures(path: Path) -> list[Picture]:
    """The pictures of a file; none where it cannot be read."""
    tensors, metadata = _read(path)
    try:
        titles = json.loads(metadata["titles"])
        return [Picture(str(title), tensors[f"{number:03}"]) for number, title in enumerate(titles)]
    except (KeyError, ValueError, TypeError):
        return []


def small(image: Tensor, side: int = PICTURE_SIDE) -> Tensor:
    """A picture of bytes 3 x H x W with its longest side at most ``side`` pixels."""
    height, width = image.shape[-2:]
    scale = min(1.0, side / max(height, width))
    if scale == 1.0:
        return image.contiguous()
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0].contiguous()


def _read_moment(path: Path) -> Moment | None:
    tensors, metadata = _read(path)
    try:
        maps = (tensors["map"], tensors["attended"]) if "map" in tensors else None
        rois, points, progress = tensors["rois"].float(), tensors["points"].float(), float(metadata["progress"])
    except (KeyError, ValueError):
        return None
    return Moment(_samples_of(path), progress, rois, points, maps) if rois.ndim == points.ndim == 4 else None


def _samples_of(path: Path) -> int:
    return int(path.stem[5:])


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors and metadata of a file; none where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError):
        return {}, {}
