"""The tables of a comparison: recipes side by side, and the paper's Table 1."""

from __future__ import annotations

from benchmarks.recipes.report import Figures, Findings, RowReport, Spread, figures
from benchmarks.text_table import TextTable
from sparseformers.inheritance import Shares


def recipes_table(report: Findings) -> TextTable:
    """A row per recipe, below those of the teacher and of what needs no training.

    The column of top-1 is left out where the teacher has no classifier of these classes.
    """
    untrained = {"teacher": report.teacher} | report.baselines
    rows = [(name, figures([measurement])) for name, measurement in untrained.items()]
    rows += [(row.row.name, row.figures) for row in report.rows if row.figures is not None]
    columns = {
        "": lambda name, row: name,
        "top-1": lambda name, row: percent(row.top1),
        "centred cosine": lambda name, row: decimal(row.centred_cosine),
        "drop-in k-NN": lambda name, row: percent(row.knn_drop_in),
        "10-NN agreement": lambda name, row: percent(row.neighbour_agreement),
        "multiply-adds": lambda name, row: giga(row.multiply_adds),
        "share": lambda name, row: f"{report.share(row.multiply_adds):.0%}",
        "parameters": lambda name, row: million(row.parameters),
        "samples": lambda name, row: "" if row.samples is None else f"{row.samples.mean:,.0f}",
        "minutes": lambda name, row: "" if row.minutes is None else f"{row.minutes.mean:.1f}",
        "seeds": lambda name, row: "" if row.samples is None else f"{row.samples.n}",
    }
    if all(row.top1 is None for _, row in rows):
        del columns["top-1"]
    return TextTable(
        title=_title(report, "Recipes"),
        columns=tuple(columns),
        rows=tuple(tuple(text(name, row) for text in columns.values()) for name, row in rows),
        notes=report.notes,
    )


def table_1(report: Findings) -> TextTable:
    """The rows in the form of the paper's Table 1, with the centred cosine added.

    The column of top-1 is left out where the teacher has no classifier of these classes.
    """
    rows = [(row, row.figures) for row in report.rows]
    known = [(row, found) for row, found in rows if found is not None]
    has_top1 = any(found.top1 is not None for _, found in known)
    columns = (
        "",
        "truncated",
        "tunable",
        *(["top-1"] if has_top1 else []),
        "centred cosine",
        "multiply-adds",
        "parameters",
        "seeds",
    )
    return TextTable(
        title=_title(report, "Truncating, tuning and freezing"),
        columns=columns,
        rows=tuple(_table_1_row(row, found, has_top1=has_top1) for row, found in known),
        notes=report.notes,
    )


def _table_1_row(row: RowReport, found: Figures, *, has_top1: bool) -> tuple[str, ...]:
    shares = row.runs[0].shares
    return (
        row.row.name,
        str(shares.truncate),
        tunable(shares),
        *([percent(found.top1)] if has_top1 else []),
        decimal(found.centred_cosine),
        giga(found.multiply_adds),
        million(found.parameters),
        str(len(row.runs)),
    )


def tunable(shares: Shares) -> str:
    """Tuned blocks of those that are kept, as the paper writes it: ``4 of 8``."""
    return f"{shares.tune} of {shares.tune + shares.freeze}"


def percent(value: Spread | None) -> str:
    """A share in per cent, with its spread over seeds."""
    if value is None:
        return ""
    return f"{100 * value.mean:.1f}%" if value.deviation is None else f"{100 * value.mean:.1f} ± {100 * value.deviation:.1f}%"


def decimal(value: Spread | None) -> str:
    """A figure with three decimals, with its spread over seeds."""
    if value is None:
        return ""
    return f"{value.mean:.3f}" if value.deviation is None else f"{value.mean:.3f} ± {value.deviation:.3f}"


def giga(multiply_adds: int) -> str:
    """Multiply-adds in thousands of millions."""
    return f"{multiply_adds / 1e9:.2f} G"


def million(parameters: int) -> str:
    """Parameters in millions."""
    return f"{parameters / 1e6:.1f} M"


def _title(report: Findings, what: str) -> str:
    height, width = report.conditions.image_size
    return (
        f"{what}: {report.tokens} tokens, {report.budget} each, at {height} x {width}, "
        f"on {report.conditions.test_images:,} test images"
    )
