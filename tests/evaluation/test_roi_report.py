import pytest
import torch
from torch import Tensor, nn

from sparseformers.errors import DataError
from sparseformers.evaluation import RoIReport, measure_rois
from sparseformers.evaluation.roi_measures import overlap
from sparseformers.model import FrontOutput, SparseFormer
from sparseformers.rois import cells, initial_grid, regular_points
from tests.evaluation.networks import Batch, batches_of
from tests.evaluation.printed import printed
from tests.exporting.students import FRONTS, student_of
from tests.model.small import small_config, small_model

SIDE = 32
WHOLE, CORNER = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.4, 0.4]])


class Told(nn.Module):
    """A front whose RoIs are told, the same in every image."""

    def __init__(self, rois: Tensor, points: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.rois, self.points = rois, points

    def forward(self, images: Tensor, tokens: int | None = None) -> FrontOutput:
        batch = len(images)
        nothing = torch.zeros(batch, self.rois.shape[1], 32)
        points = tuple(each.expand(batch, -1, -1, -1) for each in self.points)
        return FrontOutput(nothing, self.rois.expand(batch, -1, -1, -1), points)


def told(*stages: Tensor, unread: int = 0) -> SparseFormer:
    """A student whose RoIs are these, N x 4 each, with four points in each RoI but for the first stages."""
    rois = torch.stack(stages)
    return SparseFormer(small_config(), front=Told(rois, tuple(regular_points(rois, 2)[unread:])))


def batches(count: int, *, size: int = 2, unreadable: tuple[int, ...] = ()) -> list[Batch]:
    return batches_of(torch.rand(count, 3, SIDE, SIDE), size=size, unreadable=unreadable)


def measured(student: SparseFormer, count: int = 3, **options: object) -> RoIReport:
    names = [f"{index}.jpg" for index in range(count)]
    given = options.pop("batches", None) or batches(count)
    return measure_rois(student, given, names, device="cpu", autocast=None, **options)  # type: ignore[arg-type]


def quarter(index: int) -> Tensor:
    """The left upper quarter, the right upper one, and so on."""
    quarters = torch.eye(4)[index].view(2, 2)
    return quarters.repeat_interleave(SIDE // 2, dim=0).repeat_interleave(SIDE // 2, dim=1)


def test_stages__of_rois_that_move_and_shrink() -> None:
    start = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
    moved = start + torch.tensor([0.03, 0.04, 0.03, 0.04])
    shrunk = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]])
    first, second, last = measured(told(start, moved, shrunk)).stages
    assert [figures.stage for figures in (first, second, last)] == [0, 1, 2]
    assert first.moved is None
    assert first.from_start.mean == 0
    assert (second.moved.mean, last.moved.mean) == (pytest.approx(0.05), pytest.approx(0.05))
    assert last.from_start.mean == pytest.approx(0, abs=1e-6)
    assert (first.size.mean, last.size.mean) == (pytest.approx(0.4), pytest.approx(0.2))
    assert first.rois_cover.mean == pytest.approx(0.32, abs=0.02)
    assert first.points_cover.mean == pytest.approx(0.32, abs=0.02)  # four points fill their RoI
    assert first.overlap.mean == 0
    assert first.size.std == pytest.approx(0)
    assert all(figures.foreground is None for figures in (first, second, last))


def test_spread__is_that_between_images() -> None:
    student = small_model(tokens=6)
    images = batches(4, size=3)
    report = measured(student, 4, batches=images)
    assert (report.tokens, report.points, report.images, len(report.stages)) == (6, 4, 4, 3)
    with torch.no_grad():
        rois = student(torch.cat([batch.images for batch in images])).rois
    from_start = (rois[:, -1] - rois[:, 0]).unflatten(-1, (2, 2)).mean(dim=-2).norm(dim=-1).mean(dim=-1)
    assert report.stages[-1].from_start.mean == pytest.approx(from_start.mean().item(), rel=1e-4)
    assert report.stages[-1].from_start.std == pytest.approx(from_start.std(correction=0).item(), rel=1e-3)
    assert report.stages[0].overlap.mean == pytest.approx(overlap(rois[:, 0]).mean().item())


