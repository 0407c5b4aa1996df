"""Reads a run folder, whatever is in it: a run that is finished, at work or dead, or of an earlier version.

Nothing is loaded but small files: neither the teacher, nor the student, nor the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseformers.train.held_out_record import HeldOutRecord, Moment, Picture, ViewCosine
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.status import RunStatus, read_beat, read_status
from sparseformers.train.summary import Costs, recorded_costs

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class RunContent:
    """All that the report of a run shows."""

    path: Path
    status: RunStatus
    reason: str  # for stopping, if it said so
    settings: Mapping[str, Any]  # as asked for, in groups
    resolved: Mapping[str, Any]  # what became of open settings
    versions: Mapping[str, Any]  # of Python and of packages
    steps: Entries  # lines of the metrics on training steps
    held_out: Entries  # lines of the metrics on held-out images
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
