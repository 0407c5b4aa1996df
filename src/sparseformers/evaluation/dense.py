"""``evaluate --dense``: how near a student's maps of features are to its teacher's, place by place, and what they are good for.

Legend: M images, D width, h x w the teacher's patches. Cosines are centred: the teacher's mean token is subtracted first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from sparseformers.data import images_on
from sparseformers.errors import DataError
from sparseformers.evaluation.attention import AttendingTeacher
from sparseformers.evaluation.cost import multiply_adds
from sparseformers.evaluation.embeddings import ImageFolder, thinned, told
from sparseformers.evaluation.report import Report
from sparseformers.evaluation.segmentation import ClassMasks, ProbeFigures, Segmentation
from sparseformers.model import SparseFormer
from sparseformers.modes import evaluation_mode, inference
from sparseformers.opening import Pair
from sparseformers.rois import grid_of
from sparseformers.teachers import Teacher

CENTRE_IMAGES = 256  # images that the teacher's mean token is of
STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class MapFigures:
    """One way to a map, beside the teacher's; cosines in [-1, 1]."""

    name: str
    multiply_adds: int  # of the whole map, for one image
    cosine: float  # mean over places
    cosine_p05: float  # 5th percentile
    cosine_detailed: float  # mean over the quarter of each image's places whose pixels differ most
    cosine_plain: float  # mean over the quarter whose pixels differ least
    probe: ProbeFigures | None  # of a segmentation; None without masks


@dataclass(frozen=True)
class DenseReport(Report):
    """The student's map, its tokens put on the grid, and the teacher on smaller images, each beside the teacher."""

    grid: tuple[int, int]  # h, w
    layer: int  # the teacher's layer, from the end
    rows: tuple[MapFigures, ...]
    teacher_probe: ProbeFigures | None  # of the teacher's own maps; None without masks
    images: int
    annotated: int  # images with masks, half of which the segmentation is learnt from
    skipped: int
    skipped_images: tuple[str, ...] = ()

    def tables(self, title: str) -> list[Table]:
        """A line for each way to a map."""
        rows, columns = self.grid
        caption = f"{self.images} images, {rows} x {columns} places, layer {self.layer}"
        caption += f", {self.skipped} unreadable skipped" if self.skipped else ""
        caption += f"; segmentation learnt on the teacher's maps of half of {self.annotated} images" if self.annotated else ""
        headers = ["map", "multiply-adds", "centred\ncosine", "5th\npercentile", "much\ndetail", "little\ndetail"]
        headers += ["linear head:\nmean IoU", "nearest place:\nmean IoU"] if self.annotated else []
        table = Table(title=title, caption=caption)
        for header in headers:
            table.add_column(header, justify="left" if header == "map" else "right")
        for row in self.rows:
            cosines = (row.cosine, row.cosine_p05, row.cosine_detailed, row.cosine_plain)
            ious = [] if row.probe is None else [f"{row.probe.linear:.1%}", f"{row.probe.nearest:.1%}"]
            table.add_row(row.name, f"{row.multiply_adds / 1e9:.2f} G", *(f"{value:.3f}" for value in cosines), *ious)
        if self.teacher_probe is not None:
            table.add_row(TEACHER, *[""] * 5, f"{self.teacher_probe.linear:.1%}", f"{self.teacher_probe.nearest:.1%}")
        return [table]


class SmallTeacher(nn.Module):
    """The teacher on images of fewer patches, untrained, its map enlarged: what a student's map has to beat."""

    def __init__(self, teacher: Teacher, grid: tuple[int, int], *, layer: int = -1) -> None:
        super().__init__()
        self.teacher = AttendingTeacher(teacher, attends=False, layer=layer, grid=grid)
        self.own = teacher.grid

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x D x h x w."""
        small = F.interpolate(images, self.teacher.size, mode="bilinear", antialias=True)
        return F.interpolate(self.teacher(small).tokens.float(), self.own, mode="bilinear", align_corners=False)


class DenseStudent(nn.Module):
    """A student as a network from images to maps on one grid; ``spreads`` has its tokens put there, without its read-out."""

    def __init__(self, student: SparseFormer, grid: tuple[int, int], *, spreads: bool = False) -> None:
        super().__init__()
        self.student, self.grid, self.spreads = student, grid, spreads

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] -> B x D x h x w."""
        return self.student(images).to_grid(self.grid) if self.spreads else self.student.dense(images, self.grid)


def dense_cosine(ours: Tensor, theirs: Tensor, centre: Tensor) -> Tensor:
    """The cosine at each place of maps B x D x h x w, as seen from ``centre``, D: B x h x w, float32."""
    centre = centre.view(-1, 1, 1)
    return F.cosine_similarity(ours.float() - centre, theirs.float() - centre, dim=1)


