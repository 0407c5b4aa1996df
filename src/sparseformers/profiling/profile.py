"""``profile``: what a student costs beside its teacher, in parameters, multiply-adds, and time on this machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from rich.table import Table
from torch import nn

from sparseformers.errors import ConfigError, suggest
from sparseformers.evaluation.cost import Cost, measure_cost
from sparseformers.evaluation.report import Report
from sparseformers.inheritance import count_parameters, freeze_inherited, split_depth
from sparseformers.model import SparseFormer
from sparseformers.modes import evaluation_mode, resolve_precision
from sparseformers.named import NAMED_CONFIGS, TEACHER_ARCHITECTURES, named_config
from sparseformers.opening import GivenTeacher, Model, model_name, open_student, open_teacher_if_there
from sparseformers.processes import process_state
from sparseformers.profiling.backends import BACKENDS, IN_FLOAT32, Backend, Runner, check_backend, prepare
from sparseformers.teachers import Teacher, untrained_teacher

Key = TypeVar("Key", bound=Hashable)

FEWEST_TURNS = 3  # with so many there is a median that is none of the extremes
PAUSE = 0.005  # seconds before each pass, in which waiting threads of the library that ran before fall asleep
WARM_UP = 3  # turns that are not counted


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass on this machine."""

    batch: int  # images per pass
    milliseconds_median: float
    milliseconds_p05: float
    milliseconds_p95: float
    images_per_second: float  # batch over median time


@dataclass(frozen=True)
class Timing:
    """Student and teacher timed in turns, in one backend at one batch size."""

    backend: Backend
    batch: int
    student: Latency
    teacher: Latency | None
    ratio: float | None  # median over the turns of how many times as long the teacher took as the student


@dataclass(frozen=True)
class ProfileReport(Report):
    """The cost of a student, and of its teacher where there is one at hand."""

    model: str
    precision: str
    device: str
    student: Cost
    teacher: Cost | None = None
    parameter_groups: Mapping[str, int] = field(default_factory=dict)  # of the student: new, tuned, frozen; empty if unknown
    timings: tuple[Timing, ...] = ()
    remarks: tuple[str, ...] = ()  # why there is no teacher

    def tables(self) -> list[Table]:
        """Costs, and times by backend and batch size; beside the student's the teacher's, and how many times as much that is."""
        return [_cost_table(self), *([_timing_table(self)] if self.timings else [])]


def profile(
    model: Model,
    *,
    teacher: GivenTeacher | None = None,
    backend: Sequence[Backend] = ("eager",),
    batch: Sequence[int] = (1, 16),
    repeats: int = 10,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> ProfileReport:
    """Measures what a student costs beside its teacher: same precision, same machine, in turns.

    ``model`` is a student, run folder, model file, or a named size, which gets random weights (sizes of v1 have no teacher);
    ``teacher`` one, or where to load it from if not from where it was. Each ``backend`` (eager, compile, packed, onnxruntime,
    openvino) runs both, ``repeats`` timed passes at each ``batch`` size, in a ``precision`` that is float32 for ``auto`` where a
    backend runs in nothing else. Raises SparseFormersError for a backend that does not run here, or what cannot be loaded.
    """
    if repeats < 1 or min(batch, default=1) < 1:
        raise ConfigError("Batch sizes and repeats must be at least 1.", "Use --batch 1 16 and --repeats 10, for example.")
    device = process_state().device
    resolved = "fp32" if precision == "auto" and IN_FLOAT32 & {*backend} else resolve_precision(precision, device)
    for name in backend:
        if name not in BACKENDS:
            raise ConfigError(f"There is no backend '{name}'.", suggest(name, BACKENDS) or f"There are {', '.join(BACKENDS)}.")
        check_backend(name, precision=resolved, device=device)
    student, of_student, groups, problem = _open(model, teacher)
    networks: dict[str, nn.Module] = {"student": student.to(device)}
    if of_student is not None:
        networks["teacher"] = of_student.to(device)
    size = student.config.preprocessing.size
    sizes = {"student": size, "teacher": size if of_student is None else of_student.preprocessing.size}
    with evaluation_mode(*networks.values()):
        timings = [timing for name in backend for timing in _time(networks, name, sizes, batch, repeats, resolved, device)]
    return ProfileReport(
        model=model_name(model),
        precision=resolved,
        device=str(device),
        student=measure_cost(student, size),
        teacher=None if of_student is None else measure_cost(of_student, sizes["teacher"]),
        parameter_groups=groups,
        timings=tuple(timings),
        remarks=() if problem is None else (problem,),
    )


def _open(model: Model, teacher: GivenTeacher | None) -> tuple[SparseFormer, Teacher | None, Mapping[str, int], str | None]:
    """Student, teacher, parameters by what bootstrapping does with them, and why there is no teacher."""
    if isinstance(model, str) and model in NAMED_CONFIGS and teacher is None:
        student = SparseFormer(named_config(model))
        if model not in TEACHER_ARCHITECTURES:
            return student, None, {}, None
        untrained = untrained_teacher(TEACHER_ARCHITECTURES[model])
        freeze_inherited(student, split_depth(untrained.depth))
        return student, untrained, count_parameters(student), None
    saved = open_student(model)
    groups: Mapping[str, int] = {}
    if saved.provenance is not None:
        freeze_inherited(saved.student, saved.provenance.shares)
        groups = count_parameters(saved.student)
    elif teacher is None:
        return saved.student, None, groups, None
    found, problem = open_teacher_if_there(saved, teacher, name=model_name(model))
    return saved.student, found, groups, problem


def _time(
    networks: Mapping[str, nn.Module],
    backend: Backend,
    sizes: Mapping[str, tuple[int, int]],
    batch: Sequence[int],
    repeats: int,
    precision: str,
    device: torch.device,
) -> Iterator[Timing]:
    with tempfile.TemporaryDirectory(prefix="sparseformers-") as folder:
        ready = {}
        for name, network in networks.items():
            (own := Path(folder) / name).mkdir()
            ready[name] = prepare(network, backend, size=sizes[name], precision=precision, device=device, folder=own)
        for images in batch:
            runs = {name: _one_pass(open_for(images), images, sizes[name], device) for name, open_for in ready.items()}
            seconds = interleave(runs, turns=repeats, warm_up=WARM_UP)
            latencies = {name: summarise_latency(images, taken) for name, taken in seconds.items()}
            ratio = median_ratio(seconds["teacher"], seconds["student"]) if "teacher" in seconds else None
            yield Timing(backend, images, latencies["student"], latencies.get("teacher"), ratio)


def _one_pass(run: Runner, batch: int, size: tuple[int, int], device: torch.device) -> Callable[[], None]:
    """One pass over a random batch, until the device has done its work."""
    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)

    def one_pass() -> None:
        run(images)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return one_pass


