"""How a run is doing, from its folder alone: nothing is loaded, and the run need not be on this machine."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sparseformers.train.budget import Budget
from sparseformers.train.reporting.heartbeat import SILENT_SECONDS, Beat, is_gone, read_beat
from sparseformers.train.run_folder import RunFolder

RECENT = 5
"""So many lines of the metrics are "of late"."""
CURVE = 40
"""Losses that the summary keeps, for a curve."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run at the moment of looking."""

    path: Path
    """The run folder."""
    state: Literal["running", "finished", "stopped", "dead", "unknown"]
    """``stopped`` said so itself; ``dead`` did not; a folder without any sign of life is ``unknown``."""
    message: str
    """The state in a sentence."""
    last_sign: float | None
    """When it was last heard of, in seconds since 1970."""
    host: str | None
    """Where it ran last."""
    pid: int | None
    """As which process."""
    progress: float
    """Share of the budget that is spent, in [0, 1]."""
    samples: int
    """Images seen."""
    total_samples: int | None
    """Images to see; None for a run on the clock."""
    seconds: float
    """Time spent training, over all resumptions."""
    seconds_left: float | None
    """Estimated from the rate of late; None if that is not known yet."""
    loss: float | None
    """Mean of the last lines."""
    loss_change: float | None
    """By how much of it that is more than the mean of as many lines before."""
    losses: tuple[float, ...]
    """Of the last lines, oldest first."""
    held_out_first: float | None
    """Centred cosine on the held-out images before the first step."""
    held_out_best: float | None
    """The highest so far."""
    held_out_last: float | None
    """The newest."""
    cosine_mean: float | None
    """Mean of the plain cosine, the newest."""
    cosine_p05: float | None
    """Its 5th percentile."""
    images_per_second: float | None
    """Of late, over all processes."""
    data_wait: float | None
    """Share of the time spent waiting for images of late, in [0, 1]."""
    peak_memory_gib: float | None
    """Most memory held."""
    non_finite_steps: int
    """Steps that were skipped because something was not a finite number."""
    skipped_images: int
    """Images that could not be read, as of the last checkpoint."""
    checkpoint: Path | None
    """The newest one to resume from."""
    checkpoint_time: float | None
    """When it was written, in seconds since 1970."""
    resume: str | None
    """The command that goes on with it, where there is something to go on with and nobody is at it."""


def read_status(path: Path, *, now: float | None = None) -> RunStatus:
    """Looks at a run.

    Args:
        path: the run folder.
        now: the time, in seconds since 1970; that of this machine by default.

    Raises:
        RunError: if ``path`` is no run, or its configuration cannot be read.
    """
    run = RunFolder.existing(path)
    now = time.time() if now is None else now
    resolved, beat, entries = run.read_config()["resolved"], read_beat(run.heartbeat), run.read_metrics()
    steps = [entry for entry in entries if entry["kind"] == "train"]
    held_out = [entry for entry in entries if entry["kind"] == "held_out"]
    place = _place(resolved, beat, entries)
    state, message = _state(run, beat, now)
    rate = _recent(steps, "images_per_second")
    checkpoint = next(reversed(run.checkpoint_folders()), None)
    finished_or_at_it = state in ("finished", "running")
    return RunStatus(
        path=path,
        state=state,
        message=message,
        last_sign=beat.at if beat else None,
        host=beat.host if beat else None,
        pid=beat.pid if beat else None,
        progress=place.progress,
        samples=place.samples,
        total_samples=resolved.get("budget_samples"),
        seconds=place.seconds,
        seconds_left=0.0 if state == "finished" else _seconds_left(resolved, place, rate),
        loss=_recent(steps, "loss"),
        loss_change=_change([entry["loss"] for entry in steps]),
        losses=tuple(entry["loss"] for entry in steps[-CURVE:]),
        held_out_first=held_out[0]["centred_cosine"] if held_out else None,
        held_out_best=max((entry["centred_cosine"] for entry in held_out), default=None),
        held_out_last=_last(held_out, "centred_cosine"),
        cosine_mean=_last(held_out, "cosine_mean"),
        cosine_p05=_last(held_out, "cosine_p05"),
        images_per_second=rate,
        data_wait=_recent(steps, "data_wait"),
        peak_memory_gib=max((entry["peak_memory_gib"] for entry in steps), default=None),
        non_finite_steps=int(_last(steps, "non_finite_steps") or 0),
        skipped_images=_skipped(run.skipped),
        checkpoint=checkpoint,
        checkpoint_time=checkpoint.stat().st_mtime if checkpoint else None,
        resume=None if finished_or_at_it or checkpoint is None else f"sparseformers resume {shlex.quote(str(path))}",
    )