def detail(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """The variance of the grey values of each place's pixels: B x 3 x H x W in [0, 1] -> B x h x w."""
    grey = images.float().mean(dim=1, keepdim=True)
    mean, of_squares = (F.adaptive_avg_pool2d(value, grid) for value in (grey, grey.square()))
    return (of_squares - mean.square())[:, 0]


def measure_dense(pair: Pair, folder: ImageFolder, masks: Path | None = None) -> DenseReport:
    """Measures maps of a student beside its teacher's; raises DataError where no image can be read, or masks do not fit."""
    student, teacher, device, paths = pair.student, pair.teacher, pair.device, folder.images(masks)
    preprocessing, grid = teacher.preprocessing, teacher.grid
    layer = -1 if student.config.read_out is None else student.config.read_out.layer
    whole = AttendingTeacher(teacher, attends=False, layer=layer)
    networks = ways_to_a_map(student, teacher, layer)
    segmentation = None if masks is None else Segmentation(ClassMasks(paths, folder.path, masks), grid, preprocessing)

    def seen(some: Sequence[Path], what: str) -> Iterator[tuple[list[int], Tensor]]:
        """Which of the images are in each batch, and these."""
        with folder.progress(what, len(some)) as advance:
            skip = folder.running(device, some, advance)["on_unreadable"]
            for batch in told(folder.batches(some, preprocessing), advance, skip):
                yield batch.indices.tolist(), images_on(device, batch.images)

    cosines: dict[str, list[Tensor]] = {name: [] for name in networks}
    details: list[Tensor] = []
    with evaluation_mode(whole, *networks.values()), inference(device, folder.autocast(device)):
        # The teacher's mean token first: all cosines are as seen from there.
        means = [whole(images).tokens.float().mean(dim=(0, 2, 3)) for _, images in seen(thinned(paths, CENTRE_IMAGES), "centre")]
        if not means:
            raise DataError("There was no image that could be read.", "Give a folder with images in it (jpg, png, webp, ...).")
        centre = torch.stack(means).mean(dim=0)
        for indices, images in seen(paths, "images"):
            maps = {TEACHER: whole(images).tokens} | {name: network(images) for name, network in networks.items()}
            for name in networks:
                cosines[name].append(dense_cosine(maps[name], maps[TEACHER], centre).cpu())
            details.append(detail(images, grid).cpu())
            if segmentation is not None:
                segmentation.add(indices, {name: (each.float() - centre.view(-1, 1, 1)).cpu() for name, each in maps.items()})
    probes = {} if segmentation is None else segmentation.judge(folder.skipped)
    rows = [_figures(name, preprocessing.size, network, cosines[name], details, probes) for name, network in networks.items()]
    return DenseReport(
        grid=grid,
        layer=layer,
        rows=tuple(rows),
        teacher_probe=probes.get(TEACHER),
        images=sum(map(len, details)),
        annotated=0 if segmentation is None else segmentation.annotated,
        skipped=len(folder.skipped),
        skipped_images=tuple(folder.skipped.lines()),
    )


def ways_to_a_map(student: SparseFormer, teacher: Teacher, layer: int) -> dict[str, nn.Module]:
    """The networks to compare, by the names that they have in the table."""
    grid, tokens, aspect = teacher.grid, student.config.focusing.tokens, teacher.grid[0] / teacher.grid[1]
    ways: dict[str, nn.Module] = {STUDENT: DenseStudent(student, grid)}
    if student.config.read_out is not None:
        ways["its tokens alone"] = DenseStudent(student, grid, spreads=True)
    small = SmallTeacher(teacher, grid_of(tokens, aspect), layer=layer)
    ways["teacher, as many patches"] = small
    # The fullest grid on which the teacher costs no more than the student's map.
    image = torch.empty(1, 3, *teacher.preprocessing.size)
    patches = math.prod(grid_of(tokens, aspect)) * multiply_adds(ways[STUDENT], image) / multiply_adds(small, image)
    rows = max(1, int(math.sqrt(patches * aspect)))
    equal = (rows, max(1, int(patches / rows)))
    if math.prod(equal) > tokens:
        ways["teacher, at the student's cost"] = SmallTeacher(teacher, equal, layer=layer)
    return ways


def _figures(
    name: str,
    size: tuple[int, int],
    network: nn.Module,
    cosines: Sequence[Tensor],
    details: Sequence[Tensor],
    probes: Mapping[str, ProbeFigures],
) -> MapFigures:
    of_places, order = torch.cat(list(cosines)).flatten(1), torch.cat(list(details)).flatten(1).argsort(dim=1)
    quarter = max(1, order.shape[1] // 4)
    plain, detailed = (of_places.gather(1, chosen).mean().item() for chosen in (order[:, :quarter], order[:, -quarter:]))
    lowest = of_places.flatten().kthvalue(max(1, of_places.numel() // 20)).values.item()
    cost = multiply_adds(network, torch.empty(1, 3, *size))
    return MapFigures(name, cost, of_places.mean().item(), lowest, detailed, plain, probes.get(name))
