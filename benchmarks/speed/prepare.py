"""Models made ready for every backend in every precision, and why some are not."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.backends import BACKENDS, Conditions, Opening
from benchmarks.speed.images import Images
from benchmarks.speed.machine import PRODUCT
from benchmarks.speed.memory import peak_on_cuda
from benchmarks.speed.progress import Steps
from benchmarks.speed.routes import Route
from benchmarks.speed.subjects import Subject
from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.exporting.config import Precision


@dataclass
class Prepared:
    """What can be timed."""

    openings: dict[Route, Opening] = field(default_factory=dict)
    peaks: dict[tuple[Route, int], int] = field(default_factory=dict)
    missing: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def leave_out(self, route: Route, reason: str) -> None:
        """Notes that a route is none, and forgets what there is of it."""
        self.openings.pop(route, None)
        models = self.missing.setdefault((route.precision, route.backend, reason), [])
        if route.model not in models:
            models.append(route.model)

    def left_out(self, models: int) -> list[str]:
        """A line for each reason; models are named where they are not all.

        Args:
            models: how many there are.
        """
        lines = []
        for (precision, backend, reason), names in self.missing.items():
            named = [name for name in names if name != PRODUCT]
            whose = "" if len(named) == models or not named else f"{' and '.join(named)}, "
            lines.append(f"{whose}{precision}, {backend}: {reason}")
        return lines

    def require_models(self, models: int) -> None:
        """Raises ConfigError if nothing is left but the product, with the reasons.

        Args:
            models: how many there are.
        """
        if all(route.model == PRODUCT for route in self.openings):
            reasons = "; ".join(self.left_out(models)) or "there is no model"
            raise ConfigError(f"Nothing can be measured ({reasons}).", "Choose other --models, --precision or --backend.")


def usable_backends(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The backends whose packages are installed, and a line for each other one.

    Args:
        asked: names; none for all that are usable.

    Raises:
        MissingExtraError: if one that was asked for is not.
    """
    usable, left_out = [], []
    for name in asked or BACKENDS:
        absent = next((each for each in BACKENDS[name].libraries if importlib.util.find_spec(each[0]) is None), None)
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
    precisions: Sequence[Precision],
    backends: Sequence[str],
    *,
    batches: Sequence[int],
    conditions: Conditions,
    images: Images,
    folder: Path,
    steps: Steps,
) -> Prepared:
    """Makes every model ready in all ways that there are.

    Args:
        subjects: the models, the machine's product among them.
        precisions: of matrix products.
        backends: names.
        batches: batch sizes, for peak memory on CUDA.
        conditions: where, with how many threads.
        images: to calibrate int8 on.
        folder: for exported files.
        steps: is told of each.

    Raises:
        ConfigError: if no model can be run in any of these ways.
    """
    prepared = Prepared()
    routes = [
        (each, Route(each.name, precision, backend))
        for each in subjects
        for precision in precisions
        for backend in backends
        # Compiled, a product is the same product.
        if not (each.name == PRODUCT and backend == "compile")
    ]
    steps.begin("preparing", len(routes))
    for number, (each, route) in enumerate(routes):
        steps.say(f"preparing {route}")
        (place := folder / str(number)).mkdir()
        _prepare(prepared, each, route, batches, conditions, images, place)
        steps.advance()
    prepared.require_models(len(subjects) - 1)
    return prepared


def _prepare(
    prepared: Prepared,
    each: Subject,
    route: Route,
    batches: Sequence[int],
    conditions: Conditions,
    images: Images,
    folder: Path,
) -> None:
    """Makes one model ready in one way, or notes why not."""
    backend = BACKENDS[route.backend]
    reason = backend.why_not(each, route.precision, conditions)
    if reason is not None:
        prepared.leave_out(route, reason)
        return
    calibration = _calibration(each, images) if route.precision == "int8" else ()
    on_cuda = conditions.device.type == "cuda"
    held = torch.cuda.memory_allocated() if on_cuda else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what exporters find in each other's libraries
            opening = backend.prepare(each, route.precision, conditions, calibration, folder)
        prepared.openings[route] = opening
        if on_cuda and each.name != PRODUCT:
            for batch in batches:
                inputs = images.batch(each.preprocessing, batch).to(conditions.device)
                prepared.peaks[route, batch] = peak_on_cuda(opening, inputs, held)
    except Exception as error:  # whatever exporters and compilers raise at a model that they cannot take
        prepared.leave_out(route, short(error))


def _calibration(each: Subject, images: Images) -> Sequence[Tensor]:
    """What int8 is calibrated on; a product takes any numbers, and few of its large ones do."""
    if each.name == PRODUCT:
        return images.noise(each.preprocessing, 2).split(1)
    return images.calibration(each.preprocessing)


def short(error: Exception) -> str:
    """An error of another library on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
