"""The tables of a report: rows of cells, each a text and, where it is a figure, the figure itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sparseformers.files import cut, printable
from sparseformers.progress import duration
from sparseformers.settings import to_dict
from sparseformers.train.callbacks.summary import Costs
from sparseformers.train.settings import BootstrapConfig

if TYPE_CHECKING:
    from sparseformers.train.report import RunContent

MOST_MEASUREMENTS = 40  # rows of the table of measurements
MOST_SKIPPED = 300  # rows of the table of images that could not be read
MOST_VALUES = 400  # rows of a table of settings
LONGEST = 400  # letters of a name or value; of a longer one the middle is left out
MEASURES: tuple[tuple[str, str, int | None], ...] = (  # title, key in ``metrics.jsonl``, digits; None for a share
    ("centred cosine", "centred_cosine", 4),
    ("cosine", "cosine_mean", 4),
    ("its 5th percentile", "cosine_p05", 4),
    ("of a constant", "constant_baseline", 4),
    ("neighbours in common", "neighbour_agreement", None),
    ("RoIs moved by", "roi_movement", 4),
    ("RoI side", "roi_size", 4),
    ("covered by RoIs", "roi_coverage", None),
    ("map's divergence", "map_divergence", 4),
    ("heaviest parts found", "map_overlap", None),
    ("of feature maps", "dense_cosine", 4),
)
ROI_UNITS = "RoI lengths are shares of the image's sides."
MAP_UNITS = (
    "The map's divergence is Kullback-Leibler's from the teacher's attention, in nats; heaviest parts found: how much of the "
    "third that the teacher attends to most is in the map's own."
)


class Cell(NamedTuple):
    """A text, and the figure in full that it stands for."""

    text: str
    value: float | None = None


class Row(NamedTuple):
    """A label and its cells; a marked row stands out."""

    label: str
    cells: tuple[Cell, ...]
    marked: bool = False


class Table(NamedTuple):
    """Rows below the names of their columns, the first of which has the labels, and a sentence on them."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


def number(value: float | None, digits: int, unit: str = "", *, per: float = 1) -> Cell:
    """A figure, divided by ``per``, with so many digits; a dash for None."""
    return Cell("-" if value is None else f"{value / per:,.{digits}f}{unit}", value)


def share(value: float | None, digits: int = 1) -> Cell:
    """A share as a percentage; its value is the share."""
    return Cell("-" if value is None else f"{100 * value:.{digits}f}%", value)


def facts(content: RunContent) -> Table:
    """The course of the training in figures."""
    status, steps, resolved = content.status, content.steps, content.resolved
    total = "" if status.total_samples is None else f" of {status.total_samples:,}"
    values = {
        "images seen": Cell(f"{status.samples:,}{total}", status.samples),
        "different images to learn from": number(resolved.get("train_images"), 0),
        "held-out images": number(resolved.get("held_out_images"), 0),
        "time spent training": Cell(duration(status.seconds), status.seconds),
    }
    if steps:
        first, last = steps[0], steps[-1]
        values |= {
            f"loss over the first {first['samples']:,} images": number(first["loss"], 5),
            f"loss, the last line ({last['samples']:,} images)": number(last["loss"], 5),
            "images a second, of late": number(status.images_per_second, 1),
            "waiting for data, of late": share(status.data_wait),
            "peak memory": number(status.peak_memory_gib, 2, " GiB"),
        }
    values["steps skipped, not finite"] = number(status.non_finite_steps, 0)
    values["images that could not be read"] = number(len(content.skipped), 0)
    return Table(("", "value"), tuple(Row(label, (cell,)) for label, cell in values.items()))


