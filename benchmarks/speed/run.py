"""One measurement of speed from settings to a report."""

from __future__ import annotations

import itertools
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.speed.backends import Conditions, Route
from benchmarks.speed.config import SpeedConfig
from benchmarks.speed.images import Images
from benchmarks.speed.machine import SIDES, Machine, product
from benchmarks.speed.measure import References, measure
from benchmarks.speed.prepare import measure_memory, prepare, usable_backends
from benchmarks.speed.report import Circumstances, Model, Row, SpeedReport
from benchmarks.speed.subjects import find_subjects
from sparseformers.errors import ConfigError

LIBRARIES = ("torch", "timm", "onnxruntime", "openvino")
"""Packages whose versions a report gives."""


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
    device, batches = torch.device(settings.device), [*dict.fromkeys(settings.batch)]
    with (
        _threads(settings.threads) as threads,
        (console or Console(quiet=True)).status("loading models") as status,
        tempfile.TemporaryDirectory(prefix="sparseformers-speed-") as temporary,
    ):
        folder, images, found = Path(temporary), Images(settings.images), find_subjects(model, settings.models)
        subjects = {each.name: each for each in (product(SIDES[device.type]), *found.found)}
        prepared = prepare(
            [*subjects.values()],
            itertools.starmap(Route, itertools.product(subjects, settings.precision, backends)),
            batches=batches,
            conditions=Conditions(device, threads),
            images=images,
            folder=folder,
            say=status.update,
        )
        if settings.memory and device.type == "cpu":
            measure_memory(prepared, [*subjects.values()], batches, threads=threads, folder=folder, say=status.update)
        rows: list[Row] = []
        untraced: list[str] = []
        machines: dict[int, Machine] = {}
        references = References(images)
        for batch in batches:
            measured = measure(
                prepared,
                subjects,
                batch,
                settings=settings,
                device=device,
                images=images,
                references=references,
                say=status.update,
            )
            rows += measured.rows
            untraced += measured.left_out
            machines[batch] = measured.machine
    return SpeedReport(
        circumstances=_circumstances(device, threads, images),
        models=tuple(Model(each.name, each.description, each.cost) for each in found.found),
        machines=machines,
        rows=tuple(rows),
        left_out=(*found.left_out, *left_out, *prepared.left_out(len(found.found)), *untraced),
    )


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
    """The processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
