"""``evaluate --focus``: where the RoIs of a student go, stage by stage, and whether its sampling points fall on objects.

Legend: B images of a batch, M of all, S stages, N latent tokens, P sampling points per token, H x W pixels of the view. Lengths
are in units of the image's sides, shares are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from sparseformers.config import GridConfig
from sparseformers.data import Batch, UnreadableImageError, images_on
from sparseformers.data.foregrounds import BoxFile, Foregrounds, MaskFolder, relative_name
from sparseformers.errors import ConfigError, DataError, shorten
from sparseformers.evaluation.embeddings import Advance, ImageFolder, require_readable, told
from sparseformers.evaluation.report import Report
from sparseformers.evaluation.roi_measures import (
    Elsewhere,
    ForegroundFigures,
    Spread,
    StageFigures,
    foreground_share,
    point_density,
    sampled,
    stage_means,
)
from sparseformers.model import FrontOutput, SparseFormer
from sparseformers.modes import evaluation_mode, inference
from sparseformers.opening import Model, model_name, open_student, with_tokens
from sparseformers.processes import process_state

LEAST_FOREGROUND = 0.5  # pixels of the view: of less, a share of sampling points over a share of the area would be noise

KnownForeground = Callable[[int], Tensor | None]  # an image's place to its foreground, H x W in [0, 1]


@dataclass(frozen=True)
class RoIReport:
    """RoIs of a student at one number of tokens, stage by stage."""

    tokens: int
    points: int  # P, sampling points of each token; 0 if there are none
    stages: tuple[StageFigures, ...]
    images: int
    skipped: int  # images that could not be read; no figure counts them
    area: Spread | None  # share of the view that is foreground; None where nothing is known of it
    annotated: int  # images that the figures of the foreground are of
    not_annotated: tuple[str, ...]  # readable images of which no foreground is known; other figures count them
    out_of_view: tuple[str, ...]  # images whose known foreground is not in view; figures of it leave them out

    def table(self, title: str) -> Table:
        """A line for each stage; each figure with its standard deviation between images."""
        caption = f"{self.tokens} tokens, {self.points} points each; {self.images} images"
        caption += f", {self.skipped} unreadable skipped" if self.skipped else ""
        caption += "; mean ± standard deviation between images, lengths in sides of the image"
        headers = ["stage", "RoIs moved", "from start", "their side", "RoIs cover", "overlap", "points cover"]
        if self.area is not None:
            headers += ["points on\nforeground", "over its\narea", "on that of\nother images"]
            caption += f"\nforeground: {_share(self.area)} of the view, {self.annotated} images"
        table = Table(title=title, caption=caption)
        for header in headers:
            table.add_column(header, justify="left" if header == "stage" else "right", no_wrap=True)
        for figures in self.stages:
            cells = [_length(figures.moved), _length(figures.from_start), _length(figures.size)]
            cells += [_share(figures.rois_cover), _share(figures.overlap), _share(figures.points_cover)]
            if self.area is not None:
                cells += _foreground_cells(figures.foreground)
            table.add_row("start" if figures.stage == 0 else f"stage {figures.stage}", *cells)
        return table


@dataclass(frozen=True)
class RoIReports(Report):
    """RoIs of a student, at one number of tokens or several."""

    focus: tuple[RoIReport, ...]
    skipped_images: tuple[str, ...] = ()

    def tables(self, title: str) -> list[Table]:
        return [report.table(title) for report in self.focus]

    def remarks(self) -> list[str]:
        """Lines that name the images which figures of the foreground leave out."""
        first = self.focus[0]
        kinds = {"without annotation": first.not_annotated, "with nothing of the foreground in view": first.out_of_view}
        return [f"{len(names)} {kind}: {shorten(names)}" for kind, names in kinds.items() if names]


def _foreground_cells(figures: ForegroundFigures | None) -> list[str]:
    if figures is None:
        return ["", "", ""]
    ratio = f"{figures.ratio.mean:.2f} ± {figures.ratio.std:.2f}"
    return [_share(figures.points), ratio, "" if figures.elsewhere is None else f"{figures.elsewhere:.1%}"]


def _length(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.mean:.3f} ± {spread.std:.3f}"


def _share(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.mean:.1%} ± {spread.std * 100:.1f}"


def report_rois(
    model: Model, folder: ImageFolder, *, tokens: Sequence[int] = (), masks: Path | None = None, boxes: Path | None = None
) -> RoIReports:
    """Measures where a student's RoIs go, at each number of tokens; ConfigError if they cannot move, DataError for bad files."""
    paths = folder.images(masks)
    known: Foregrounds | None = None if masks is None else MaskFolder(paths, folder.path, masks)
    if boxes is not None:
        known = BoxFile(paths, folder.path, boxes)
    student, device = open_student(model).student, process_state().device
    if isinstance(student.config.focusing, GridConfig):
        problem = f"The RoIs of '{model_name(model)}' are the cells of a grid and do not move, so there is no focus to measure."
        raise ConfigError(problem, "Give a student with the front mixed or focusing, or leave out --focus.")
    for asked in tokens:
        with_tokens(student, asked, model_name(model))
    student.to(device)

    def foreground(index: int) -> Tensor | None:
        """That of an image in the view; a mask that cannot be read is noted, and its image is one without."""
        try:
            return known.seen(index, student.config.preprocessing) if known is not None else None
        except UnreadableImageError as error:
            folder.skipped.add(error.path, error.reason)
            return None

    reports, names = [], [relative_name(path, folder.path).as_posix() for path in paths]
    seen = None if known is None else foreground
    for number in tokens or (None,):
        with folder.progress("images", len(paths), doing="looking at") as advance:
            batches, running = folder.batches(paths, student.config.preprocessing), folder.running(device, paths, advance)
            reports.append(measure_rois(student, batches, names, tokens=number, foreground=seen, **running))
    return RoIReports(tuple(reports), tuple(folder.skipped.lines()))


