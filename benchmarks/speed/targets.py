"""How fast a student is meant to be, and whether it is: every figure is a median of ratios in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.speed.config import SpeedConfig
from benchmarks.speed.report import Row, SpeedReport
from benchmarks.speed.tables import milliseconds, notes
from benchmarks.text_table import TextTable

FIRST = ("eager",)
"""The backends that run the network as it first was: the plain forward of the package, operator by operator."""
EAGER = ("eager",)
"""The backends that run a network operator by operator, as it was loaded."""
PACKED = ("packed",)
"""Those that do so after it was made ready for inference."""
COMPILED = ("compile",)
"""All backends that run compiled by PyTorch."""


@dataclass(frozen=True)
class Found:
    """What a target is about, as it was measured."""

    figure: float | None
    row: Row | None = None
    against: Row | None = None
    reason: str = ""


Measure = Callable[[SpeedReport, int], Found]


@dataclass(frozen=True)
class Target:
    """A figure that is to be reached."""

    what: str
    goals: Mapping[int, float]
    measure: Measure
    form: str = "{:.2f}x"


@dataclass(frozen=True)
class Verdict:
    """A target at a batch size."""

    what: str
    batch: int
    goal: str
    figure: str
    met: bool | None
    times: str
    floor: str
    reason: str

    @property
    def told(self) -> str:
        """In a word, or why there is none."""
        return self.reason if self.met is None else "met" if self.met else "missed"


def best(report: SpeedReport, batch: int, *, model: str, precision: str, backends: Sequence[str] = ()) -> Row | None:
    """The fastest route of a model."""
    return next(iter(report.find(batch, model=model, precision=precision, backends=backends)), None)


def _compared(report: SpeedReport, row: Row | None, against: Row | None) -> Found:
    if row is None or against is None:
        return Found(None, row, against, "not measured: see what is left out")
    return Found(report.times_as_fast(row, against), row, against)


def _against_teacher(precision: str, backends: Sequence[str], teachers: Sequence[str]) -> Measure:
    def measure(report: SpeedReport, batch: int) -> Found:
        student = best(report, batch, model="student", precision=precision, backends=backends)
        return _compared(report, student, best(report, batch, model="teacher", precision=precision, backends=teachers))

    return measure


def _against_first(precision: str, backends: Sequence[str] = ()) -> Measure:
    def measure(report: SpeedReport, batch: int) -> Found:
        student = best(report, batch, model="student", precision=precision, backends=backends)
        return _compared(report, student, best(report, batch, model="student", precision=precision, backends=FIRST))

    return measure


def _against_float32(precision: str) -> Measure:
    def measure(report: SpeedReport, batch: int) -> Found:
        student = best(report, batch, model="student", precision=precision)
        return _compared(report, student, best(report, batch, model="student", precision="fp32"))

    return measure


def _cosine(precision: str, *, needs_photographs: bool) -> Measure:
    def measure(report: SpeedReport, batch: int) -> Found:
        row = best(report, batch, model="student", precision=precision)
        if row is None or row.cosine is None:
            return Found(None, row, None, "not measured: see what is left out")
        told = needs_photographs and not report.circumstances.photographs
        return Found(row.cosine.mean, row, None, "not judged: it needs a bootstrapped model and --images" if told else "")

    return measure


def _share(report: SpeedReport, batch: int) -> Found:
    row = best(report, batch, model="student", precision="fp32")
    if row is None or row.share is None:
        return Found(None, row, None, "not measured: see what is left out")
    return Found(row.share, row)


CPU = (
    Target("float32 eager against the teacher's float32 eager", {1: 4.0, 16: 4.5}, _against_teacher("fp32", EAGER, EAGER)),
    Target("the same, the student folded and packed", {1: 4.0, 16: 4.5}, _against_teacher("fp32", PACKED, EAGER)),
    Target("best float32 path against the first eager version", {1: 1.5, 16: 1.1}, _against_first("fp32")),
    Target("bf16 against the best float32 path", {1: 1.5, 16: 2.0}, _against_float32("bf16")),
    Target("cosine of bf16", {1: 0.999, 16: 0.999}, _cosine("bf16", needs_photographs=False), "{:.4f}"),
    Target("int8 against the best float32 path", {1: 1.8, 16: 2.5}, _against_float32("int8")),
    Target("cosine of int8", {1: 0.99, 16: 0.99}, _cosine("int8", needs_photographs=True), "{:.4f}"),
    Target("share of the float32 matrix-product rate", {16: 0.9}, _share, "{:.1%}"),
)
"""On processors."""
CUDA = (
    Target("compiled bf16 against the teacher's compiled bf16", {1: 2.0, 256: 3.5}, _against_teacher("bf16", COMPILED, COMPILED)),
    Target("compiled bf16 against the first eager version", {1: 1.5, 64: 1.5, 256: 1.5}, _against_first("bf16", COMPILED)),
)
"""On an H100."""


def targets_of(device: str) -> tuple[Target, ...]:
    """The targets for a kind of device, cpu or cuda."""
    return CUDA if device == "cuda" else CPU


def settings_for_targets(settings: SpeedConfig) -> SpeedConfig:
    """The settings with the models, batch sizes and precisions that the targets are about."""
    batches = sorted({batch for target in targets_of(settings.device) for batch in target.goals})
    precisions = ("bf16",) if settings.device == "cuda" else ("fp32", "bf16", "int8")
    return replace(settings, models=("student", "teacher"), batch=tuple(batches), precision=precisions)


def judge(report: SpeedReport, targets: Sequence[Target]) -> list[Verdict]:
    """Every target at every batch size that it has a goal for."""
    return [_verdict(report, target, batch) for batch in report.batches for target in targets if batch in target.goals]


def _verdict(report: SpeedReport, target: Target, batch: int) -> Verdict:
    found, goal = target.measure(report, batch), target.goals[batch]
    row, against, figure = found.row, found.against, found.figure
    median = "" if row is None else f"{row.route.backend} {milliseconds(row.latency.milliseconds_median)}"
    beside = "" if against is None else f" against {against.route.backend} {milliseconds(against.latency.milliseconds_median)}"
    floor = None if row is None else row.floor
    return Verdict(
        what=target.what,
        batch=batch,
        goal=target.form.format(goal),
        figure="" if figure is None else target.form.format(figure),
        met=None if figure is None or found.reason else figure >= goal,
        times=median + beside if figure is not None else "",
        floor="" if floor is None else f"{milliseconds(1000 * floor.seconds)} ({floor.by})",
        reason=found.reason,
    )


def targets_table(report: SpeedReport, verdicts: Sequence[Verdict]) -> TextTable:
    """The verdicts as a table."""
    student = next(model for model in report.models if model.name == "student")
    return TextTable(
        title=f"Targets: {student.description}",
        columns=("target", "batch", "at least", "figure", "", "ms", "floor ms"),
        rows=tuple((each.what, str(each.batch), each.goal, each.figure, each.told, each.times, each.floor) for each in verdicts),
        notes=tuple(notes(report)),
    )