class _Place(NamedTuple):
    """How far a run is."""

    samples: int
    seconds: float
    progress: float


def _state(
    run: RunFolder, beat: Beat | None, now: float
) -> tuple[Literal["running", "finished", "stopped", "dead", "unknown"], str]:
    """What has become of the process, without trusting the number of a process on another machine."""
    if beat is None:
        if run.card.is_file():  # it is written last
            return "finished", "It is finished."
        return "unknown", "It never gave a sign of life."
    if beat.state == "finished":
        return "finished", f"It finished {_when(beat.at, now)}."
    if beat.state == "stopped":
        return "stopped", f"It stopped {_when(beat.at, now)} ({beat.reason})."
    if is_gone(beat):
        return "dead", f"Its process {beat.pid} is gone: no sign of life since {_when(beat.at, now)}."
    if now - beat.at > SILENT_SECONDS:
        return "dead", f"No sign of life since {_when(beat.at, now)}, from process {beat.pid} on {beat.host}."
    return "running", f"It is running as process {beat.pid} on {beat.host}."


def _when(moment: float, now: float) -> str:
    """A time as a person reads it, such as ``2026-01-31 10:20:30 (5 min ago)``."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    ago = max(0.0, now - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if ago >= 2 * length:
            return f"{clock} ({ago / length:.0f} {unit} ago)"
    return f"{clock} ({ago:.0f} s ago)"


def _place(resolved: Mapping[str, Any], beat: Beat | None, entries: Sequence[Mapping[str, Any]]) -> _Place:
    """From the sign of life or the metrics, whichever is newer."""
    last = entries[-1] if entries else {"samples": 0, "seconds": 0.0}
    samples, seconds = int(last["samples"]), float(last["seconds"])
    if beat is not None and beat.samples >= samples:
        return _Place(beat.samples, beat.seconds, beat.progress)
    budget = Budget(resolved.get("budget_samples"), resolved.get("budget_seconds"))
    return _Place(samples, seconds, budget.progress(samples=samples, seconds=seconds))


def _seconds_left(resolved: Mapping[str, Any], place: _Place, rate: float | None) -> float | None:
    if resolved.get("budget_seconds"):
        return max(0.0, float(resolved["budget_seconds"]) - place.seconds)
    total = resolved.get("budget_samples")
    return max(0, total - place.samples) / rate if total and rate else None


def _recent(entries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [entry[name] for entry in entries[-RECENT:]]
    return statistics.fmean(values) if values else None


def _change(losses: Sequence[float]) -> float | None:
    """The mean of the last lines against that of as many lines before, as a share of the latter."""
    late, before = losses[-RECENT:], losses[-2 * RECENT : -RECENT]
    if len(before) < RECENT or not (reference := statistics.fmean(before)):
        return None
    return statistics.fmean(late) / reference - 1


def _last(entries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return entries[-1].get(name) if entries else None


def _skipped(path: Path) -> int:
    """Lines of the list of unreadable images, without its heading."""
    if not path.is_file():
        return 0
    return sum(not line.startswith("#") for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
