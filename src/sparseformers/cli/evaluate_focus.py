"""What ``sparseformers evaluate --focus`` measures: where a student looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from torch import Tensor

from sparseformers.cli.output import print_json, print_whole
from sparseformers.cli.progress import embedding_progress, thinned
from sparseformers.cli.run_pair import check_tokens
from sparseformers.config import PreprocessingConfig
from sparseformers.data import SkippedImages, UnreadableImageError, default_workers, evaluation_batches, find_images
from sparseformers.data.foregrounds import BoxFile, Foregrounds, MaskFolder, relative_name
from sparseformers.errors import ConfigError, DataError, shorten
from sparseformers.evaluation import FocusReport, focus_table, measure_focus
from sparseformers.model import SparseFormer
from sparseformers.modes import autocast_dtype, resolve_precision
from sparseformers.processes import process_state
from sparseformers.saving import load_saved


@dataclass(frozen=True)
class OfFocus:
    """What to measure of the focus; the options of the command."""

    data: Path
    """The folder of images."""
    masks: Path | None
    """A folder of masks of their objects."""
    boxes: Path | None
    """A file with boxes around their objects."""
    limit: int
    """Most images to measure on; 0 for all."""
    tokens: tuple[int, ...]
    """Latent tokens, one after the other; none for those that the student is configured with."""
    batch_size: int
    """Images at a time."""
    precision: Literal["auto", "fp32", "bf16"]
    """Of the matrix products."""

    def check(self, *, asked: bool, others: bool, teacher: str | None) -> None:
        """Raises ConfigError for options that say nothing without another one, or that cannot go together.

        Args:
            asked: whether the focus is to be measured.
            others: whether something else is to be measured.
            teacher: where to load the teacher from, if that was given.
        """
        for option, given in (("--masks", self.masks), ("--boxes", self.boxes)):
            if given is not None and not asked:
                raise ConfigError(f"{option} is for measuring the focus only.", "Add --focus, or leave it out.")
        if self.masks is not None and self.boxes is not None:
            raise ConfigError("The foreground is told by --masks or by --boxes, not by both.", "Leave one of them out.")
        if asked and others:
            raise ConfigError(
                "--focus measures the central view of an image, without --shifts, --views, --zero-shot and --captions.",
                "Measure them in another run.",
            )
        if asked and teacher is not None:
            raise ConfigError("--focus runs the student alone, without --teacher.", "Leave it out.")

    def run(self, run_path: Path, console: Console, *, as_json: bool) -> None:
        """Measures and prints.

        Args:
            run_path: a run folder or a model file.
            console: where to print tables.
            as_json: print JSON instead.
        """
        paths = self._paths()
        foregrounds = self._foregrounds(paths)  # before the model, so that a mistake in them shows at once
        student, _ = load_saved(run_path)
        for tokens in self.tokens:
            check_tokens(student, tokens, run_path)
        student.to(process_state().device)
        skipped = SkippedImages()
        reports = [self._measure(student, paths, foregrounds, tokens, console, skipped) for tokens in self.tokens or (None,)]
        if as_json:
            print_json({"focus": [report.to_dict() for report in reports], "skipped_images": skipped.lines()})
            return
        for report in reports:
            print_whole(focus_table(report, f"{run_path} on {self.data}"), console)
        lines = [f"skipped: {line}" for line in skipped.lines()]
        for what, names in (
            ("without annotation", reports[0].not_annotated),
            ("with nothing of the foreground in view", reports[0].out_of_view),
        ):
            lines += [f"{len(names)} {what}: {shorten(names)}"] if names else []
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _paths(self) -> list[Path]:
        found = find_images([self.data])
        if self.masks is not None:  # which may lie inside of the folder of images
            masks = self.masks.resolve()
            found = [path for path in found if masks not in path.resolve().parents]
        if not found:
            raise DataError(f"The folder '{self.data}' holds masks only.", "Give the folder of the images as --data.")
        return thinned(found, self.limit)

    def _foregrounds(self, paths: list[Path]) -> Foregrounds | None:
        if self.masks is not None:
            return MaskFolder(paths, self.data, self.masks)
        return None if self.boxes is None else BoxFile(paths, self.data, self.boxes)

    def _measure(
        self,
        student: SparseFormer,
        paths: list[Path],
        foregrounds: Foregrounds | None,
        tokens: int | None,
        console: Console,
        skipped: SkippedImages,
    ) -> FocusReport:
        device, preprocessing = process_state().device, student.config.preprocessing
        batches = evaluation_batches(paths, preprocessing, batch_size=self.batch_size, workers=default_workers())
        with embedding_progress(console, "images", len(paths), doing="looking at") as advance:
            return measure_focus(
                student,
                batches,
                [relative_name(path, self.data).as_posix() for path in paths],
                tokens=tokens,
                foreground=None if foregrounds is None else _readable(foregrounds, preprocessing, skipped),
                device=device,
                autocast=autocast_dtype(resolve_precision(self.precision, device)),
                progress=advance,
                on_unreadable=lambda index, reason: skipped.add(paths[index], reason),
            )


def _readable(
    foregrounds: Foregrounds, preprocessing: PreprocessingConfig, skipped: SkippedImages
) -> Callable[[int], Tensor | None]:
    """Foregrounds in the view; a mask that cannot be read is noted, and its image is one without."""

    def known(index: int) -> Tensor | None:
        try:
            return foregrounds.seen(index, preprocessing)
        except UnreadableImageError as error:
            skipped.add(error.path, error.reason)
            return None

    return known