def measurements(content: RunContent) -> Table:
    """The measurements on the held-out images, one a row; of RoIs only where they move and are not told by a map."""
    held_out = content.held_out
    has_map = any("map_overlap" in entry for entry in held_out)
    of_rois = content.moves_rois and not has_map
    told = [measure for measure in MEASURES if of_rois or not measure[1].startswith("roi_")]
    known = [measure for measure in told if any(measure[1] in entry for entry in held_out)]
    shown, best = thinned(held_out, MOST_MEASUREMENTS), max((entry["centred_cosine"] for entry in held_out), default=None)
    rows = tuple(
        Row(
            f"{entry['samples']:,}",
            tuple(share(entry.get(key)) if digits is None else number(entry.get(key), digits) for _, key, digits in known),
            marked=entry["centred_cosine"] == best,
        )
        for entry in shown
    )
    left_out = len(held_out) - len(shown)
    note = MAP_UNITS if has_map else ROI_UNITS if content.moves_rois else ""
    if left_out:
        note += f" {left_out} of the {len(held_out)} measurements are left out here; metrics.jsonl has them all."
    return Table(("images seen", *(title for title, _, _ in known)), rows, note)


def cost(costs: Costs, tokens: int | None, groups: Mapping[str, int]) -> Table:
    """Student beside teacher; ``groups`` has the student's parameters by what becomes of them in training."""
    student, teacher = costs.student, costs.teacher
    rows = [
        _compared("tokens", tokens, costs.patch_tokens, 1, 0),
        _compared("parameters, M", student.parameters, teacher.parameters, 1e6, 1),
        *(Row(f"of them {name}", (number(count, 1, per=1e6), Cell(""), Cell(""))) for name, count in groups.items()),
        _compared("multiply-adds, G", student.multiply_adds, teacher.multiply_adds, 1e9, 2),
    ]
    if None not in (published := (student.published_multiply_adds, teacher.published_multiply_adds)):
        rows.append(_compared("as the papers count, G", *published, 1e9, 2))
    height, width = student.size
    note = f"For one image of {height} x {width} pixels. Multiply-adds: matrix products, those of attention included; the papers "
    note += "count layers alone. Tokens: latent ones of the student, patches of the teacher; prefix tokens come on top."
    return Table(("", "student", "teacher", "teacher / student"), tuple(rows), note)


def _compared(label: str, student: float | None, teacher: float | None, unit: float, digits: int) -> Row:
    ratio = teacher / student if student and teacher else None
    return Row(label, (number(student, digits, per=unit), number(teacher, digits, per=unit), number(ratio, 2)))


def skipped(content: RunContent) -> Table:
    """Images that could not be read, with reasons."""
    more = len(content.skipped) - MOST_SKIPPED
    note = f"{more:,} more are in skipped_images.txt." if more > 0 else ""
    return plain_table("image", content.skipped[:MOST_SKIPPED], "reason", note=note)


def settings(content: RunContent) -> Table:
    """The settings as asked for; those that differ from the default stand out."""
    defaults = dict(_named(to_dict(BootstrapConfig.of(teacher="", data=[""]))))
    rows = [
        Row(printable(name), (Cell(value_text(value)),), marked=defaults.get(name) != value or name in ("teacher", "data"))
        for name, value in _named(content.settings)
    ]
    return Table(("setting", "value"), tuple(rows[:MOST_VALUES]), "Bold: other than the default.")


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by their names without groups; version 0.1 had no groups."""
    for name, value in settings.items():
        yield from value.items() if isinstance(value, Mapping) else [(name, value)]


def plain_table(title: str, pairs: Iterable[tuple[str, Any]], value_title: str = "value", *, note: str = "") -> Table:
    """A row for each pair of a name and a value."""
    rows = tuple(Row(cut(printable(name), LONGEST), (Cell(value_text(value)),)) for name, value in pairs)
    return Table((title, value_title), rows[:MOST_VALUES], note)


def thinned(records: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many of the records, evenly spread, the first and the last one among them."""
    if len(records) <= most:
        return list(records)
    places = [round(number * (len(records) - 1) / (most - 1)) for number in range(most)]
    return [records[place] for place in places]


def value_text(value: Any) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return cut(", ".join(value_text(item) for item in value), LONGEST) or "-"
    return cut(printable(str(value)), LONGEST)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as pairs of a name with dots and a plain value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
