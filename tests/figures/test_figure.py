from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from sparseformers.errors import ConfigError, RunError
from sparseformers.figures import RoIPicture, curves_figure, draw_student, save_figure, token_colours, trace_rois
from sparseformers.rois import initial_grid
from tests.figures.pictures import picture, tiny_student


def part(axes: Axes, name: str) -> PolyCollection | PathCollection:
    """The collection of that name in a panel."""
    (found,) = [collection for collection in axes.collections if collection.get_gid() == name]
    return found


def boxes_by_colour(axes: Axes) -> dict[tuple[float, ...], np.ndarray]:
    """Each box of a panel as (x1, y1, x2, y2) in pixels, by its colour."""
    boxes = part(axes, "rois")
    corners = [path.vertices for path in boxes.get_paths()]
    return {
        tuple(colour[:3].round(6)): np.concatenate([corner.min(axis=0), corner.max(axis=0)])
        for colour, corner in zip(boxes.get_edgecolor(), corners, strict=True)
    }


def headings(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


class TestPanels:
    def test_a_row_has_the_input_three_stages_and_the_points(self) -> None:
        figure = draw_student([picture(stages=5)])
        assert len(figure.axes) == 5
        assert headings(figure) == [
            "Input",
            "RoIs, first stage",
            "RoIs, third stage",
            "RoIs, last stage",
            "Sampling points, last stage",
            "cat.png",
        ]
        names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
        assert names == [[], *[["rois", "centres"]] * 3, ["points"]]

    @pytest.mark.parametrize(("stages", "panels"), [(1, 3), (2, 4), (3, 4), (4, 5)])
    def test_no_stage_is_drawn_twice(self, stages: int, panels: int) -> None:
        titles = headings(draw_student([picture(stages=stages)]))[:-1]
        assert len(titles) == panels
        assert len(set(titles)) == panels

    def test_stages_can_be_chosen(self) -> None:
        titles = headings(draw_student([picture(stages=5)], stages=[1, -1, 4]))
        assert titles[1:-2] == ["RoIs, second stage", "RoIs, last stage"]

    def test_boxes_lie_at_the_rois_in_pixels(self) -> None:
        drawn = picture(height=40, width=60, tokens=6)
        figure = draw_student([drawn], stages=[1])
        boxes = boxes_by_colour(figure.axes[1])
        assert len(boxes) == 6
        for colour, roi in zip(token_colours(6), drawn.rois[1], strict=True):
            expected = roi.numpy() * np.array([60, 40, 60, 40])
            np.testing.assert_allclose(boxes[tuple(colour.round(6))], expected, atol=1e-4)

    def test_centres_and_points_lie_where_they_should(self) -> None:
        drawn = picture(height=40, width=60, tokens=6, points=4)
        figure = draw_student([drawn], stages=[2])
        centres = (drawn.rois[2][:, :2] + drawn.rois[2][:, 2:]).numpy() / 2 * [60, 40]
        np.testing.assert_allclose(part(figure.axes[1], "centres").get_offsets(), centres, atol=1e-4)
        points = drawn.points[-1].flatten(0, 1).numpy() * [60, 40]
        np.testing.assert_allclose(part(figure.axes[2], "points").get_offsets(), points, atol=1e-4)

    def test_a_token_keeps_its_colour_in_all_panels_and_pictures(self) -> None:
        colours = token_colours(6)
        figure = draw_student([picture(tokens=6, points=4), picture(tokens=6, points=4, height=90)])
        for row in (figure.axes[:5], figure.axes[5:]):
            for axes in row[1:4]:
                assert set(boxes_by_colour(axes)) == {tuple(colour.round(6)) for colour in colours}
                np.testing.assert_allclose(part(axes, "centres").get_facecolor()[:, :3], colours)
            np.testing.assert_allclose(part(row[4], "points").get_facecolor()[:, :3], colours.repeat(4, axis=0))

    def test_small_boxes_lie_on_top_of_large_ones(self) -> None:
        rois = torch.tensor([[[0.4, 0.4, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.6, 0.6]]])
        drawn = RoIPicture(torch.zeros(3, 50, 50), rois, (torch.zeros(3, 4, 2),), "a")
        axes = draw_student([drawn]).axes[1]
        widths = [np.ptp(path.vertices[:, 0]) for path in part(axes, "rois").get_paths()]
        assert widths == pytest.approx([50, 20, 5], abs=1e-4)
        np.testing.assert_allclose(part(axes, "rois").get_edgecolor()[:, :3], token_colours(3)[[1, 2, 0]])

    def test_what_reaches_outside_stays_visible_in_the_margin(self) -> None:
        rois = torch.tensor([[[-1.0, 0.2, 3.0, 0.8], [1.5, 1.5, 2.0, 2.0]]])
        drawn = RoIPicture(torch.zeros(3, 50, 100), rois, (torch.tensor([[[-2.0, 0.5]], [[0.5, 9.0]]]),), "a")
        figure = draw_student([drawn])
        left, right = figure.axes[1].get_xlim()
        bottom, top = figure.axes[1].get_ylim()
        assert left < 0 < 100 < right < 110
        assert top < 0 < 50 < bottom < 60
        for corners in (*boxes_by_colour(figure.axes[1]).values(),):
            assert left < corners[0] <= corners[2] < right
            assert top < corners[1] <= corners[3] < bottom
        points = part(figure.axes[2], "points").get_offsets()
        assert left < points[0][0] < 0
        assert 50 < points[1][1] < bottom

    def test_only_what_nothing_looks_at_is_dark_and_grey(self) -> None:
        image = torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1).expand(3, 64, 64)
        rois = torch.tensor([[[0.0, 0.0, 0.25, 0.25]]])
        drawn = RoIPicture(image, rois, (torch.full((1, 4, 2), 0.125),), "a")
        entry, boxes, points = (axes.images[0].get_array() for axes in draw_student([drawn]).axes)
        np.testing.assert_allclose(entry[60, 60], [0.9, 0.5, 0.1], rtol=1e-5)
        for pixels in (boxes, points):
            np.testing.assert_allclose(pixels[8, 8], [0.9, 0.5, 0.1], atol=0.01)
            assert np.ptp(pixels[60, 60]) < 1e-5
            assert pixels[60, 60].max() < 0.25

    def test_draws_what_a_student_sees(self) -> None:
        images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
        figure = draw_student(trace_rois(tiny_student(), images, ["a", "b"]))
        assert len(figure.axes) == 10
        assert len(boxes_by_colour(figure.axes[3])) == 5

    def test_rois_that_are_not_finite_are_left_out(self, tmp_path: Path) -> None:
        good = picture()
        rois, points = good.rois.clone(), good.points[-1].clone()
        rois[-1, 0], points[0] = float("nan"), float("nan")
        save_figure(draw_student([dataclasses.replace(good, rois=rois, points=(points,))]), tmp_path / "a.png", dpi=40)
        assert (tmp_path / "a.png").stat().st_size > 0


