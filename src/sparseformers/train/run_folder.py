"""The run folder: what lies where, who may write it, and that nothing in it is ever half-written."""

from __future__ import annotations

import errno
import json
import logging
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparseformers.errors import RunError
from sparseformers.files import write_json, write_text
from sparseformers.lock import locked
from sparseformers.saving import MODEL_FILE
from sparseformers.train.settings import BootstrapConfig, read_settings

REPORTED_PACKAGES = (
    "sparseformers",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "transformers",
    "accelerate",
    "safetensors",
)
"""Whose versions a run records."""

LOGGER = logging.getLogger("sparseformers")

NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""What systems answer when a disk, a quota or a file is full."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one bootstrapping run."""

    path: Path
    """The folder."""

    @property
    def config(self) -> Path:
        """The resolved settings, versions, and the teacher's identity."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: training steps and held-out measurements."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What happened, with times."""
        return self.path / "train.log"

    @property
    def heartbeat(self) -> Path:
        """The last sign of life, and how the run ended."""
        return self.path / "heartbeat.json"

    @property
    def checkpoints(self) -> Path:
        """What to resume from: a folder ``step-00000500`` for each of the newest checkpoints."""
        return self.path / "checkpoints"

    def checkpoint_folders(self) -> list[Path]:
        """Those folders, the newest last; whether they are whole is not looked at."""
        named = self.checkpoints.glob("step-*")
        return sorted(
            (path for path in named if path.is_dir() and path.name[5:].isdecimal()), key=lambda path: int(path.name[5:])
        )

    @property
    def best(self) -> Path:
        """The model with the highest held-out centred cosine."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def model(self) -> Path:
        """The newest model, usable while training goes on."""
        return self.path / MODEL_FILE

    @property
    def skipped(self) -> Path:
        """Images that could not be read, with reasons."""
        return self.path / "skipped_images.txt"

    @property
    def picture(self) -> Path:
        """RoIs on held-out images."""
        return self.path / "rois.png"

    @property
    def curves(self) -> Path:
        """Loss and held-out centred cosine over the images seen."""
        return self.path / "curves.png"

    @property
    def held_out(self) -> Path:
        """What is kept of the held-out images: the cosine of each, and where the student looked at the first of them."""
        return self.path / "held_out"

    @property
    def report(self) -> Path:
        """All of it on a page."""
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def non_finite(self) -> Path:
        """The files of the batches whose loss or gradient was not finite, if they stopped the run."""
        return self.path / "non_finite_batches.txt"

    @property
    def is_finished(self) -> bool:
        """Whether its training is at its end, and all that is made of it afterwards is there."""
        return self.card.is_file() and self.model.is_file()  # the card is written last

    @classmethod
    def create(cls, path: Path, *, overwrite: bool) -> RunFolder:
        """Makes a new run folder.

        Raises:
            RunError: if there is something at ``path`` and it may not be overwritten, or is not a run.
        """
        cls.refuse(path, overwrite=overwrite)
        run = cls(path)
        if path.is_dir():
            with run.held():
                shutil.rmtree(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"The output folder '{path}' cannot be made ({error.strerror}).", "Choose another --out.") from None
        return run

    @classmethod
    def refuse(cls, path: Path, *, overwrite: bool) -> None:
        """Raises RunError if a run cannot be made at ``path``, before anything is loaded or written."""
        if path.exists() and not path.is_dir():
            raise RunError(f"The output '{path}' is a file.", "Give a folder to --out.")
        if not path.is_dir() or all(content.suffix == ".part" for content in path.iterdir()):
            return  # nothing, or what a start that was killed has left
        if not cls(path).config.is_file():
            raise RunError(f"The folder '{path}' is not empty and is no run, so it is not overwritten.", "Choose another --out.")
        if not overwrite:
            raise RunError(
                f"The output folder '{path}' is in use.",
                f"Add --overwrite to replace it, or go on with it by: sparseformers resume {path}",
            )

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The run at ``path``.

        Raises:
            RunError: if there is none.
        """
        run = cls(path)
        if not run.config.is_file():
            raise RunError(f"The folder '{path}' is not a run of sparseformers.", "Give the --out folder of a bootstrap.")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in the folder, however this one ends.

        Raises:
            RunError: if another one does.
        """
        lock = self.path / ".lock"
        with locked(lock) as free:
            if not free:
                raise RunError(
                    f"The run '{self.path}' is being trained by another process.",
                    f"Wait until it ends or stop it; how it is doing tells: sparseformers status {self.path}",
                )
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def write_config(self, settings: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Records the settings, what became of their open choices, and the versions."""
        write_json(self.config, {"settings": dict(settings), "resolved": dict(resolved), "versions": installed_versions()})

    def read_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            RunError: if it cannot be read.
        """
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
            return {"settings": dict(content["settings"]), "resolved": dict(content["resolved"])}
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"The file '{self.config}' is not the configuration of a run ({error!r}).", "Start a new run."
            ) from None

    def read_figures(self) -> dict[str, Any]:
        """What a finished run came to, as its card has it.

        Raises:
            RunError: if ``config.json`` does not say.
        """
        try:
            return dict(json.loads(self.config.read_text(encoding="utf-8"))["figures"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"The file '{self.config}' has no figures of the run ({error!r}).", "Start a new run.") from None

    def settings(self) -> BootstrapConfig:
        """The settings of the run."""
        return self.settings_and_note()[0]

    def settings_and_note(self) -> tuple[BootstrapConfig, str | None]:
        """The settings of the run, with a note for its log if an earlier version wrote them."""
        return read_settings(self.read_config()["settings"], where=f"settings in '{self.config}'")

    def change_settings(self, settings: Mapping[str, Any]) -> None:
        """Records other settings; what else is in ``config.json`` stays."""
        write_json(self.config, {**json.loads(self.config.read_text(encoding="utf-8")), "settings": dict(settings)})

    def write_error(self, error: OSError) -> RunError:
        """What to say when something of the run cannot be written."""
        where = f"the run '{self.path}'"
        if error.errno in NO_ROOM:
            return RunError(
                f"There is no room left to write {where} ({error.strerror}), so it stopped; its checkpoints before are whole.",
                f"Free some space, then go on by: sparseformers resume {self.path}",
            )
        return RunError(
            f"A file of {where} cannot be written ({error.strerror or error}), so it stopped; its checkpoints before are whole.",
            f"Mend that, then go on by: sparseformers resume {self.path}",
        )

    @contextmanager
    def room_required(self) -> Iterator[None]:
        """Within it a full disk is an error that says so.

        Raises:
            RunError: in the place of the system's.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise self.write_error(error) from error

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to ``metrics.jsonl``."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last one that was cut off by a crash is left out."""
        entries = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return entries

    def rewind_metrics(self, samples: int | None) -> None:
        """Drops the lines after ``samples``, or all for None: a resumed run measures them again."""
        kept = [entry for entry in self.read_metrics() if samples is not None and entry["samples"] <= samples]
        write_text(self.metrics, "".join(json.dumps(entry) + "\n" for entry in kept))

    @contextmanager
    def logging(self, process: int = 0) -> Iterator[logging.Logger]:
        """A logger that writes to ``train.log`` with times, as long as the context lasts.

        Args:
            process: which of several this is, from 0; the others write warnings and errors alone, and their number with them.
        """
        handler = _LogFile(self.log, encoding="utf-8")
        number = f"process {process}: " if process else ""
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {number}%(message)s"))
        handler.setLevel(logging.WARNING if process else logging.INFO)
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        try:
            yield LOGGER
        finally:
            LOGGER.removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts off: what can be mended is said once, by whatever else has to be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, as far as they are installed."""
    versions = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
