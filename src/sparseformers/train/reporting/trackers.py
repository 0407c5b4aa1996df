"""TensorBoard, Weights & Biases and trackio beside ``metrics.jsonl``, through accelerate's trackers; on the main process only.

A tracker never stops a training: one that fails, as for want of a network, is left out from there on, and the log says so.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.files import write_json
from sparseformers.settings import to_dict
from sparseformers.train.config import BootstrapConfig
from sparseformers.train.run_folder import RunFolder

LOGGER = logging.getLogger("sparseformers")


def chosen_trackers(asked: Sequence[str]) -> tuple[str, ...]:
    """What ``--trackers`` means on this machine, before anything is loaded.

    Raises:
        MissingExtraError: for a tracker that is named and not installed.
        ConfigError: for ``none`` or ``auto`` beside others.
    """
    if alone := [name for name in asked if name in ("none", "auto")]:
        if len(asked) > 1:
            raise ConfigError(
                f"--trackers {' '.join(asked)} is at odds with itself.", f"Give '{alone[0]}' alone, or leave it out."
            )
        return ("tensorboard",) if alone == ["auto"] and find_spec("tensorboard") else ()
    for name in asked:
        if find_spec(name) is None:
            raise MissingExtraError.for_package(name, name)
    return tuple(dict.fromkeys(asked))


class Trackers:
    """The trackers of one run; a run that is resumed goes on in the same ones.

    Args:
        settings: of the run.
        run: its folder; TensorBoard's files and those of Weights & Biases lie in it.
        samples: images seen before.
        writes: whether this is the main process; the others track nothing.
    """

    def __init__(self, settings: BootstrapConfig, run: RunFolder, *, samples: int, writes: bool) -> None:
        self._open: dict[str, GeneralTracker] = {}
        for name in chosen_trackers(settings.trackers) if writes else ():
            self._guarded(name, lambda name=name: self._start(name, settings, run, samples))  # type: ignore[misc]

    def log(self, kind: str, figures: Mapping[str, Any], samples: int) -> None:
        """Passes on what is a number, as ``kind/name``.

        Args:
            kind: of a line of ``metrics.jsonl``.
            figures: by name.
            samples: images seen; the step of all trackers.
        """
        values = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        for name, tracker in list(self._open.items()):
            self._guarded(name, lambda tracker=tracker: tracker.log(values, step=samples))  # type: ignore[misc]

    def close(self) -> None:
        """Ends the trackers' runs."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.finish)
        self._open.clear()

    def _start(self, name: str, settings: BootstrapConfig, run: RunFolder, samples: int) -> None:
        tracker = _make(name, settings, run, samples)
        tracker.start()
        self._open[name] = tracker
        if name == "tensorboard" and not samples:
            tracker.log({"settings": f"```json\n{json.dumps(to_dict(settings), indent=2)}\n```"}, step=0)

    def _guarded(self, name: str, work: Callable[[], object]) -> None:
        """Does something with a tracker, and leaves the tracker out if that fails."""
        try:
            work()
        except Exception as error:  # whatever a network, a server or a full disk leads its library to
            self._open.pop(name, None)
            LOGGER.warning("the training goes on without %s: %s: %s", name, type(error).__name__, error)


def _make(name: str, settings: BootstrapConfig, run: RunFolder, samples: int) -> GeneralTracker:
    """The tracker, not started: where it writes, and which of its runs it is."""
    if name == "tensorboard":
        # What a stopped run wrote after its checkpoint is measured again.
        return TensorBoardTracker("", run.path / "tensorboard", purge_step=samples + 1 if samples else None)
    title = run.path.absolute().name
    if name == "wandb":
        return WandBTracker(
            settings.tracker_project,
            id=_identity(run.path / "tracker.json"),
            name=title,
            dir=str(run.path),
            resume="allow",
            config=to_dict(settings),
            settings={"console": "off"},  # the log and the bar are ours
        )
    identity = _identity(run.path / "tracker.json")
    return TrackioTracker(settings.tracker_project, name=f"{title}-{identity}", resume="allow", config=to_dict(settings))


def _identity(path: Path) -> str:
    """What the run is called at trackers that know many: made once, so that a resumed run finds itself."""
    if not path.is_file():
        write_json(path, {"id": uuid.uuid4().hex[:8]})
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])
