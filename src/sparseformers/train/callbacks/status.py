"""The signs of life that a run writes, and its status, read from its folder alone, also from another machine."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from sparseformers.settings import from_dict, to_dict
from sparseformers.train.callbacks import Callback
from sparseformers.train.lengths import Budget
from sparseformers.train.run_folder import RunFolder

if TYPE_CHECKING:
    from sparseformers.train.state import TrainingState

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # a run without a sign of life for so long is taken for dead
RECENT = 5  # lines of the metrics that the newest figures are means of
CURVE = 40  # losses that a curve is drawn through
State = Literal["running", "finished", "stopped", "dead", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life; the process says its state itself, and cannot say that it was killed."""

    state: Literal["running", "finished", "stopped"]
    reason: str = ""  # for stopping
    at: float  # seconds since 1970, by the clock of its machine
    host: str
    pid: int
    samples: int = 0  # images seen
    progress: float = 0.0  # share of the budget that is spent, in [0, 1]
    seconds: float = 0.0  # spent training


class Heartbeat(Callback):
    """Writes signs of life, and how it ended, from a thread of the main process; a file that cannot be written stops nothing."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes
        self._beat = Beat(state="running", at=time.time(), host=socket.gethostname(), pid=os.getpid())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        if self.writes:
            self._write()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.writes:
            return
        self._over.set()
        self._thread.join()
        if kind is None:
            self._beat = dataclasses.replace(self._beat, state="finished")
        else:
            reason = "interrupted" if issubclass(kind, KeyboardInterrupt) else f"{kind.__name__}: {error}"
            self._beat = dataclasses.replace(self._beat, state="stopped", reason=reason)
        self._write()

    def on_start(self, state: TrainingState) -> None:
        self.on_step(state, None)

    def on_step(self, state: TrainingState, figures: Mapping[str, float] | None) -> None:
        self._beat = dataclasses.replace(self._beat, samples=state.samples, progress=state.progress, seconds=state.seconds)

    def _repeat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        # Not by way of tempfile, whose lock a data worker that is forked at this moment would inherit for good.
        temporary = self.path.with_name(f".{self.path.name}.part")
        with suppress(OSError):
            temporary.write_text(json.dumps(to_dict(dataclasses.replace(self._beat, at=time.time()))) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)


def read_beat(path: Path) -> Beat | None:
    """The last sign of life; None if there never was one, or it cannot be read."""
    try:
        return from_dict(Beat, json.loads(path.read_text(encoding="utf-8")))
    except Exception:  # a file of another version, or of anything else, says nothing
        return None


def is_gone(beat: Beat) -> bool:
    """Whether its process is known to have ended; False on other machines, whose processes cannot be asked for here."""
    if os.name != "posix" or beat.host != socket.gethostname():
        return False
    try:
        os.kill(beat.pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # any other says that it is another user's
    return False


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run at the moment of asking; figures that are not known yet are None. Times of day are seconds since 1970."""

    path: Path
    state: State  # ``stopped`` said so itself; ``dead`` did not; a folder without any sign of life is ``unknown``
    message: str
    last_sign: float | None
    host: str | None
    pid: int | None
    progress: float  # share of the budget that is spent, in [0, 1]
    samples: int
    total_samples: int | None  # None for a run on the clock
    seconds: float  # spent training, over all resumptions
    seconds_left: float | None  # by the newest rate
    loss: float | None  # mean of the last lines
    loss_change: float | None  # relative to the mean of as many lines before
    losses: tuple[float, ...]
    held_out_first: float | None  # centred cosine before the first step
    held_out_best: float | None
    held_out_last: float | None
    cosine_mean: float | None
    cosine_p05: float | None  # the 5th percentile
    images_per_second: float | None  # of all processes, mean of the last lines
    data_wait: float | None  # share of the time of the last lines, in [0, 1]
    peak_memory_gib: float | None
    non_finite_steps: int
    skipped_images: int  # unreadable ones, as of the last checkpoint
    checkpoint: Path | None  # the newest one
    checkpoint_time: float | None
    resume: str | None  # the command that goes on, for a run that can be resumed


