"""Models made ready for every backend in every precision, and why some are not."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.backends import LIBRARIES, Conditions, Opening, Route, make_ready, why_not
from benchmarks.speed.images import Images
from benchmarks.speed.machine import PRODUCT
from benchmarks.speed.memory import can_measure, peak_on_cpu, peak_on_cuda
from benchmarks.speed.subjects import Subject
from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.profiling.backends import BACKENDS, Backend


@dataclass
class Prepared:
    """What can be timed."""

    openings: dict[Route, Opening] = field(default_factory=dict)
    """Models made ready, the machine's product among them."""
    peaks: dict[tuple[Route, int], int] = field(default_factory=dict)
    """Peak memory by route and batch size, as far as it is known by now."""
    missing: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """Models by precision, backend and reason for which they are left out."""

    def leave_out(self, route: Route, reason: str) -> None:
        """Notes that a route is none, and forgets what there is of it."""
        self.openings.pop(route, None)
        models = self.missing.setdefault((route.precision, route.backend, reason), [])
        if route.model not in models:
            models.append(route.model)

    def left_out(self, models: int) -> list[str]:
        """A line for each reason; models are named where they are not all of so many."""
        lines = []
        for (precision, backend, reason), names in self.missing.items():
            named = [name for name in names if name != PRODUCT]
            whose = "" if len(named) == models or not named else f"{' and '.join(named)}, "
            lines.append(f"{whose}{precision}, {backend}: {reason}")
        return lines

    def require_models(self, models: int) -> None:
        """Raises ConfigError, with the reasons, if nothing of so many models is left but the product."""
        if all(route.model == PRODUCT for route in self.openings):
            reasons = "; ".join(self.left_out(models)) or "there is no model"
            raise ConfigError(f"Nothing can be measured ({reasons}).", "Choose other --models, --precision or --backend.")


def usable_backends(asked: Sequence[str]) -> tuple[list[Backend], list[str]]:
    """The backends whose packages are installed, of all unless some are named, and a line for each other one.

    Raises:
        MissingExtraError: if one that was asked for is not.
    """
    usable: list[Backend] = []
    left_out = []
    for name in (each for each in BACKENDS if not asked or each in asked):
        absent = next((each for each in LIBRARIES.get(name, {}).items() if importlib.util.find_spec(each[0]) is None), None)
        if absent is None:
            usable.append(name)
            continue
        error = MissingExtraError.for_package(*absent)
        if asked:
            raise error
        left_out.append(f"{name}: {error}")
    return usable, left_out


def prepare(
    subjects: Sequence[Subject],
    routes: Iterable[Route],
    *,
    batches: Sequence[int],
    conditions: Conditions,
    images: Images,
    folder: Path,
    say: Callable[[str], None],
) -> Prepared:
    """Makes every model ready in all ways that there are.

    Args:
        subjects: the models, the machine's product among them.
        routes: models, precisions and backends.
        batches: batch sizes, for peak memory on CUDA.
        conditions: where, with how many threads.
        images: to calibrate int8 on.
        folder: for exported files.
        say: is told of each.

    Raises:
        ConfigError: if no model can be run in any of these ways.
    """
    prepared, by_name = Prepared(), {each.name: each for each in subjects}
    # Compiled, a product is the same product.
    chosen = [route for route in routes if not (route.model == PRODUCT and route.backend == "compile")]
    for number, route in enumerate(chosen):
        say(f"preparing {route} ({number + 1} of {len(chosen)})")
        (place := folder / str(number)).mkdir()
        _prepare(prepared, by_name[route.model], route, batches, conditions, images, place)
    prepared.require_models(len(subjects) - 1)
    return prepared


def _prepare(
    prepared: Prepared,
    subject: Subject,
    route: Route,
    batches: Sequence[int],
    conditions: Conditions,
    images: Images,
    folder: Path,
) -> None:
    """Makes one model ready in one way, or notes why not."""
    reason = why_not(route.backend, route.precision, conditions.device)
    if reason is not None:
        prepared.leave_out(route, reason)
        return
    calibration = _calibration(subject, images) if route.precision == "int8" else ()
    on_cuda = conditions.device.type == "cuda"
    held = torch.cuda.memory_allocated() if on_cuda else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what exporters find in each other's libraries
            opening = make_ready(subject, route.backend, route.precision, conditions, calibration, folder)
        prepared.openings[route] = opening
        if on_cuda and subject.name != PRODUCT:
            for batch in batches:
                inputs = images.batch(subject.preprocessing, batch).to(conditions.device)
                prepared.peaks[route, batch] = peak_on_cuda(opening, inputs, held)
    except Exception as error:  # whatever exporters and compilers raise at a model that they cannot take
        prepared.leave_out(route, short(error))


def measure_memory(
    prepared: Prepared,
    subjects: Sequence[Subject],
    batches: Sequence[int],
    *,
    threads: int,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Notes the peak memory of each route on the CPU, where this system can tell."""
    sizes = {each.name: each.preprocessing.size for each in subjects}
    routes = [route for route in prepared.openings if route.model != PRODUCT and can_measure()]
    for route in routes:
        say(f"peak memory of {route}")
        with contextlib.suppress(RuntimeError):  # it has no figure then; whether it can be timed is seen later
            found = peak_on_cpu(prepared.openings[route], sizes[route.model], batches, threads=threads, folder=folder)
            prepared.peaks |= {(route, batch): peak for batch, peak in found.items()}


def _calibration(subject: Subject, images: Images) -> Sequence[Tensor]:
    """Images to calibrate int8 on; a product takes any numbers, and few of its large ones do."""
    if subject.name == PRODUCT:
        return images.noise(subject.preprocessing, 2).split(1)
    return images.calibration(subject.preprocessing)


def short(error: Exception) -> str:
    """An error of another library on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
