"""The tables of a benchmark, for a terminal and as Markdown."""

from __future__ import annotations

from sparseformers.bench import TextTable
from sparseformers.benchmark.report import BenchmarkReport, Row

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


def benchmark_tables(report: BenchmarkReport) -> list[TextTable]:
    """A table for each batch size; what else there is to say stands below the last one."""
    tables = [
        TextTable(_title(report, batch), COLUMNS, tuple(_cells(report, row) for row in report.rows if row.batch == batch))
        for batch in report.batches
    ]
    last = tables[-1]
    return [*tables[:-1], TextTable(last.title, last.columns, last.rows, tuple(notes(report)))]


def _title(report: BenchmarkReport, batch: int) -> str:
    machine = report.machines[batch]
    rates = [f"{precision} {(machine.rate(precision) or 0) / 1e9:,.1f} G" for precision in machine.product_seconds]
    product = f"matrix product {', '.join(rates)} multiply-adds/s, " if rates else ""
    return f"Batch {batch} ({product}memory {machine.bandwidth / 1e9:.1f} GB/s)"


def _cells(report: BenchmarkReport, row: Row) -> tuple[str, ...]:
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


def notes(report: BenchmarkReport) -> list[str]:
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


def _cheaper(report: BenchmarkReport) -> list[str]:
    """A line for each model that some backends run with fewer multiply-adds."""
    lines = []
    for model in report.models:
        rows = [row for row in report.rows if row.route.model == model.name and row.multiply_adds != model.cost.multiply_adds]
        if rows:
            backends = ", ".join(dict.fromkeys(row.route.backend for row in rows))
            count = f"{rows[0].multiply_adds / 1e9:.2f} G multiply-adds"
            lines.append(f"{model.name} on {backends}: folded for its embedding alone, {count}")
    return lines


def summary(report: BenchmarkReport) -> str:
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
