"""Reads a run folder, whatever is in it: a run that is finished, at work or dead, or of an earlier version.

Nothing is loaded but small files: neither the teacher, nor the student, nor the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sparseformers.train.held_out_record import HeldOutRecord, Moment, Picture, ViewCosine
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.status import RunStatus, read_beat, read_status
from sparseformers.train.summary import Costs, recorded_costs

Entries = Sequence[Mapping[str, Any]]


class SkippedImage(NamedTuple):
    """An image that could not be read."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class RunContent:
    """All that the report of a run shows."""

    path: Path
    status: RunStatus
    reason: str
    """Why it stopped, if it said so."""
    settings: Mapping[str, Any]
    """As asked for, in groups."""
    resolved: Mapping[str, Any]
    """The values that open settings were resolved to."""
    versions: Mapping[str, Any]
    """Versions of Python and of packages."""
    steps: Entries
    """Lines of the metrics on training steps."""
    held_out: Entries
    """Lines of the metrics on held-out images."""
    costs: Costs | None
    """None where they were not written down."""
    images: tuple[Picture, ...]
    """The held-out images that the RoIs are of."""
    moments: tuple[Moment, ...]
    """The RoIs that were kept in the course of the training, all of the same images and numbers of tokens."""
    cosines: tuple[ViewCosine, ...]
    """One for each view of the held-out images, as of the newest measurement."""
    worst_pictures: Mapping[int, Tensor]
    """Pictures of the worst of these, 3 x H x W bytes, by the index of the view."""
    skipped: tuple[SkippedImage, ...]
    """Images that could not be read, as of the last checkpoint."""

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
    """Reads a run folder.

    Raises:
        RunError: if it is no run, or its configuration cannot be read.
    """
    status, content = read_status(run.path), run.read_config()
    whole = json.loads(run.config.read_text(encoding="utf-8"))
    beat, entries, record = read_beat(run.heartbeat), run.read_metrics(), HeldOutRecord(run.held_out)
    images = record.images()
    return RunContent(
        path=run.path,
        status=status,
        reason=beat.reason if beat else "",
        settings=content["settings"],
        resolved=content["resolved"],
        versions=whole.get("versions", {}),
        steps=tuple(entry for entry in entries if entry["kind"] == "train"),
        held_out=tuple(entry for entry in entries if entry["kind"] == "held_out"),
        costs=recorded_costs(content["resolved"]),
        images=tuple(images),
        moments=_comparable(record.moments(), len(images)),
        cosines=tuple(record.cosines()),
        worst_pictures=record.worst(),
        skipped=_skipped(run.skipped),
    )


def _comparable(moments: Sequence[Moment], images: int) -> tuple[Moment, ...]:
    """The moments that are of as many images and of the same shape as the newest one."""
    fitting = [moment for moment in moments if len(moment.rois) == len(moment.points) == images]
    return tuple(moment for moment in fitting if moment.rois.shape == fitting[-1].rois.shape)


def _skipped(path: Path) -> tuple[SkippedImage, ...]:
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    parted = (line.partition("\t") for line in lines if line and not line.startswith("# "))
    return tuple(SkippedImage(name, reason) for name, _, reason in parted)