def test_foreground__points_on_it_score_more_than_its_area() -> None:
    # RoIs go from the whole image into the left upper quarter.
    report = measured(told(WHOLE, CORNER), 4, foreground=lambda _: quarter(0))
    assert (report.area.mean, report.annotated) == (0.25, 4)
    start, end = (figures.foreground for figures in report.stages)
    assert (start.points.mean, start.ratio.mean) == (0.25, 1.0)
    assert (end.points.mean, end.ratio.mean) == (1.0, 4.0)
    assert end.elsewhere == 1.0  # in the other images the object is at the same place: points there are no merit


def test_foreground__elsewhere_tells_the_image_from_the_place() -> None:
    figures = measured(told(CORNER), 4, foreground=quarter).stages[0].foreground
    # One image of four has its object there, whatever is in the image.
    assert figures.points.mean == 0.25
    assert figures.points.std == pytest.approx(0.433, abs=1e-3)
    assert figures.elsewhere == pytest.approx(0.25)
    assert figures.ratio.mean == 1.0


def test_foreground__what_is_not_known_or_not_in_view_is_named() -> None:
    masks = {0: quarter(0), 1: None, 2: torch.zeros(SIDE, SIDE), 3: quarter(1), 4: None}
    report = measured(told(cells(4)), 6, foreground=masks.get, batches=batches(6, unreadable=(5,)))
    assert report.annotated == 2
    assert report.not_annotated == ("1.jpg", "4.jpg")
    assert report.out_of_view == ("2.jpg",)
    assert (report.images, report.skipped) == (5, 1)
    with pytest.raises(DataError, match="Nothing of any foreground is in the part of the images"):
        measured(told(cells(4)), 2, foreground=lambda _: torch.zeros(SIDE, SIDE))


def test_cells_that_stay_give_their_figures() -> None:
    student = student_of(FRONTS["grid"])
    (only,) = measured(student, foreground=quarter, tokens=16).stages
    assert only.moved is None
    assert (only.size.mean, only.overlap.mean, only.rois_cover.mean, only.points_cover.mean) == (0.25, 0.0, 1.0, 1.0)
    assert only.foreground.ratio.mean == pytest.approx(1.0)
    fewer = measured(student)
    assert (fewer.tokens, fewer.stages[0].size.mean) == (4, 0.5)


def test_v1_moves_its_rois_before_it_reads() -> None:
    report = measured(student_of(FRONTS["original"]), foreground=quarter)
    assert [figures.points_cover is None for figures in report.stages] == [True, False, False, False]
    assert [figures.foreground is None for figures in report.stages] == [True, False, False, False]
    assert "start" in printed(report.table("v1"))


def test_the_last_points_lie_in_the_last_rois_where_a_front_says_where_it_reads() -> None:
    start, end = measured(told(WHOLE, CORNER, unread=1)).stages
    assert start.points_cover is None
    assert end.points_cover.mean == pytest.approx(0.16, abs=0.02)  # with neighbourhoods of the corner's size
    report = measured(told(cells(4), unread=1))
    assert report.points == 0
    assert report.stages[0].points_cover is None
    assert report.stages[0].rois_cover.mean == 1


def test_modes_progress_and_no_image_at_all() -> None:
    student = small_model().train()
    told_of: list[int] = []
    bad: dict[int, str] = {}
    some = batches(5, unreadable=(1, 2, 3))
    measured(student, 5, batches=some, progress=told_of.append, on_unreadable=bad.__setitem__)
    assert told_of == [2, 2, 1]
    assert bad == dict.fromkeys((1, 2, 3), "truncated")
    assert all(module.training for module in student.modules())
    with pytest.raises(DataError, match="no image that could be read"):
        measured(student, 2, batches=batches(2, unreadable=(0, 1)))


def test_table__has_a_line_for_each_stage() -> None:
    student = told(initial_grid(4), initial_grid(4) * 0.5)
    text = printed(measured(student, foreground=lambda index: quarter(index) if index else None).table("title"))
    for part in ("start", "stage 1", "over its", "4 tokens, 4 points each; 3 images", "25.0% ± 0.0 of the view, 2 images"):
        assert part in text, part
    assert "foreground" not in printed(measured(student).table("title"))
