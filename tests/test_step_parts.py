"""The example that takes a training step apart, on the tiny teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.step_parts import LABELS, Options, main
from tests.tiny import SIDE, write_images, write_teacher


def test_step_parts__prints_every_part_with_the_ratio_and_writes_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "photos", 4)
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    chosen = Options(teacher=teacher, data=tmp_path / "photos", image_size=SIDE, tokens=4, batch_size=2, precision="fp32")
    main(Options(**{**vars(chosen), "rounds": 1, "ema": 0.9, "trace": tmp_path / "trace.json"}))
    printed = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in printed.splitlines() if line.startswith("| ")}
    shares = {name: float(rows[LABELS[name]][1].strip(" %")) for name in ("teacher", "forward", "backward")}
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert all(float(rows[label][0]) > 0 for label in LABELS.values())
    ratio = float(printed.split("forward and backward: ")[1].split()[0])
    assert ratio > 0.5  # a busy machine may slow the parts and not the whole
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::_fused_adamw_" for event in events)