def read_status(path: Path, *, now: float | None = None) -> RunStatus:
    """Reads how the run in a folder is doing; raises RunError if it is none, or its settings cannot be read."""
    run = RunFolder.existing(path)
    now = time.time() if now is None else now
    resolved, beat, entries = run.read_config()["resolved"], read_beat(run.heartbeat), run.read_metrics()
    steps = [entry for entry in entries if entry["kind"] == "train"]
    held_out = [entry for entry in entries if entry["kind"] == "held_out"]
    samples, seconds, progress = _place(resolved, beat, entries)
    state, message = _state(run, beat, now)
    rate = _recent(steps, "images_per_second")
    checkpoint = next(reversed(run.checkpoint_folders()), None)
    can_be_resumed = checkpoint is not None and state not in ("finished", "running")
    return RunStatus(
        path=path,
        state=state,
        message=message,
        last_sign=beat.at if beat else None,
        host=beat.host if beat else None,
        pid=beat.pid if beat else None,
        progress=progress,
        samples=samples,
        total_samples=resolved.get("budget_samples"),
        seconds=seconds,
        seconds_left=0.0 if state == "finished" else _seconds_left(resolved, samples, seconds, rate),
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
        skipped_images=len(run.read_skipped()),
        checkpoint=checkpoint,
        checkpoint_time=checkpoint.stat().st_mtime if checkpoint else None,
        resume=f"sparseformers resume {shlex.quote(str(path))}" if can_be_resumed else None,
    )


def _state(run: RunFolder, beat: Beat | None, now: float) -> tuple[State, str]:
    if beat is None:
        # The card is written last.
        return ("finished", "It is finished.") if run.card.is_file() else ("unknown", "It never gave a sign of life.")
    when = _when(beat.at, now)
    if beat.state == "finished":
        return "finished", f"It finished {when}."
    if beat.state == "stopped":
        return "stopped", f"It stopped {when} ({beat.reason})."
    if is_gone(beat):
        return "dead", f"Its process {beat.pid} is gone: no sign of life since {when}."
    if now - beat.at > SILENT_SECONDS:
        return "dead", f"No sign of life since {when}, from process {beat.pid} on {beat.host}."
    return "running", f"It is running as process {beat.pid} on {beat.host}."


def _when(moment: float, now: float) -> str:
    """A time as a person reads it, such as ``2026-01-31 10:20:30 (5 min ago)``."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    ago = max(0.0, now - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if ago >= 2 * length:
            return f"{clock} ({ago / length:.0f} {unit} ago)"
    return f"{clock} ({ago:.0f} s ago)"


def _place(resolved: Mapping[str, Any], beat: Beat | None, entries: Sequence[Mapping[str, Any]]) -> tuple[int, float, float]:
    """Images, seconds and progress that the run has reached, by the sign of life or the metrics, whichever is newer."""
    last = entries[-1] if entries else {"samples": 0, "seconds": 0.0}
    samples, seconds = int(last["samples"]), float(last["seconds"])
    if beat is not None and beat.samples >= samples:
        return beat.samples, beat.seconds, beat.progress
    budget = Budget(resolved.get("budget_samples"), resolved.get("budget_seconds"))
    return samples, seconds, budget.progress(samples=samples, seconds=seconds)


def _seconds_left(resolved: Mapping[str, Any], samples: int, seconds: float, rate: float | None) -> float | None:
    if resolved.get("budget_seconds"):
        return max(0.0, float(resolved["budget_seconds"]) - seconds)
    total = resolved.get("budget_samples")
    return max(0, total - samples) / rate if total and rate else None


def _recent(entries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return statistics.fmean(entry[name] for entry in entries[-RECENT:]) if entries else None


def _change(losses: Sequence[float]) -> float | None:
    late, before = losses[-RECENT:], losses[-2 * RECENT : -RECENT]
    if len(before) < RECENT or not (reference := statistics.fmean(before)):
        return None
    return statistics.fmean(late) / reference - 1


def _last(entries: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return entries[-1].get(name) if entries else None
