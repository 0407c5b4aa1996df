"""OpenVINO's and PyTorch's own files, end to end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch

from sparseformers.exporting import ExportConfig, export
from sparseformers.exporting.formats import METADATA_FILE
from sparseformers.exporting.network import EmbeddingNetwork
from sparseformers.exporting.openvino_file import openvino_core
from tests.exporting.students import FRONTS, student_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("front", FRONTS)
def test_openvino__takes_any_batch_and_size(front: str, photographs: Path, tmp_path: Path) -> None:
    student = student_of(FRONTS[front])
    summary = export(student, tmp_path / "out.xml", ExportConfig(format="openvino", data=(photographs,), images=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.bin", "out.xml"]
    assert [path.name for path in summary.files] == ["out.bin", "out.xml"]
    model = openvino.Core().read_model(tmp_path / "out.xml")
    assert str(model.input("images").partial_shape).replace(" ", "") == "[?,3,?,?]"
    assert json.loads(model.get_rt_info(["sparseformers", "mean"]).astype(str)) == list(student.config.preprocessing.mean)
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 64, 36), (5, 3, 33, 90)):
        images = torch.rand(shape)
        with torch.no_grad():
            expected = student(images).embedding
        torch.testing.assert_close(torch.tensor(compiled(images.numpy())["embedding"]), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.1), ("int8", 0.5)])
def test_openvino__smaller_precisions(precision: str, most: float, photographs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": precision, "tolerance": most, "with_preprocessing": precision == "bf16"}
    settings = ExportConfig(format="openvino", data=(photographs,), images=4, calibration_images=8, **options)
    summary = export(student_of(FRONTS["grid"]), tmp_path / "out.xml", settings)
    assert 1e-5 < summary.agreement.greatest_error < most
    if precision == "int8":
        network = EmbeddingNetwork(student_of(FRONTS["grid"]))
        ranges = sum(op.get_type_name() == "FakeQuantize" for op in openvino.Core().read_model(tmp_path / "out.xml").get_ops())
        assert ranges == sum(isinstance(module, torch.nn.Linear) for module in network.modules())
    kinds = {str(op.get_element_type()) for op in openvino.Core().read_model(tmp_path / "out.xml").get_ops() if is_weight(op)}
    assert any(wanted in kind for kind in kinds for wanted in {"bf16": ("bfloat16", "bf16"), "int8": ("int8", "i8")}[precision])


def is_weight(operation: openvino.Node) -> bool:
    return operation.get_type_name() == "Constant" and len(operation.get_output_shape(0)) == 2


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.1)])
@pytest.mark.parametrize("with_preprocessing", [False, True])
def test_torch_export(precision: str, most: float, with_preprocessing: bool, photographs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": precision, "with_preprocessing": with_preprocessing}
    settings = ExportConfig(format="torch-export", data=(photographs,), images=4, tolerance=0.1, **options)
    summary = export(student_of(FRONTS["focusing"]), tmp_path / "out.pt2", settings)
    assert summary.agreement.greatest_error < (0.01 if with_preprocessing and precision == "fp32" else most)
    extra = {METADATA_FILE: ""}
    torch.export.load(tmp_path / "out.pt2", extra_files=extra)
    assert json.loads(extra[METADATA_FILE])["precision"] == precision


def test_openvino__signals_reach_a_process_that_has_dropped_its_files() -> None:
    code = """import signal, subprocess, numpy as np; from openvino import Model, opset13 as op
from sparseformers.exporting.openvino_file import openvino_core, openvino_core
signal.signal(signal.SIGCHLD, lambda *_: None); x = op.parameter([1, 3], np.float32); model = Model([op.relu(x)], [x], "m")
one, other = (openvino_core().compile_model(model, "CPU") for _ in range(2)); del one; del other; subprocess.run(["true"])"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