class TestSheet:
    @pytest.mark.parametrize("count", [1, 2, 5, 64])
    def test_panels_do_not_overlap_and_lie_on_the_sheet(self, count: int) -> None:
        sizes = [(40, 60), (60, 40), (40, 200), (200, 40), (50, 50)]
        pictures = [
            picture(height=height, width=width, stages=2, tokens=2) for height, width in (sizes[i % 5] for i in range(count))
        ]
        figure = draw_student(pictures)
        boxes = np.array([axes.get_position(original=True).extents for axes in figure.axes])
        assert len(boxes) == 4 * count
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        near, far = boxes[:, None, :2], boxes[:, None, 2:]
        overlap = np.minimum(far, far.swapaxes(0, 1)) - np.maximum(near, near.swapaxes(0, 1))
        assert (overlap.min(axis=-1) > 1e-9).sum() == len(boxes)  # each with itself only

    @pytest.mark.parametrize(("height", "width"), [(40, 60), (300, 40), (50, 50)])
    def test_the_aspect_ratio_is_kept(self, height: int, width: int) -> None:
        figure = draw_student([picture(height=height, width=width), picture()])
        inches = figure.get_size_inches()
        for axes in figure.axes[:5]:
            panel = axes.get_position(original=True)
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            per_pixel = panel.width * inches[0] / (right - left), panel.height * inches[1] / (bottom - top)
            assert per_pixel[0] == pytest.approx(per_pixel[1])
            assert axes.images[0].get_extent() == [0, width, height, 0]

    def test_titles_overlap_neither_panels_nor_each_other(self) -> None:
        pictures = [picture(height=200, width=40, title="a long name " * 40), picture(), picture()]
        figure = draw_student(pictures, columns=2)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.texts] + [axes.get_window_extent() for axes in figure.axes]
        texts = len(figure.texts)
        for index, text in enumerate(boxes[:texts]):
            assert not any(text.overlaps(other) for other in boxes[:index] + boxes[texts:])
            assert figure.bbox.x0 <= text.x0
            assert text.x1 <= figure.bbox.x1

    def test_columns_titles_stand_once_at_the_top_of_each_block(self) -> None:
        assert headings(draw_student([picture()] * 4, columns=1)).count("Input") == 1
        assert headings(draw_student([picture()] * 4, columns=2)).count("Input") == 2
        assert headings(draw_student([picture()], columns=3)).count("Input") == 1

    def test_a_long_title_loses_its_middle(self) -> None:
        title = headings(draw_student([picture(title="start" + "x" * 500 + "end.png")]))[-1]
        assert title.startswith("startx")
        assert title.endswith("xend.png")
        assert "…" in title

    def test_a_title_is_no_formula(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_figure(draw_student([picture(title="cost_$\\frac_$.png")]), tmp_path / "a.png", dpi=30)
        assert (tmp_path / "a.png").is_file()

    def test_leaves_pyplot_alone(self) -> None:
        from matplotlib import pyplot

        draw_student([picture()])
        assert pyplot.get_fignums() == []


class TestWrongRequests:
    def test_no_picture(self) -> None:
        with pytest.raises(ConfigError, match=r"There is no picture to draw\. Give at least one image\."):
            draw_student([])

    def test_too_many_pictures(self) -> None:
        with pytest.raises(ConfigError, match=r"65 pictures are too many for one sheet\. Draw at most 64 at a time\."):
            draw_student([picture()] * 65)

    @pytest.mark.parametrize("stage", [5, -6])
    def test_a_stage_that_there_is_not(self, stage: int) -> None:
        with pytest.raises(ConfigError, match=rf"There is no stage {stage}: the student has 5\. Choose from 0 .* to 4"):
            draw_student([picture(stages=5)], stages=[0, stage])

    def test_no_columns(self) -> None:
        with pytest.raises(ConfigError, match=r"A sheet cannot have 0 columns\. Ask for one column or more\."):
            draw_student([picture()], columns=0)

    def test_pictures_of_different_students(self) -> None:
        with pytest.raises(ValueError, match="same numbers of stages and tokens"):
            draw_student([picture(tokens=6), picture(tokens=7)])


class TestSaveFigure:
    def test_writes_the_size_that_was_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "rois.png"
        figure = draw_student([picture()])
        save_figure(figure, path, dpi=50)
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            np.testing.assert_allclose(image.size, figure.get_size_inches() * 50, atol=1)
        assert [entry.name for entry in path.parent.iterdir()] == ["rois.png"]

    @pytest.mark.parametrize(
        ("suffix", "start"),
        [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".jpg", b"\xff\xd8"), (".JPEG", b"\xff\xd8"), (".webp", b"RIFF")],
    )
    def test_the_suffix_is_the_format(self, tmp_path: Path, suffix: str, start: bytes) -> None:
        path = tmp_path / f"curves{suffix}"
        save_figure(curves_figure([]), path, dpi=40)
        assert path.read_bytes().startswith(start)

    def test_an_unknown_suffix(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot be written as '\.tiff'\. Use one of: \.png, \.pdf, \.svg, \.jpg"):
            save_figure(curves_figure([]), tmp_path / "a.tiff")
        with pytest.raises(ConfigError, match="cannot be written as 'png'"):
            save_figure(curves_figure([]), tmp_path / "png")
        assert list(tmp_path.iterdir()) == []

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("something")
        with pytest.raises(RunError, match=r"a\.png' cannot be written \(.+\)\. Choose a place where you may write"):
            save_figure(curves_figure([]), tmp_path / "file" / "a.png")
        assert (tmp_path / "file").read_text() == "something"

    def test_a_place_that_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").mkdir()
        with pytest.raises(RunError, match=r"a\.png' cannot be written"):
            save_figure(curves_figure([]), tmp_path / "a.png", dpi=30)
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a.webp"
        save_figure(curves_figure([]), path, dpi=20)
        before = path.read_bytes()
        too_large = Figure(figsize=(170, 1))  # 17000 pixels, and WebP ends at 16383
        with pytest.raises(RunError, match="another format for a very large figure"):
            save_figure(too_large, path, dpi=100)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.webp"]


class TestCurvesFigure:
    def test_two_panels_with_their_own_records(self) -> None:
        history = [
            {"kind": "train", "samples": 0, "loss": 0.9},
            {"kind": "held_out", "samples": 0, "centred_cosine": 0.01},
            {"kind": "train", "samples": 32, "loss": 0.5},
            {"kind": "train", "samples": 48, "loss": float("nan")},
            {"kind": "train", "samples": 50, "loss": None},
            {"kind": "held_out", "samples": 64, "centred_cosine": 0.6},
        ]
        loss, cosine = curves_figure(history).axes
        assert loss.get_title(loc="left") == "Loss"
        assert cosine.get_title(loc="left") == "Held-out centred cosine"
        np.testing.assert_allclose(loss.lines[0].get_xydata(), [[0, 0.9], [32, 0.5]])
        np.testing.assert_allclose(cosine.lines[0].get_xydata(), [[0, 0.01], [64, 0.6]])

    def test_a_noisy_loss_gets_its_running_mean(self) -> None:
        history = [{"samples": step, "loss": step % 2} for step in range(200)]
        raw, mean, _ = curves_figure(history).axes[0].lines
        assert len(raw.get_xdata()) == 200
        assert np.ptp(mean.get_ydata()) < 0.2
        assert np.mean(mean.get_xdata()) == pytest.approx(np.mean(raw.get_xdata()))

    def test_other_keys(self) -> None:
        figure = curves_figure([{"seen": 1, "cost": 2.0, "fit": 3.0}], samples="seen", loss="cost", held_out="fit")
        assert [axes.lines[0].get_xydata().tolist() for axes in figure.axes] == [[[1.0, 2.0]], [[1.0, 3.0]]]

    def test_an_empty_history_says_so(self) -> None:
        for axes in curves_figure([]).axes:
            assert [text.get_text() for text in axes.texts] == ["nothing recorded"]


class TestContrast:
    """Outlines and dots stand out from whatever lies below, by the contrast of WCAG 2 (from 1 to 21) at 150 pixels per inch."""

    @staticmethod
    def luminance(pixels: np.ndarray) -> np.ndarray:
        linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
        return linear @ np.array([0.2126, 0.7152, 0.0722])

    def contrasts(self, axes: Axes, background: float, places: np.ndarray) -> np.ndarray:
        """The greatest contrast with the background within three pixels of each place, given in the photograph's pixels."""
        pixels = np.asarray(axes.figure.canvas.buffer_rgba())[..., :3] / 255
        brightness, ground = self.luminance(pixels), self.luminance(np.full(3, background))
        contrast = (np.maximum(brightness, ground) + 0.05) / (np.minimum(brightness, ground) + 0.05)
        across, up = axes.transData.transform(places).round().astype(int).T
        down = len(pixels) - 1 - up
        return np.array([contrast[y - 3 : y + 4, x - 3 : x + 4].max() for x, y in zip(across, down, strict=True)])

    @pytest.mark.parametrize("background", [0.0, 0.25, 0.5, 0.75, 1.0])
    @pytest.mark.parametrize("tokens", [16, 48])
    def test_on_white_on_black_and_between(self, background: float, tokens: int) -> None:
        generator = torch.Generator().manual_seed(0)
        rois = 0.5 + (initial_grid(tokens) - 0.5) * 0.97
        points = 0.05 + 0.9 * torch.rand(tokens, 4, 2, generator=generator)
        drawn = RoIPicture(torch.full((3, 200, 300), background), rois[None], (points,), "a")
        figure = draw_student([drawn])
        figure.set_dpi(150)
        figure.canvas.draw()
        left, right, along = rois[:, [0]], rois[:, [2]], torch.linspace(0.1, 0.9, 9)
        heights = rois[:, [1]] + along * (rois[:, [3]] - rois[:, [1]])
        sides = torch.cat([torch.stack([side.expand_as(heights), heights], dim=-1).flatten(0, 1) for side in (left, right)])
        outlines = self.contrasts(figure.axes[1], background, sides.numpy() * [300, 200])
        assert np.median(outlines) > 2.7
        assert outlines.min() > 2
        dots = self.contrasts(figure.axes[2], background, points.flatten(0, 1).numpy() * [300, 200])
        assert dots.min() > 2.7