def interleave(
    passes: Mapping[Key, Callable[[], object]],
    *,
    turns: int,
    seconds: float = float("inf"),
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[Key, tuple[float, ...]]:
    """Times passes in turn (A B C, A B C, ...), so that whatever else the machine does slows all of them alike.
    After ``warm_up`` uncounted turns come up to ``turns``; none begins after so many ``seconds``, once there are
    :data:`FEWEST_TURNS`. ``on_turn`` is told of the end of each. Returns the seconds of each pass, turn by turn.
    """
    taken: dict[Key, list[float]] = {key: [] for key in passes}
    for _ in range(warm_up):
        for run in passes.values():
            run()
    begun = clock()
    for turn in range(turns):
        if turn >= FEWEST_TURNS and clock() - begun > seconds:
            break
        for key, run in passes.items():
            pause(PAUSE)
            start = clock()
            run()
            taken[key].append(clock() - start)
        on_turn()
    return {key: tuple(values) for key, values in taken.items()}


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median over the turns of how many times as long ``one`` took as ``other`` in the same turn."""
    return statistics.median(first / second for first, second in zip(one, other, strict=True))


def summarise_latency(batch: int, seconds: Sequence[float]) -> Latency:
    """Median and percentiles of the times of passes with so many images."""
    shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    low, median, high = torch.quantile(torch.tensor(seconds, dtype=torch.float64), shares).tolist()
    return Latency(batch, 1000 * median, 1000 * low, 1000 * high, batch / median)


def _cost_table(report: ProfileReport) -> Table:
    caption = "multiply-adds: matrix products of one image, those of attention included; the papers count layers alone"
    table = Table(title=f"{report.model} on {report.device}, {report.precision}", caption=caption)
    student, teacher = report.student, report.teacher
    table.add_column("measure")
    for column in ("student", *(("teacher", "teacher / student") if teacher else ())):
        table.add_column(column, justify="right")

    def add(measure: str, unit: float, of: Callable[[Cost], int | None], digits: int) -> None:
        own, beside = of(student), None if teacher is None else of(teacher)
        if own is not None:
            cells = [f"{own / unit:.{digits}f}"]
            cells += [] if beside is None else [f"{beside / unit:.{digits}f}", f"{beside / own:.2f}" if own else ""]
            table.add_row(measure, *cells)

    table.add_row("image, pixels", *(f"{cost.size[0]} x {cost.size[1]}" for cost in (student, teacher) if cost))
    add("parameters, M", 1e6, lambda cost: cost.parameters, 1)
    for group, count in report.parameter_groups.items():
        table.add_row(f"  {group}", f"{count / 1e6:.1f}")
    add("multiply-adds, G", 1e9, lambda cost: cost.multiply_adds, 2)
    add("  as the papers count", 1e9, lambda cost: cost.published_multiply_adds, 2)
    return table


def _timing_table(report: ProfileReport) -> Table:
    table = Table(caption="medians of passes taken in turns; the ratio is the median over the turns")
    table.add_column("backend")
    networks = ("student", "teacher") if report.teacher else ("student",)
    headers = [f"{name}\n{unit}" for unit in ("ms", "images/s") for name in networks]
    for header in ("batch", *headers, *(("teacher /\nstudent",) if report.teacher else ())):
        table.add_column(header, justify="right")
    for timing in report.timings:
        latencies = [latency for latency in (timing.student, timing.teacher) if latency is not None]
        cells = [f"{latency.milliseconds_median:.1f}" for latency in latencies]
        cells += [f"{latency.images_per_second:.1f}" for latency in latencies]
        table.add_row(timing.backend, str(timing.batch), *cells, *([] if timing.ratio is None else [f"{timing.ratio:.2f}"]))
    return table
