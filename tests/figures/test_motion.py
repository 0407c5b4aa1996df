"""RoIs that move: a panel for each iteration, and the frames and files of an animation."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.figures import centre_paths, draw_frames, draw_iterations, glide, save_animation, token_colours, trace_rois
from sparseformers.figures.output import check_animation
from sparseformers.figures.stages import LAST_PAUSE, MOVING, PAUSE
from sparseformers.rois import centre_and_size, initial_grid
from tests.figures.pictures import check_boxes, headings, part, picture, tiny_student
from tests.refusals import refused


def moving_rois() -> torch.Tensor:
    images = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    return trace_rois(tiny_student(), images, ["a"])[0].rois  # 4 x 5 x 4


def test_paths_lead_from_each_centre_to_the_next() -> None:
    rois = moving_rois()
    centres, _ = centre_and_size(rois)
    paths = centre_paths(rois)
    assert paths.shape == (3, 5, 2, 2)
    assert torch.equal(paths[:, :, 0], centres[:-1])
    assert torch.equal(paths[:, :, 1], centres[1:])
    assert (paths[:, :, 0] != paths[:, :, 1]).any()


def test_a_panel_for_the_start_and_for_each_iteration_whose_paths_are_fainter_than_boxes() -> None:
    figure = draw_iterations([picture(stages=5, title="cat.png")])
    assert headings(figure) == ["Start", "Iteration 1", "Iteration 2", "Iteration 3", "Iteration 4", "cat.png"]
    names = [[collection.get_gid() for collection in axes.collections] for axes in figure.axes]
    assert names == [["rois", "centres"], *[["rois", "centres", "paths"]] * 4]
    axes = draw_iterations([picture(tokens=4)]).axes[1]
    assert part(axes, "paths").get_alpha() < part(axes, "rois").get_alpha()
    assert headings(draw_iterations([picture(stages=1)]))[:-1] == ["Start"]


def test_boxes_and_paths_lie_where_the_rois_are() -> None:
    drawn = picture(height=40, width=60, tokens=6, stages=3)
    figure = draw_iterations([drawn])
    scale = np.array([60, 40])
    centres = [(rois[:, :2] + rois[:, 2:]).numpy() / 2 * scale for rois in drawn.rois]
    for stage, axes in enumerate(figure.axes):
        check_boxes(axes, drawn.rois[stage])
    for stage in (1, 2):
        paths = part(figure.axes[stage], "paths")
        ends = np.array([path.vertices for path in paths.get_paths()])
        np.testing.assert_allclose(ends[:, 0], centres[stage - 1], atol=1e-4)
        np.testing.assert_allclose(ends[:, 1], centres[stage], atol=1e-4)
        np.testing.assert_allclose([to_rgb(colour) for colour in paths.get_colors()], token_colours(6), atol=1e-6)


def test_several_pictures() -> None:
    assert len(draw_iterations([picture(stages=3), picture(stages=3, height=90)]).axes) == 6
    for draw in (draw_iterations, lambda pictures: next(draw_frames(pictures))):
        with pytest.raises(ValueError, match="same numbers of stages and tokens"):
            draw([picture(stages=3), picture(stages=4)])
    with pytest.raises(ConfigError, match="no picture to draw"):
        draw_iterations([])


FRAMES = [np.full((40, 60, 3), value, np.uint8) for value in (250, 120, 10)]


class TestGlide:
    def test_is_exactly_at_the_rois_at_each_stage(self) -> None:
        rois = moving_rois()
        gliding = glide(rois, frames_per_move=6)
        assert gliding.rois.shape == (1 + 3 * 6, 5, 4)
        assert torch.equal(gliding.rois[::6], rois)
        assert torch.equal(gliding.rois[0], initial_grid(5))

    def test_says_which_stage_a_frame_is_of_and_pauses_there(self) -> None:
        gliding = glide(moving_rois(), frames_per_move=3)
        assert gliding.stages == (0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
        assert gliding.seconds == (PAUSE, MOVING, MOVING, PAUSE, MOVING, MOVING, PAUSE, MOVING, MOVING, LAST_PAUSE)

    def test_starts_and_ends_slowly_and_goes_straight(self) -> None:
        rois = torch.tensor([[[0.0, 0.0, 0.2, 0.2]], [[0.4, 0.8, 0.8, 1.2]]])
        centres, sizes = centre_and_size(glide(rois, frames_per_move=10).rois)
        steps = (centres[1:, 0] - centres[:-1, 0]).norm(dim=-1)
        assert (steps > 0).all()
        assert steps[:5].diff().min() > 0  # ever faster to the middle
        assert steps[5:].diff().max() < 0
        assert steps.sum() == pytest.approx(torch.tensor([0.5, 0.9]).norm().item(), rel=1e-5)  # no detour
        torch.testing.assert_close(steps, steps.flip(0), atol=1e-5, rtol=1e-4)
        # Halfway a RoI that doubles is larger by the square root of two.
        assert sizes[5, 0].tolist() == pytest.approx([0.2 * 2**0.5] * 2, rel=1e-4)

    def test_a_roi_without_size(self) -> None:
        rois = torch.tensor([[[0.5, 0.5, 0.5, 0.5]], [[0.2, 0.2, 0.8, 0.8]]])
        gliding = glide(rois)
        assert torch.isfinite(gliding.rois).all()
        assert torch.equal(gliding.rois[-1], rois[-1])

    def test_one_stage_has_nothing_to_glide_to(self) -> None:
        with pytest.raises(ConfigError, match=r"stay where they are: there is nothing to animate\. Draw a figure instead\."):
            glide(torch.rand(1, 3, 4))
        with pytest.raises(ValueError, match="at least one frame, not 0"):
            glide(moving_rois(), frames_per_move=0)


class TestFrames:
    def test_are_as_large_as_asked_for_and_all_alike(self) -> None:
        drawn = picture(height=40, width=60, stages=3)
        frames = list(draw_frames([drawn], side=120, frames_per_move=2))
        assert len(frames) == 5
        assert {frame.shape for frame in frames} == {frames[0].shape}
        height, width, _ = frames[0].shape
        assert height % 2 == width % 2 == 0
        assert 120 <= width < 140
        assert (frames[0] != frames[-1]).any()

    def test_several_pictures_on_one_frame(self) -> None:
        one = next(draw_frames([picture(stages=2)], side=80, columns=2))
        two = next(draw_frames([picture(stages=2)] * 2, side=80, columns=2))
        assert two.shape[1] > 1.8 * one.shape[1]


class TestSaveAnimation:
    @pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
    def test_a_picture_file_holds_the_frames_and_their_times(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / "new" / f"glide{suffix}"
        save_animation(iter(FRAMES), [0.9, 0.08, 2.0], path)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        with Image.open(path) as animation:
            assert animation.n_frames == 3
            assert animation.info["loop"] == 0
            durations, values = [], []
            for frame in range(3):
                animation.seek(frame)
                animation.load()
                durations.append(animation.info["duration"])
                values.append(np.asarray(animation.convert("RGB")).mean())
        if suffix != ".webp":  # of which Pillow tells the times of what it has shown
            assert durations == [900, 80, 2000]
        assert values == pytest.approx([250, 120, 10], abs=4)

    def test_a_video_holds_a_frame_for_each_moment(self, tmp_path: Path) -> None:
        av = pytest.importorskip("av")
        save_animation(iter(FRAMES), [0.8, 0.08, 0.4], tmp_path / "glide.mp4")
        with av.open(str(tmp_path / "glide.mp4")) as video:
            stream = video.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            shown = [frame.to_ndarray(format="rgb24").mean() for frame in video.decode(stream)]
        assert len(shown) == 20 + 2 + 10
        assert shown[:20] == pytest.approx([250] * 20, abs=4)
        assert shown[-10:] == pytest.approx([10] * 10, abs=4)

    def test_a_video_without_the_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with refused(MissingExtraError, "'av' is not installed.", "Install it with: pip install 'sparseformers[video]'"):
            check_animation(tmp_path / "a.mp4")
        check_animation(tmp_path / "a.gif")