def measure_rois(
    student: SparseFormer,
    batches: Iterable[Batch],
    names: Sequence[str],
    *,
    tokens: int | None = None,
    foreground: KnownForeground | None = None,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Advance | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
) -> RoIReport:
    """Measures RoIs and sampling points by the front alone, under inference mode and in evaluation mode (restored afterwards).

    ``batches`` are in the student's own view, their indices places in ``names``. ``foreground`` gives what is known of each
    image's objects; the rest is as for :func:`~sparseformers.evaluation.embed`. Raises DataError if no image can be read, or
    nothing of any known foreground is in the view.
    """
    device, measured = torch.device(device), _Measured()
    with evaluation_mode(student):
        for batch in told(batches, progress, on_unreadable):
            with inference(device, autocast):
                front = student.focusing(student.normalise(images_on(device, batch.images)), tokens)
            places = batch.indices.tolist()
            masks = None if foreground is None else [foreground(index) for index in places]
            measured.add(front, [names[index] for index in places], masks)
    require_readable(len(measured.rois))
    if foreground is not None and measured.points and not measured.areas:
        problem = "Nothing of any foreground is in the part of the images that the student sees."
        raise DataError(problem, "Check the masks or boxes: what is not zero, or inside a box, is foreground.")
    return measured.report(len(names))


class _Measured:
    def __init__(self) -> None:
        self.tokens = self.points = 0
        self.rois: list[Tensor] = []  # B x S x 5 each: moved, from start, size, coverage, overlap
        self.sampled: list[Tensor] = []  # B x R each, of the R last stages, those with sampling points
        self.on_foreground: list[Tensor] = []  # B x R each, of images with a foreground in view
        self.areas: list[Tensor] = []  # B each, of the same ones
        self.elsewhere: list[Elsewhere] = []  # one for each stage with sampling points
        self.not_annotated: list[str] = []
        self.out_of_view: list[str] = []

    def add(self, front: FrontOutput, names: Sequence[str], masks: Sequence[Tensor | None] | None) -> None:
        """Takes in a batch; ``masks`` are those of its images, or None if nothing is known of any image."""
        rois, points = front.rois.float(), [each.float() for each in front.points]
        self.tokens, self.points = rois.shape[2], points[0].shape[2] if points else 0
        self.rois.append(stage_means(rois).cpu())
        if points:
            # The last points lie in the last RoIs, and so on backwards: v1 moves its RoIs before it first reads in them.
            read = rois[:, rois.shape[1] - len(points) :].unbind(dim=1)
            self.sampled.append(torch.stack([sampled(*pair) for pair in zip(points, read, strict=True)], dim=1).cpu())
        if masks is not None:
            self._add_foreground(points, names, masks)

    def _add_foreground(self, points: Sequence[Tensor], names: Sequence[str], masks: Sequence[Tensor | None]) -> None:
        annotated = {place: mask for place, mask in enumerate(masks) if mask is not None}
        kept = {place: mask for place, mask in annotated.items() if mask.sum() >= LEAST_FOREGROUND}
        self.not_annotated += [name for place, name in enumerate(names) if place not in annotated]
        self.out_of_view += [names[place] for place in annotated if place not in kept]
        if not kept or not points:
            return
        foregrounds = torch.stack(list(kept.values())).to(points[0].device)  # B x H x W
        self.areas.append(foregrounds.mean(dim=(1, 2)).cpu())
        self.elsewhere = self.elsewhere or [Elsewhere() for _ in points]
        shares = []
        for own, elsewhere in zip(points, self.elsewhere, strict=True):
            density = point_density(own[list(kept)], *foregrounds.shape[1:])
            shares.append(foreground_share(density, foregrounds).cpu())
            elsewhere.add(density, foregrounds)
        self.on_foreground.append(torch.stack(shares, dim=1))

    def report(self, images: int) -> RoIReport:
        """The figures of so many images, of which at least one could be read."""
        rois = torch.cat(self.rois)  # M x S x 5
        points_cover = [Spread.of(column) for column in torch.cat(self.sampled).T] if self.sampled else []
        unread = rois.shape[1] - len(points_cover)  # stages before the first one with sampling points
        foregrounds: list[ForegroundFigures] = []  # one for each stage with sampling points; none where nothing is known
        if self.areas:
            shares, areas = torch.cat(self.on_foreground), torch.cat(self.areas)
            for share, elsewhere in zip(shares.T, self.elsewhere, strict=True):
                foregrounds.append(ForegroundFigures(Spread.of(share), Spread.of(share / areas), elsewhere.share()))
        rows = []
        for stage in range(rois.shape[1]):
            moved, from_start, size, rois_cover, overlapping = (Spread.of(column) for column in rois[:, stage].T)
            of_rois, read = (moved if stage else None, from_start, size, rois_cover, overlapping), stage - unread
            foreground = foregrounds[read] if foregrounds and read >= 0 else None
            rows.append(StageFigures(stage, *of_rois, points_cover[read] if read >= 0 else None, foreground))
        return RoIReport(
            tokens=self.tokens,
            points=self.points,
            stages=tuple(rows),
            images=len(rois),
            skipped=images - len(rois),
            area=Spread.of(torch.cat(self.areas)) if self.areas else None,
            annotated=sum(len(areas) for areas in self.areas),
            not_annotated=tuple(self.not_annotated),
            out_of_view=tuple(self.out_of_view),
        )
