"""Several processes: the same samples, the same student."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sparseformers
from sparseformers.bootstrap import RunFolder
from tests.tiny import SIDE, write_images, write_teacher


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--ema", "0.9", "--layer-decay", "0.75")], ids=["plain", "ema"])
def test_torchrun__two_processes_agree_with_one(tmp_path: Path, options: tuple[str, ...]) -> None:
    write_images(tmp_path / "photos", 12)
    command = ["-m", "sparseformers", "bootstrap", "--teacher", write_teacher(tmp_path / "teacher.safetensors")]
    command += ["--data", str(tmp_path / "photos"), "--image-size", str(SIDE), "--focusing-width", "64", "--channels", "8"]
    command += ["--points", "4", "--batch-size", "4", "--samples", "24", "--holdout", "0.25", "--evaluations", "2"]
    command += ["--precision", "fp32", "--workers", "0", *options, "--out"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launch in (("one", []), ("two", launcher)):
        finished = subprocess.run(
            [sys.executable, *launch, *command, str(tmp_path / name)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
    one, two = (sparseformers.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4, msg=name)
    figures = [
        [entry["centred_cosine"] for entry in RunFolder(tmp_path / name).read_metrics() if entry["kind"] == "held_out"]
        for name in ("one", "two")
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
    assert len(figures[0]) == 3
