"""A run on one page: here its folder is read and the page is written, ``figures`` draws, ``tables`` and ``page`` lay it out.

Whatever is in the folder is shown: a run that is finished, at work or dead, or of an earlier version. Nothing is loaded but small
files: neither the teacher, nor the student, nor the data.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import Tensor

from sparseformers.errors import RunError
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.files import replacing
from sparseformers.progress import say
from sparseformers.train.callbacks import Callback
from sparseformers.train.callbacks.held_out_record import HeldOutRecord, Moment, Picture, ViewCosine
from sparseformers.train.callbacks.status import RunStatus, read_beat, read_status
from sparseformers.train.callbacks.summary import Costs, RunSummary, recorded_costs
from sparseformers.train.held_out import first_views, rois_move
from sparseformers.train.report.figures import Detail
from sparseformers.train.report.page import draw_curves, page_of
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.setup import Parts

if TYPE_CHECKING:
    from jinja2 import Template

LOGGER = logging.getLogger("sparseformers")
PICTURED_IMAGES = 6  # held-out images in the picture of RoIs
MOST_BYTES = 5_000_000  # largest size of a report
DETAILS = (  # from the finest to no pictures at all; the first with which a report is small enough is taken
    Detail(images=4, dots_per_inch=110, worst=12, side=224, quality=84),
    Detail(images=4, dots_per_inch=80, worst=12, side=160, quality=70),
    Detail(images=2, dots_per_inch=60, worst=6, side=112, quality=55),
    Detail(images=0, dots_per_inch=1, worst=0, side=1, quality=1),
)
TOO_LARGE = "There is no room for the pictures in a report of this size."


@dataclass(frozen=True, eq=False, kw_only=True)
class RunContent:
    """All that the report of a run shows."""

    path: Path
    status: RunStatus
    reason: str  # for stopping, if it said so
    settings: Mapping[str, Any]  # as asked for, in groups
    resolved: Mapping[str, Any]  # what became of open settings
    versions: Mapping[str, Any]  # of Python and of packages
    steps: Sequence[Mapping[str, Any]]  # lines of the metrics on training steps
    held_out: Sequence[Mapping[str, Any]]  # lines of the metrics on held-out images
    costs: Costs | None  # None where they were not written down
    images: tuple[Picture, ...]  # the held-out images that the RoIs are of
    moments: tuple[Moment, ...]  # kept RoIs, all of the same images and numbers of tokens
    cosines: tuple[ViewCosine, ...]  # of each held-out view at the newest measurement
    worst_pictures: Mapping[int, Tensor]  # 3 x H x W bytes, by the index of the view
    skipped: Sequence[tuple[str, str]]  # names and reasons of unreadable images

    @property
    def front(self) -> Mapping[str, Any]:
        """The configuration of the student's front, as far as it is known."""
        focusing = self.resolved.get("model", {}).get("focusing", {})
        return focusing if isinstance(focusing, dict) else {}

    @property
    def moves_rois(self) -> bool:
        """Whether the student's front can move RoIs: those of the grid front stay on their cells."""
        return self.front.get("kind", "focusing") != "grid"


def collect(run: RunFolder) -> RunContent:
    """Reads a run folder; raises RunError if it is no run, or its configuration cannot be read."""
    status, content = read_status(run.path), run.read_config()
    beat, entries, record = read_beat(run.heartbeat), run.read_metrics(), HeldOutRecord(run.held_out)
    images = record.images()
    moments = [moment for moment in record.moments() if len(moment.rois) == len(moment.points) == len(images)]
    return RunContent(
        path=run.path,
        status=status,
        reason=beat.reason if beat else "",
        settings=content["settings"],
        resolved=content["resolved"],
        versions=run.read_manifest().get("versions", {}),
        steps=tuple(entry for entry in entries if entry["kind"] == "train"),
        held_out=tuple(entry for entry in entries if entry["kind"] == "held_out"),
        costs=recorded_costs(content["resolved"]),
        images=tuple(images),
        moments=tuple(moment for moment in moments if moment.rois.shape == moments[-1].rois.shape),
        cosines=tuple(record.cosines()),
        worst_pictures=record.worst(),
        skipped=run.read_skipped(),
    )


