import json
from pathlib import Path

import pytest

from examples.loader_speed import Settings, main
from tests.tiny import write_images


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_images(tmp_path / "photos", 4)
    return Settings(data=tmp_path / "photos", image_size=32, batch_size=2, workers=(0, 1), seconds=0.02, turns=1, json=True)


def test_loader_speed__every_loop_is_timed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    main(settings)
    figures = json.loads(capsys.readouterr().out)
    assert [speed["workers"] for speed in figures["speeds"]] == [0, 1]
    assert all(speed[loop] > 0 for speed in figures["speeds"] for loop in ("loader", "bare", "scaled", "share"))
    assert (figures["decoding"]["images"], figures["decoding"]["scaled_down"]) == (4, 0)


def test_loader_speed__large_images_are_decoded_at_a_fraction(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(**{**vars(settings), "workers": (), "enlarge": (400, 300), "json": False}))
    printed = capsys.readouterr().out
    assert "4 of 4 images are decoded at a fraction of their size" in printed
    assert float(printed.split("PSNR ")[1].split(" dB")[0]) > 25
