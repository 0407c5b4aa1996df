"""Whether an exported file computes what the student computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.errors import WeightsError
from sparseformers.exporting.formats import Runner
from sparseformers.exporting.images import Probe
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.modes import evaluation_mode, inference


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
        raise ExportCheckError(
            f"For images of {_shape(images)} the file gives {_shape(embedding)} numbers, not {_shape(expected)} finite ones.",
            "Try another --precision or --format.",
        )
    return embedding


def _shape(values: Tensor) -> str:
    return " x ".join(str(side) for side in values.shape)


def require(agreement: Agreement, tolerance: float, *, what: str) -> None:
    """Raises ExportCheckError, which calls the file ``what``, unless the greatest error is within the tolerance."""
    if agreement.greatest_error <= tolerance:
        return
    raise ExportCheckError(
        f"The {what} differs from the student by {agreement.greatest_error:.2g} of an embedding's length, more than the "
        f"tolerance of {tolerance:g} (greatest difference {agreement.greatest_difference:.2g}, lowest cosine "
        f"{agreement.lowest_cosine:.5f}).",
        "Nothing was written: choose a higher --precision, or allow more with --tolerance.",
    )
