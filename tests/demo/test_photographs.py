from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseformers.cli.main import main
from sparseformers.demo import gather_photographs
from sparseformers.demo.run import cut
from sparseformers.train import RunFolder


@pytest.mark.parametrize(("size", "kept", "held_out"), [((100, 50), (70, 50), (30, 50)), ((50, 100), (50, 70), (50, 30))])
def test_cut__no_pixel_is_in_both_parts(size: tuple[int, int], kept: tuple[int, int], held_out: tuple[int, int]) -> None:
    values = np.arange(size[0] * size[1], dtype=np.uint32).reshape(size[1], size[0])
    photograph = Image.fromarray(np.stack([values % 256, values // 256, 0 * values], axis=-1).astype(np.uint8))
    parts = cut(photograph)
    assert (parts[0].size, parts[1].size) == (kept, held_out)
    codes = [{tuple(pixel) for pixel in np.asarray(part).reshape(-1, 3)} for part in parts]
    assert not codes[0] & codes[1]
    assert len(codes[0]) + len(codes[1]) == size[0] * size[1]


def test_gather_photographs__fifteen_in_two_parts_and_two_whole(tmp_path: Path) -> None:
    folders = gather_photographs(tmp_path)
    names = {path.name for path in folders.train.iterdir()}
    assert len(names) == 15
    assert {path.name for path in folders.regions.iterdir()} == names
    whole = {path.name for path in folders.whole.iterdir()}
    assert whole == {"chelsea.jpg", "flower.jpg"}
    assert not whole & names


@pytest.mark.slow
@pytest.mark.draws
def test_demo__runs_through_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--minutes", "0.5"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Held-out views" in printed
    assert "Fifteen photographs teach" in printed
    measured = [entry["centred_cosine"] for entry in RunFolder(tmp_path / "demo").read_metrics() if entry["kind"] == "held_out"]
    assert measured[-1] > measured[0] + 0.02
    assert (tmp_path / "demo" / "report.html").is_file()
    assert (tmp_path / "demo-photographs" / "train" / "astronaut.jpg").is_file()
