"""Whether an exported file computes what the student computes, and the images that tell (and those for calibration)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import UnreadableImageError, evaluation_view, find_images, read_image
from sparseformers.data.mixture import kind_of
from sparseformers.errors import ConfigError, DataError, SparseFormersError, WeightsError
from sparseformers.exporting.config import ExportConfig
from sparseformers.exporting.formats import Runner
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.model.sparseformer import SMALLEST_SIDE
from sparseformers.modes import evaluation_mode, inference
from sparseformers.train.run_folder import RunFolder

LARGEST_BATCH = 16  # images that a file for any number of them is checked with at once
OTHER_SIZES = (0.75, 1.25)  # shares of the student's height and width, both ways round, at which a file for any size is checked


class Probe(NamedTuple):
    """The same images as the file takes them and as the student does."""

    of_file: Tensor  # B x 3 x H x W in [0, 1], or B x H x W x 3 bytes
    of_student: Tensor  # B x 3 x height x width in [0, 1]


class CheckImages(NamedTuple):
    """Decoded images, none in both parts."""

    for_check: Sequence[Image.Image]
    for_calibration: Sequence[Image.Image]


def find_photographs(settings: ExportConfig, model: Path | None) -> CheckImages:
    """Reads the images of ``--data``, or those that a run was trained on; raises ConfigError or DataError if there are none."""
    paths = find_images(settings.data or _of_run(model))
    calibration = settings.calibration_images if settings.precision == "int8" else 0
    read: list[Image.Image] = []
    skipped: list[str] = []
    for place in torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist():
        if len(read) == settings.images + calibration:
            break
        try:
            read.append(read_image(paths[place]))
        except UnreadableImageError as error:
            skipped.append(str(error))
    if len(read) < (2 if calibration else 1):
        problem = f"Of the {len(paths)} images only {len(read)} can be read{f' ({skipped[0]})' if skipped else ''}."
        raise DataError(problem, "Name others with --data: one, or two for int8.")
    checked = min(settings.images, len(read) // 2) if calibration else settings.images
    return CheckImages(read[:checked], read[checked:])


def _of_run(model: Path | None) -> tuple[Path, ...]:
    folders: list[Path] = []
    if model is not None and model.is_dir():
        with contextlib.suppress(SparseFormersError):  # it may have no settings that can be read
            sources = RunFolder.existing(model).settings().data.data
            folders = [Path(each) for each in sources if kind_of(str(each)) == "folder"]
    there = tuple(folder for folder in folders if folder.exists())
    if not there:
        problem = "The file has to be checked on images, and the model does not tell where any are."
        raise ConfigError(problem, "Name a folder of images with --data.")
    return there


def batches(photographs: Sequence[Image.Image], settings: ExportConfig, preprocessing: PreprocessingConfig) -> list[Probe]:
    """Every image as file and student take it, in batches of different numbers as far as the file takes them."""
    if not photographs:
        return []
    if settings.with_preprocessing:
        return _of_bytes(photographs, settings, preprocessing)
    images = views(photographs, replace(preprocessing, size=settings.height_and_width or preprocessing.size))
    return [Probe(batch, batch) for batch in _batches(images, settings)]


def other_sizes(photographs: Sequence[Image.Image], settings: ExportConfig, preprocessing: PreprocessingConfig) -> list[Probe]:
    """Some images at other sizes than the student's own, where the file takes floats of any size."""
    if settings.with_preprocessing or settings.height_and_width is not None:
        return []
    found: list[Probe] = []
    for shares in (OTHER_SIZES, OTHER_SIZES[::-1]):
        sides = zip(preprocessing.size, shares, strict=True)
        height, width = (max(SMALLEST_SIDE, round(side * share)) for side, share in sides)
        found += batches(photographs[:1], replace(settings, size=f"{height}x{width}"), preprocessing)
    return found


def views(photographs: Sequence[Image.Image], preprocessing: PreprocessingConfig) -> Tensor:
    """The student's views of images, N x 3 x H x W in [0, 1]."""
    return torch.stack(list(map(evaluation_view(preprocessing), photographs)))


