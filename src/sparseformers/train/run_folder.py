"""The folder of a bootstrapping run: its files, settings and metrics."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from sparseformers.errors import RunError
from sparseformers.files import write_text
from sparseformers.saving import MODEL_FILE
from sparseformers.train.settings import BootstrapConfig, read_settings
from sparseformers.work_folder import InFolder, WorkFolder

LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "accelerate", "safetensors")  # versions recorded
LOGGER = logging.getLogger("sparseformers")


@dataclass(frozen=True)
class RunFolder(WorkFolder):
    """The files of one run; ``config.json`` holds the settings, what became of open choices, and versions."""

    KIND: ClassVar[str] = "run"
    MANIFEST: ClassVar[str] = "config.json"
    UNREADABLE: ClassVar[str] = "Put it back from a copy, or start a new run."

    config = InFolder(MANIFEST)
    metrics = InFolder("metrics.jsonl")  # a JSON object a line: training steps and held-out measurements
    log = InFolder("train.log")
    heartbeat = InFolder("heartbeat.json")
    checkpoints = InFolder("checkpoints")  # holds a folder ``step-00000500`` for each of the newest checkpoints
    best = InFolder("checkpoints/best.safetensors")  # the model with the highest held-out centred cosine
    model = InFolder(MODEL_FILE)  # the newest one, usable while training goes on
    skipped = InFolder("skipped_images.txt")  # images that could not be read, with reasons
    picture = InFolder("rois.png")
    curves = InFolder("curves.png")
    held_out = InFolder("held_out")  # holds the cosine of each held-out image, and the RoIs on the first of them
    report = InFolder("report.html")
    card = InFolder("README.md")
    non_finite = InFolder("non_finite_batches.txt")  # images of the steps that stopped the run, see ``NonFiniteSteps``

    def checkpoint_folders(self) -> list[Path]:
        """The folders of the checkpoints, the newest last; they may be damaged."""
        named = [path for path in self.checkpoints.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
        return sorted(named, key=lambda path: int(path.name[5:]))

    @property
    def title(self) -> str:
        return f"the run '{self.path}'"

    @property
    def going_on(self) -> str:
        return f"go on by: sparseformers resume {self.path}"

    @property
    def is_finished(self) -> bool:
        """Whether the training is at its end and all that is made of it afterwards is there."""
        return self.card.is_file() and self.model.is_file()  # the card is written last

    @classmethod
    def create(cls, path: Path, *, overwrite: bool) -> RunFolder:
        """Makes a new run folder; raises RunError where :meth:`refuse` does."""
        cls.refuse(path, overwrite=overwrite)
        run = cls(path)
        with run.held(), run.writing():
            run.clear()  # what is not begun at the end is removed
        with run.writing():
            path.mkdir(parents=True)
        return run

    @classmethod
    def refuse(cls, path: Path, *, overwrite: bool) -> None:
        """Raises RunError if a run cannot be made at ``path``, before anything is loaded or written."""
        run = cls(path)
        run.require_ours()
        if run.is_begun and not overwrite:
            raise RunError(f"The output folder '{path}' is in use.", f"Add --overwrite to replace it, or {run.going_on}")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The run at ``path``; raises RunError if there is none."""
        run = cls(path)
        if not run.is_begun:
            raise RunError(f"The folder '{path}' is not a run of sparseformers.", "Give the --out folder of a bootstrap.")
        return run

    def busy(self) -> RunError:
        problem = f"The run '{self.path}' is being trained by another process."
        return RunError(problem, f"Wait until it ends or stop it; how it is doing tells: sparseformers status {self.path}")

    def write_config(self, settings: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Records the settings, what became of their open choices, and the versions."""
        versions = {"python": sys.version.split()[0], "platform": platform.platform()}
        for package in ("sparseformers", *LIBRARIES):
            with suppress(PackageNotFoundError):  # of those that are installed
                versions[package] = version(package)
        self.write_manifest({"settings": dict(settings), "resolved": dict(resolved), "versions": versions})

    def read_config(self) -> dict[str, Any]:
        """The settings and resolved choices in ``config.json``; raises RunError if they cannot be read."""
        return {part: self._read(part) for part in ("settings", "resolved")}

    def read_figures(self) -> dict[str, Any]:
        """The figures of a finished run, as on its card; raises RunError if there are none."""
        return self._read("figures")

    def _read(self, part: str) -> dict[str, Any]:
        content = self.read_manifest()
        if not isinstance(content.get(part), dict):
            raise RunError(f"The file '{self.config}' has no {part} of a run.", "Start a new run.")
        return dict(content[part])

    def settings(self) -> BootstrapConfig:
        return self.settings_and_note()[0]

    def settings_and_note(self) -> tuple[BootstrapConfig, str | None]:
        """The settings of the run, with a note for its log if an earlier version wrote them."""
        return read_settings(self._read("settings"), where=f"settings in '{self.config}'")

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last one that was cut off by a crash is left out."""
        entries = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []:
            with suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries

    def read_skipped(self) -> list[tuple[str, str]]:
        """Names of the images that could not be read, with reasons, as of the last checkpoint."""
        if not self.skipped.is_file():
            return []
        lines = self.skipped.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        parted = (line.partition("\t") for line in lines if line and not line.startswith("# "))
        return [(name, reason) for name, _, reason in parted]

    def rewind_metrics(self, samples: int | None) -> None:
        """Drops the lines after ``samples``, or all for None: a resumed run measures them again."""
        kept = [entry for entry in self.read_metrics() if samples is not None and entry["samples"] <= samples]
        write_text(self.metrics, "".join(json.dumps(entry) + "\n" for entry in kept))

    @contextmanager
    def logging(self, process: int = 0) -> Iterator[logging.Logger]:
        """A logger to ``train.log`` within the context; processes but the first write warnings and errors alone."""
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
