"""Runs a student's front over images and measures where it looks: its RoIs stage by stage, and where they fall on objects.

Legend: B images of a batch, M of all, S stages, N latent tokens, P sampling points per token, H x W pixels of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sparseformers.data import Batch, images_on
from sparseformers.errors import DataError
from sparseformers.evaluation.focus import coverage, distance, overlap, seen, side
from sparseformers.evaluation.focus_report import FocusReport, ForegroundFigures, Spread, StageFigures
from sparseformers.evaluation.localisation import Elsewhere, foreground_share, point_density
from sparseformers.model import Focus, SparseFormer
from sparseformers.modes import evaluation_mode, inference

LEAST_FOREGROUND = 0.5
"""Pixels of the view: of less, a share of sampling points over a share of the area would be noise."""

KnownForeground = Callable[[int], Tensor | None]
"""From the place of an image to its foreground in the view, H x W in [0, 1]; None where nothing is known of it."""


def measure_focus(
    student: SparseFormer,
    batches: Iterable[Batch],
    names: Sequence[str],
    *,
    tokens: int | None = None,
    foreground: KnownForeground | None = None,
    device: torch.device | str,
    autocast: torch.dtype | None,
    progress: Callable[[int], None] | None = None,
    on_unreadable: Callable[[int, str], None] | None = None,
) -> FocusReport:
    """Measures where a student looks, under inference mode and in evaluation mode (restored afterwards). Only its front runs.

    Args:
        student: any SparseFormer, on ``device``.
        batches: of images in the student's own view.
        names: of the images; the indices of batches are places in it.
        tokens: N, if other than configured.
        foreground: what is known of the images' objects; None if nothing is known of any.
        device: where the student is.
        autocast: precision to run it in; None for its own.
        progress: told after each batch how many images it was, unreadable ones included.
        on_unreadable: told the place of an unreadable image, and what was wrong with it.

    Raises:
        DataError: if no image can be read, or nothing of any known foreground is in the view.
    """
    device = torch.device(device)
    measured = _Measured()
    skipped = 0
    with evaluation_mode(student):
        for batch in batches:
            if len(batch.images):
                with inference(device, autocast):
                    focus = student.focusing(student.normalise(images_on(device, batch.images)), tokens)
                measured.add(focus, [names[index] for index in batch.indices.tolist()], _masks(foreground, batch, device))
            skipped += len(batch.unreadable)
            if on_unreadable is not None:
                for index, reason in batch.unreadable:
                    on_unreadable(index, reason)
            if progress is not None:
                progress(len(batch.images) + len(batch.unreadable))
    if not measured.rois:
        raise DataError("There was no image that could be read.", "Give a folder with images in it (jpg, png, webp, ...).")
    if foreground is not None and measured.points and not measured.areas:
        raise DataError(
            "Nothing of any foreground is in the part of the images that the student sees.",
            "Check the masks or boxes: what is not zero, or inside a box, is foreground.",
        )
    return measured.report(skipped)


def _masks(foreground: KnownForeground | None, batch: Batch, device: torch.device) -> list[Tensor | None] | None:
    if foreground is None:
        return None
    masks = [foreground(index) for index in batch.indices.tolist()]
    return [None if mask is None else mask.to(device) for mask in masks]


class _Measured:
    """Figures of the images so far."""

    def __init__(self) -> None:
        self.tokens = self.points = 0
        self.rois: list[Tensor] = []
        """B x S x 5 each: moved, from start, size, coverage, overlap."""
        self.seen: list[Tensor] = []
        """B x L each, for L looks."""
        self.on_foreground: list[Tensor] = []
        """B x L each, of images with a foreground in view."""
        self.areas: list[Tensor] = []
        """B each, of the same ones."""
        self.elsewhere: list[Elsewhere] = []
        """One per look."""
        self.not_annotated: list[str] = []
        self.out_of_view: list[str] = []

    def add(self, focus: Focus, names: Sequence[str], masks: list[Tensor | None] | None) -> None:
        """Takes in a batch; ``masks`` are those of its images, or None if nothing is known of any image."""
        rois, points = focus.rois.float(), [look.float() for look in focus.points]
        self.tokens, self.points = rois.shape[2], points[0].shape[2] if points else 0
        self.rois.append(_roi_figures(rois).cpu())
        # The last look reads in the last RoIs, and so on backwards: v1 moves its RoIs before it looks for the first time.
        looked_at = rois[:, rois.shape[1] - len(points) :].unbind(dim=1) if points else ()
        if points:
            self.seen.append(torch.stack([seen(look, own) for look, own in zip(points, looked_at, strict=True)], dim=1).cpu())
        if masks is not None:
            self._add_foreground(points, names, masks)

    def _add_foreground(self, points: Sequence[Tensor], names: Sequence[str], masks: Sequence[Tensor | None]) -> None:
        kept: dict[int, Tensor] = {}
        for place, (name, mask) in enumerate(zip(names, masks, strict=True)):
            if mask is None:
                self.not_annotated.append(name)
            elif mask.sum() < LEAST_FOREGROUND:
                self.out_of_view.append(name)
            else:
                kept[place] = mask
        if not kept or not points:
            return
        foregrounds = torch.stack(list(kept.values()))  # B x H x W
        self.areas.append(foregrounds.mean(dim=(1, 2)).cpu())
        self.elsewhere = self.elsewhere or [Elsewhere() for _ in points]
        shares = []
        for look, elsewhere in zip(points, self.elsewhere, strict=True):
            density = point_density(look[list(kept)], *foregrounds.shape[1:])
            shares.append(foreground_share(density, foregrounds).cpu())
            elsewhere.add(density, foregrounds)
        self.on_foreground.append(torch.stack(shares, dim=1))

    def report(self, skipped: int) -> FocusReport:
        """All figures; there is at least one image."""
        rois = torch.cat(self.rois)  # M x S x 5
        stages = rois.shape[1]
        looks = torch.cat(self.seen) if self.seen else rois.new_zeros(len(rois), 0)
        first_look = stages - looks.shape[1]
        foregrounds = self._foreground_figures()
        rows = []
        for stage in range(stages):
            moved, from_start, size, covered, overlapping = (Spread.of(column) for column in rois[:, stage].T)
            look = stage - first_look
            rows.append(
                StageFigures(
                    stage=stage,
                    moved=moved if stage else None,
                    from_start=from_start,
                    size=size,
                    rois_cover=covered,
                    overlap=overlapping,
                    points_cover=Spread.of(looks[:, look]) if look >= 0 else None,
                    foreground=foregrounds[look] if foregrounds and look >= 0 else None,
                )
            )
        return FocusReport(
            tokens=self.tokens,
            points=self.points,
            stages=tuple(rows),
            images=len(rois),
            skipped=skipped,
            area=Spread.of(torch.cat(self.areas)) if self.areas else None,
            annotated=sum(len(areas) for areas in self.areas),
            not_annotated=tuple(self.not_annotated),
            out_of_view=tuple(self.out_of_view),
        )

    def _foreground_figures(self) -> list[ForegroundFigures]:
        """One per look; none where nothing is known."""
        if not self.areas:
            return []
        shares, areas = torch.cat(self.on_foreground), torch.cat(self.areas)
        return [
            ForegroundFigures(Spread.of(share), Spread.of(share / areas), elsewhere.share())
            for share, elsewhere in zip(shares.T, self.elsewhere, strict=True)
        ]


def _roi_figures(rois: Tensor) -> Tensor:
    """RoIs B x S x N x 4 -> B x S x 5, means over tokens: moved, from start, size, coverage, overlap."""
    before = torch.cat([rois[:, :1], rois[:, :-1]], dim=1)
    moved, from_start = distance(before, rois).mean(dim=-1), distance(rois[:, :1].expand_as(rois), rois).mean(dim=-1)
    stages = rois.unbind(dim=1)
    covered = torch.stack([coverage(own) for own in stages], dim=1)
    overlapping = torch.stack([overlap(own) for own in stages], dim=1)
    return torch.stack([moved, from_start, side(rois).mean(dim=-1), covered, overlapping], dim=-1)
