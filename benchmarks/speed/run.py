"""One benchmark from settings to a report."""

from __future__ import annotations

import contextlib
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from benchmarks.speed.backends import Conditions
from benchmarks.speed.config import SpeedConfig
from benchmarks.speed.images import Images
from benchmarks.speed.machine import PRODUCT, SIDES, Machine, product
from benchmarks.speed.measure import References, measure
from benchmarks.speed.memory import PeakMemory, can_measure
from benchmarks.speed.prepare import Prepared, prepare, usable_backends
from benchmarks.speed.progress import Steps
from benchmarks.speed.progress import steps as progress
from benchmarks.speed.report import Circumstances, Model, Row, SpeedReport
from benchmarks.speed.subjects import Subject, find_subjects
from sparseformers.errors import ConfigError
from sparseformers.exporting.config import Precision

LIBRARIES = ("torch", "timm", "onnxruntime", "openvino")
"""Whose versions a report gives."""


def measure_speed(model: str, settings: SpeedConfig, *, console: Console | None = None) -> SpeedReport:
    """Measures a student beside what it is to replace, and what could replace it.

    Args:
        model: the student: a run folder, a model file or a named size, which gets random weights.
        settings: what to measure, and how.
        console: for progress; quiet by default.

    Raises:
        SparseFormersError: one of its kinds, with what to do.
    """
    if settings.trace is not None:
        _make_folder(settings.trace)
    backends, left_out = usable_backends(settings.backend)
    device = torch.device(settings.device)
    with (
        _threads(settings.threads) as threads,
        progress(console or Console(quiet=True)) as steps,
        tempfile.TemporaryDirectory(prefix="sparseformers-benchmark-") as folder,
    ):
        images = Images(settings.images)
        subjects = find_subjects(model, settings.models)
        by_name = {each.name: each for each in (product(SIDES[device.type]), *subjects.found)}
        prepared = prepare(
            [*by_name.values()],
            cast("Sequence[Precision]", settings.precision),
            backends,
            batches=settings.batch,
            conditions=Conditions(device, threads),
            images=images,
            folder=Path(folder),
            steps=steps,
        )
        if settings.memory and device.type == "cpu":
            _measure_memory(prepared, by_name, settings.batch, threads, Path(folder), steps)
        references = References(images)
        rows: list[Row] = []
        untraced: list[str] = []
        machines: dict[int, Machine] = {}
        for batch in dict.fromkeys(settings.batch):
            measured = measure(
                prepared,
                by_name,
                batch,
                settings=settings,
                device=device,
                images=images,
                references=references,
                steps=steps,
            )
            rows += measured.rows
            untraced += measured.left_out
            machines[batch] = measured.machine
    return SpeedReport(
        circumstances=_circumstances(device, threads, images),
        models=tuple(Model(each.name, each.description, each.cost) for each in subjects.found),
        machines=machines,
        rows=tuple(rows),
        left_out=(*subjects.left_out, *left_out, *prepared.left_out(len(subjects.found)), *untraced),
    )


def _measure_memory(
    prepared: Prepared, subjects: dict[str, Subject], batches: Sequence[int], threads: int, folder: Path, steps: Steps
) -> None:
    """Notes the peak memory of each route, where this system can tell."""
    routes = [route for route in prepared.openings if route.model != PRODUCT]
    if not can_measure():
        return
    steps.begin("peak memory", len(routes))
    with PeakMemory(threads, folder) as memory:
        for route in routes:
            steps.say(f"peak memory of {route}")
            with contextlib.suppress(RuntimeError):  # it has no figure then; whether it can be timed is seen later
                found = memory.measure(prepared.openings[route], subjects[route.model].preprocessing.size, batches)
                prepared.peaks |= {(route, batch): peak for batch, peak in found.items()}
            steps.advance()


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """Has PyTorch use so many threads, and afterwards as many as before; gives their number."""
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _make_folder(path: Path) -> None:
    """Makes the folder of traces, before an hour is spent on what goes into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"The folder '{path}' of --trace cannot be made ({reason}).", "Name another folder.") from error


def _circumstances(device: torch.device, threads: int, images: Images) -> Circumstances:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    capability = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return Circumstances(name, capability, threads, str(images), images.are_photographs, versions)


def _processor() -> str:
    """What the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