@dataclass(frozen=True)
class ReportFile:
    """A report that was written."""

    path: Path
    bytes: int
    missing: tuple[str, ...]  # sentences on what it cannot show, and why


def write_report(run: RunFolder, out: Path | None = None, *, finished: bool = False, most_bytes: int = MOST_BYTES) -> ReportFile:
    """Puts a run on a page: curves, cost, where RoIs went, its worst images, what was skipped, and its configuration.

    Needs the run folder alone, and shows what there is of a run that is not at its end, or of an earlier version. ``out`` is the
    file to write or replace (default: ``report.html`` in the run folder); ``finished`` says that the run is at its end before its
    folder does; pictures become coarser and fewer until the file has at most ``most_bytes``. Raises RunError if the folder is no
    run, or the file cannot be written or made so small.
    """
    content = collect(run)
    if finished:
        content = dataclasses.replace(content, status=dataclasses.replace(content.status, state="finished", resume=None))
    path = run.report if out is None else out
    text, page = fitted(content, most_bytes)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(text)
    except OSError as error:
        problem = f"The report '{path}' cannot be written ({error.strerror or error})."
        raise RunError(problem, "Choose another place with --out.") from error
    # That no image was skipped is nothing that the report lacks.
    return ReportFile(path, len(text), tuple(sentence for name, sentence in page["missing"].items() if name != "skipped"))


class ReportPage(Callback):
    """Puts a finished run on a page; whatever goes wrong with that, the run is finished all the same."""

    def __init__(self, run: RunFolder, console: Console) -> None:
        self.run, self.console = run, console

    def on_end(self, parts: Parts | None = None, summary: RunSummary | None = None) -> None:
        try:
            write_report(self.run, finished=True)
        except Exception as error:
            note = f"The report of the run could not be made ({type(error).__name__}: {error}). The run is finished all the same."
            LOGGER.warning(note, exc_info=True)
            say(self.console, note, "yellow")
            say(self.console, f"Make it again by: sparseformers report {self.run.path}")


class Pictures(Callback):
    """Draws the curves of a finished training and, where RoIs can move, those on the first held-out images, or the map."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_end(self, parts: Parts, summary: RunSummary) -> None:
        from sparseformers.figures import curves_figure, draw_map, draw_student, save_figure, trace_rois
        from sparseformers.figures.map import trace_maps

        student = parts.inheritance.student
        if rois_move(student):
            images, titles = first_views(parts, PICTURED_IMAGES)
            if parts.has_map:
                figure = draw_map(trace_maps(student, AttendingTeacher(parts.teacher), images, titles))
            else:
                figure = draw_student(trace_rois(student, images, titles))
            save_figure(figure, self.run.picture)
        save_figure(curves_figure(self.run.read_metrics()), self.run.curves)


def fitted(content: RunContent, most_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """The report, at most so many bytes, and the page that it was made from; raises RunError if it is too large."""
    curves = draw_curves(content)
    for detail in DETAILS:
        page = page_of(content, detail, curves=curves)
        if not detail.images and content.moves_rois and content.moments:
            page["missing"]["rois"] = TOO_LARGE
        if len(text := render(page)) < most_bytes:
            return text, page
    problem = f"The report of '{content.path}' has more than {most_bytes:,} bytes without any picture."
    raise RunError(problem, "Shorten its lists.")


def render(page: Mapping[str, Any]) -> bytes:
    """The page as one HTML file in UTF-8 that fetches nothing: figures inside, no script, and a policy that forbids the rest."""
    template, style = _template()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return template.render(page=page, style=style, digest=digest).encode()


@cache
def _template() -> tuple[Template, str]:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html, style = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("template.html", "style.css"))
    return environment.from_string(html), style
