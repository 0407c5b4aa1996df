"""The tables of a measurement of speed, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.speed.operators import Operator
from benchmarks.speed.report import Row, SpeedReport
from benchmarks.text_table import TextTable

COLUMNS = (
    "model, precision, backend",
    "median ms",
    "5% to 95%",
    "images/s",
    "floor ms",
    "share of rate",
    "peak MB",
    "cosine",
    "x teacher, same path",
    "x teacher, best path",
)


OPERATORS = ("model, precision, backend", "operator", "calls a pass", "ms a pass", "share of an untraced pass")
MOST_OPERATORS = 8
"""That are told of a route; the others are added up."""
LONGEST_NAME = 60
"""Letters of an operator in a table: kernels of CUDA have names of some hundreds."""


def speed_tables(report: SpeedReport) -> list[TextTable]:
    """A table for each batch size; what else there is to say stands below the last one."""
    tables = [
        TextTable(_title(report, batch), COLUMNS, tuple(_cells(report, row) for row in report.rows if row.batch == batch))
        for batch in report.batches
    ]
    last = tables[-1]
    return [*tables[:-1], TextTable(last.title, last.columns, last.rows, tuple(notes(report)))]


def operator_tables(report: SpeedReport) -> list[TextTable]:
    """For each batch size that was traced a table of the operators that take longest."""
    traced = {batch: [row for row in report.rows if row.batch == batch and row.profile] for batch in report.batches}
    return [
        TextTable(
            f"Operators, batch {batch}",
            OPERATORS,
            tuple(cells for row in rows for cells in _operators(row)),
            tuple(f"{row.route}: {row.profile.trace}" for row in rows if row.profile and row.profile.trace),
        )
        for batch, rows in traced.items()
        if rows
    ]


def _operators(row: Row) -> list[tuple[str, ...]]:
    """The lines of a route: all operators, those that take longest, and the others."""
    assert row.profile is not None
    all_of_them, pass_seconds = row.profile.operators, row.latency.milliseconds_median / 1000

    def cells(name: str, operators: Sequence[Operator]) -> tuple[str, ...]:
        seconds = sum(operator.seconds for operator in operators)
        calls = sum(operator.calls for operator in operators)
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
        return (str(row.route), short, f"{calls:,.0f}", milliseconds(1000 * seconds), f"{seconds / pass_seconds:.0%}")

    longest, others = all_of_them[:MOST_OPERATORS], all_of_them[MOST_OPERATORS:]
    told = [cells("all", all_of_them), *(cells(operator.name, [operator]) for operator in longest)]
    return [*told, cells(f"{len(others)} other{'s' if len(others) > 1 else ''}", others)] if others else told


def _title(report: SpeedReport, batch: int) -> str:
    machine = report.machines[batch]
    rates = [f"{precision} {(machine.rate(precision) or 0) / 1e9:,.1f} G" for precision in machine.product_seconds]
    product = f"matrix product {', '.join(rates)} multiply-adds/s, " if rates else ""
    return f"Batch {batch} ({product}memory {machine.bandwidth / 1e9:.1f} GB/s)"


def _cells(report: SpeedReport, row: Row) -> tuple[str, ...]:
    latency = row.latency
    return (
        str(row.route),
        milliseconds(latency.milliseconds_median),
        f"{milliseconds(latency.milliseconds_p05)} to {milliseconds(latency.milliseconds_p95)}",
        f"{latency.images_per_second:,.1f}",
        "" if row.floor is None else f"{milliseconds(1000 * row.floor.seconds)}{'' if row.floor.by == 'multiply-adds' else ' *'}",
        "" if row.share is None else f"{row.share:.0%}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.0f}",
        cosine(row),
        times(report.as_teacher_there(row)),
        times(report.as_best_teacher(row)),
    )


def notes(report: SpeedReport) -> list[str]:
    """What the figures mean, what the models are, and what is left out."""
    where = report.circumstances
    libraries = ", ".join(f"{library} {number}" for library, number in where.versions.items())
    capability = f" ({where.capability})" if where.capability else ""
    compared = f"cosine in the mean (and at the least) over {where.images}"
    told = [f"{where.device}{capability}, {where.threads} threads; {compared}; {libraries}"]
    told += [
        f"{model.name}: {model.description}, {model.cost.multiply_adds / 1e9:.2f} G multiply-adds, "
        f"{model.cost.parameters / 1e6:.1f} M parameters"
        for model in report.models
    ]
    told += _cheaper(report)
    if any(row.floor is not None and row.floor.by == "weights" for row in report.rows):
        told.append("* floor of reading the weights; the others are of multiply-adds")
    if not where.photographs and any(row.route.precision == "int8" for row in report.rows):
        told.append("int8 was calibrated on noise, so that its cosine says nothing: name photographs with --images")
    return told + [f"left out: {line}" for line in report.left_out]


def _cheaper(report: SpeedReport) -> list[str]:
    """A line for each model that some backends run with fewer multiply-adds."""
    lines = []
    for model in report.models:
        rows = [row for row in report.rows if row.route.model == model.name and row.multiply_adds != model.cost.multiply_adds]
        if rows:
            backends = ", ".join(dict.fromkeys(row.route.backend for row in rows))
            count = f"{rows[0].multiply_adds / 1e9:.2f} G multiply-adds"
            lines.append(f"{model.name} on {backends}: folded for its embedding alone, {count}")
    return lines


def summary(report: SpeedReport) -> str:
    """The student's best in a sentence."""
    told = []
    for batch in report.batches:
        best = next(iter(report.find(batch, model="student")), None) or next(row for row in report.rows if row.batch == batch)
        beside = report.as_best_teacher(best)
        ratio = "" if beside is None or best.route.model == "teacher" else f", {beside:.1f} times the teacher's best"
        told.append(
            f"batch {batch}: {best.route} with {milliseconds(best.latency.milliseconds_median)} ms, "
            f"{best.latency.images_per_second:,.1f} images/s{ratio}"
        )
    return f"Fastest, {'; '.join(told)}."


def milliseconds(value: float) -> str:
    """Three digits of a time."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: float | None) -> str:
    """A ratio, or nothing."""
    return "" if ratio is None else f"{ratio:.2f}"


def cosine(row: Row) -> str:
    """In the mean and at the least, or nothing."""
    return "" if row.cosine is None else f"{row.cosine.mean:.4f} ({row.cosine.least:.4f})"
