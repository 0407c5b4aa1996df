import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import sparseformers
from sparseformers.cli.main import main
from tests.train.runs import command_line

ROOM = Path(sparseformers.__file__).parent
THE_MODEL = ("model/", "teachers/", "inference/")


def callers(frame: FrameType | None) -> Iterator[str]:
    """Files of the package from a frame up to the command; what imports run is left out."""
    while frame is not None and "importlib" not in frame.f_code.co_filename:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOM) and frame.f_code.co_name != "<module>":
            yield path.relative_to(ROOM).as_posix()
        frame = frame.f_back


def test_way_from_the_command_to_the_step__at_most_ten_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = command_line(tmp_path, "--batch-size", "2", "--samples", "4", "--evaluations", "1", "--workers", "1")
    entered: set[str] = set()
    ways: list[set[str]] = []
    step = torch.optim.AdamW.step

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        """Notes each file that is entered for a batch, but for what the model itself enters."""
        if not frame.f_code.co_filename.startswith(str(ROOM)):
            return
        if event == "return" and frame.f_code.co_name == "_stop_if_asked":  # the end of the step before
            entered.clear()
        if event != "call":
            return
        way = list(callers(frame))
        if "cli/main.py" in way and not any(path.startswith(THE_MODEL) for path in way):
            entered.update(way)

    def noted(optimiser: torch.optim.Optimizer, *given: Any, **named: Any) -> Any:
        sys.setprofile(before if ways else note)  # from the first step to the second
        ways.append(entered | set(callers(sys._getframe())))
        return step(optimiser, *given, **named)

    before = sys.getprofile()
    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    assert main([*arguments, "--precision", "fp32", "--trackers", "none", "--out", str(tmp_path / "run")]) == 0
    assert len(ways) == 2
    assert len(ways[-1]) <= 10, sorted(ways[-1])
    assert {"cli/main.py", "train/loop.py", "train/step.py"} <= ways[-1]