def _of_bytes(photographs: Sequence[Image.Image], settings: ExportConfig, preprocessing: PreprocessingConfig) -> list[Probe]:
    """Each image in its own size, as far as the file takes that; images of a batch in that of the first one."""
    fixed = settings.height_and_width
    found: list[Probe] = []
    for places in _batches(torch.arange(len(photographs)), settings, largest=4):
        chosen = [photographs[place] for place in places.tolist()]
        size = chosen[0].size if fixed is None else fixed[::-1]
        alike = [image if image.size == size else image.resize(size, Image.Resampling.BICUBIC) for image in chosen]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in alike]))
        found.append(Probe(pixels, views(alike, preprocessing)))
    return found


def _batches(images: Tensor, settings: ExportConfig, *, largest: int = LARGEST_BATCH) -> list[Tensor]:
    """Batches of 1, 2, ... images and then as large as may be; of a fixed size, the first images once more in the last one."""
    if isinstance(settings.batch, int):
        places = torch.arange(math.ceil(len(images) / settings.batch) * settings.batch) % len(images)
        return list(images[places].split(settings.batch))
    sizes: list[int] = []
    while (left := len(images) - sum(sizes)) > 0:
        sizes.append(min(left, largest, len(sizes) + 1))
    return list(images.split(sizes))


class ExportCheckError(WeightsError):
    """An exported file does not compute what the student computes; nothing was left behind."""


@dataclass(frozen=True)
class Agreement:
    """What an exported file gives beside what the student gives in float32: embeddings, or whole maps in their place."""

    images: int  # compared, some of them at several sizes
    batches: tuple[int, ...]  # numbers of images at a time
    sizes: tuple[tuple[int, int], ...]  # heights and widths that were tried, at most ten of them
    greatest_difference: float  # the greatest of any number of an embedding
    greatest_error: float  # length of the difference over the length of the embedding, of the worst image
    lowest_cosine: float  # the worst image's
    mean_cosine: float  # over the images


def compare(file: Runner, student: SparseFormer | WithTokens, probes: Sequence[Probe]) -> Agreement:
    """Puts the same images through a file and the student (CPU, float32); ExportCheckError if the file fails on any."""
    with evaluation_mode(student), inference(torch.device("cpu"), None):
        outputs = [student(probe.of_student) for probe in probes]
        expected = [output.embedding if output.dense is None else output.dense for output in outputs]
        given = [_given(file, probe.of_file, wanted) for probe, wanted in zip(probes, expected, strict=True)]
    one, other = (torch.cat(values).flatten(1).double() for values in (given, expected))
    cosines = F.cosine_similarity(one, other)
    sides = (1, 2) if probes[0].of_file.dtype == torch.uint8 else (2, 3)
    sizes = dict.fromkeys((probe.of_file.shape[sides[0]], probe.of_file.shape[sides[1]]) for probe in probes)
    return Agreement(
        images=len(one),
        batches=tuple(sorted({len(probe.of_file) for probe in probes})),
        sizes=tuple(sizes)[:10],
        greatest_difference=(one - other).abs().max().item(),
        greatest_error=((one - other).norm(dim=1) / other.norm(dim=1).clamp(min=1e-12)).max().item(),
        lowest_cosine=cosines.min().item(),
        mean_cosine=cosines.mean().item(),
    )


def _given(file: Runner, images: Tensor, expected: Tensor) -> Tensor:
    try:
        embedding = file(images).float()
    except Exception as error:  # whatever the runtime of the format raises
        problem = f"The file fails on images of {_shape(images)} ({' '.join(str(error).split())[:300]})."
        raise ExportCheckError(problem, "Try --batch N and --size HxW, or another --format.") from error
    if embedding.shape != expected.shape or not embedding.isfinite().all():
        given, wanted = _shape(embedding), _shape(expected)
        problem = f"For images of {_shape(images)} the file gives {given} numbers, not {wanted} finite ones."
        raise ExportCheckError(problem, "Try another --precision or --format.")
    return embedding


def _shape(values: Tensor) -> str:
    return " x ".join(str(side) for side in values.shape)


def require_agreement(agreement: Agreement, tolerance: float, *, what: str) -> None:
    """Raises ExportCheckError, which calls the file ``what``, unless the greatest error is within the tolerance."""
    if agreement.greatest_error <= tolerance:
        return
    figures = f"greatest difference {agreement.greatest_difference:.2g}, lowest cosine {agreement.lowest_cosine:.5f}"
    by = f"{agreement.greatest_error:.2g} of an embedding's length"
    problem = f"The {what} differs from the student by {by}, more than the tolerance of {tolerance:g} ({figures})."
    raise ExportCheckError(problem, "Nothing was written: choose a higher --precision, or allow more with --tolerance.")
