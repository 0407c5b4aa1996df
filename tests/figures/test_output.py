import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sparseformers.errors import MissingExtraError, RunError
from sparseformers.figures import curves_figure, draw_student, save_animation, save_figure
from sparseformers.figures.output import check_animation
from tests.figures.pictures import picture
from tests.refusals import refused


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

    def test_the_suffix_is_the_format(self, tmp_path: Path) -> None:
        starts = {"pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8", "JPEG": b"\xff\xd8", "webp": b"RIFF"}
        for suffix, start in starts.items():
            path = tmp_path / f"curves.{suffix}"
            save_figure(curves_figure([]), path, dpi=40)
            assert path.read_bytes().startswith(start)

    def test_a_parent_that_is_a_file_and_a_place_that_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("something")
        (tmp_path / "a.png").mkdir()
        for path in (tmp_path / "file" / "a.png", tmp_path / "a.png"):
            with pytest.raises(RunError, match=r"a\.png' cannot be written \(.+\)\. Choose a place where you may write"):
                save_figure(curves_figure([]), path, dpi=30)
        assert (tmp_path / "file").read_text() == "something"
        assert {entry.name for entry in tmp_path.iterdir()} == {"a.png", "file"}

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

    def test_two_more_of_a_map(self) -> None:
        history = [{"samples": seen, "map_divergence": 0.5 - seen / 100, "map_overlap": seen / 10} for seen in (0, 5)]
        *_, divergence, overlap = curves_figure(history).axes
        np.testing.assert_allclose(divergence.lines[0].get_xydata(), [[0, 0.5], [5, 0.45]])
        np.testing.assert_allclose(overlap.lines[0].get_xydata(), [[0, 0], [5, 0.5]])

    def test_a_noisy_loss_gets_its_running_mean(self) -> None:
        history = [{"samples": step, "loss": step % 2} for step in range(200)]
        raw, mean, _ = curves_figure(history).axes[0].lines
        assert len(raw.get_xdata()) == 200
        assert np.ptp(mean.get_ydata()) < 0.2
        assert np.mean(mean.get_xdata()) == pytest.approx(np.mean(raw.get_xdata()))

    def test_an_empty_history_says_so(self) -> None:
        for axes in curves_figure([]).axes:
            assert [text.get_text() for text in axes.texts] == ["nothing recorded"]


FRAMES = [np.full((40, 60, 3), value, np.uint8) for value in (250, 120, 10)]


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
