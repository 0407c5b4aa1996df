import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sparseformers.config import ReadOutConfig
from sparseformers.data import evaluation_view
from sparseformers.errors import ConfigError
from sparseformers.exporting import ExportConfig, export
from sparseformers.exporting.formats import trace
from sparseformers.exporting.network import network_of
from sparseformers.exporting.onnx_file import write_onnx
from tests.exporting.students import FRONTS, student_of
from tests.refusals import refused

ROOT = Path(__file__).resolve().parents[2]
TRANSPOSES = 4  # of each attention: queries, keys, values, and the way back
SHAPES = ((2, 3, 48, 48), (1, 3, 64, 36), (5, 3, 33, 90), (3, 3, 200, 120))


def opened(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("front", [pytest.param(front, marks=[] if front == "grid" else [pytest.mark.slow]) for front in FRONTS])
def test_takes_any_batch_and_size(front: str, photographs: Path, tmp_path: Path) -> None:
    student = student_of(FRONTS[front])
    out = tmp_path / "out.onnx"
    summary = export(student, out, ExportConfig(format="onnx", data=(photographs,), images=3))
    assert summary.agreement.greatest_error < 1e-4
    session = opened(out)
    for shape in SHAPES:
        images = torch.rand(shape)
        (given,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(given, student(images).embedding.numpy(), atol=2e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["std"]) == list(student.config.preprocessing.std)
    assert metadata["precision"] == "fp32"
    assert "[0, 1]" in metadata["images"]


@pytest.mark.parametrize("kind", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), "torch-export"])
def test_maps_of_features__agree_for_any_batch_and_size(kind: str, photographs: Path, tmp_path: Path) -> None:
    read_out = ReadOutConfig(hidden=48, grid=(6, 6), patch_size=8)
    student = student_of(replace(FRONTS["grid"], read_out=read_out))
    out = tmp_path / {"onnx": "out.onnx", "openvino": "out.xml", "torch-export": "out.pt2"}[kind]
    summary = export(student, out, ExportConfig(format=kind, output="dense", data=(photographs,), images=3))
    assert summary.agreement.greatest_error < 1e-5
    assert summary.metadata["dense"] == "float32, batch x 32 x 6 x 6"
    if kind == "onnx":
        images = torch.rand(SHAPES[2])
        (given,) = opened(out).run(["dense"], {"images": images.numpy()})
        np.testing.assert_allclose(given, student.dense(images).detach().numpy(), atol=2e-5)


def test_maps_of_features__need_a_read_out_and_a_program(photographs: Path, tmp_path: Path) -> None:
    plain = student_of(FRONTS["grid"])
    with refused(ConfigError, "has no read-out, so there is no map to export", "--dense"):
        export(plain, tmp_path / "out.onnx", ExportConfig(format="onnx", output="dense", data=(photographs,)))
    with refused(ConfigError, "--output dense has no meaning"):
        export(plain, tmp_path / "out.safetensors", ExportConfig(format="safetensors", output="dense", data=(photographs,)))


@pytest.mark.slow
def test_stays_fast__moves_and_samples_as_little_as_it_did(tmp_path: Path) -> None:
    student, settings = student_of(FRONTS["focusing"]), ExportConfig(format="onnx")
    write_onnx(trace(network_of(student, settings), settings, student.config.preprocessing.size), tmp_path / "out.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # it warns of what is optimised for one processor
    onnxruntime.InferenceSession(tmp_path / "out.onnx", options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert counts["GridSample"] == 0, counts
    assert 0 < counts["Softmax"] <= 4, counts
    assert counts["Transpose"] <= TRANSPOSES * counts["Softmax"] + 1, counts  # one of the feature map


@pytest.mark.slow
def test_example__runs_a_file_with_preprocessing_without_pytorch(photographs: Path, tmp_path: Path) -> None:
    student = student_of(FRONTS["grid"])
    out = tmp_path / "out.onnx"
    export(student, out, ExportConfig(format="onnx", data=(photographs,), with_preprocessing=True))
    names = [str(path) for path in sorted(photographs.iterdir())[:2]]
    Image.open(names[1]).resize((131, 50)).save(tmp_path / "other.png")
    names[1] = str(tmp_path / "other.png")
    code = "import runpy, sys; sys.modules['torch'] = sys.modules['sparseformers'] = None; runpy.run_path(sys.argv.pop(0 + 1))"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / "run_onnx.py"), str(out), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    view = evaluation_view(student.config.preprocessing)
    for line, name in zip(lines, names, strict=False):
        numbers = np.array(line.removeprefix(name).split(), dtype=np.float32)
        with torch.no_grad():
            expected = student(view(Image.open(name).convert("RGB"))[None]).embedding[0].numpy()
        np.testing.assert_allclose(numbers, expected, atol=5e-3)


@pytest.mark.slow
def test_int8__quantises_linear_layers_and_nothing_else(photographs: Path, tmp_path: Path) -> None:
    student = student_of(FRONTS["focusing"])  # whose layers are used more than once
    settings = ExportConfig(format="onnx", precision="int8", data=(photographs,), images=4, calibration_images=8, tolerance=0.5)
    summary = export(student, tmp_path / "out.onnx", settings)
    assert 1e-4 < summary.agreement.greatest_error < 0.5
    model = onnx.load(tmp_path / "out.onnx")
    stored = {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) >= 1024}
    assert onnx.TensorProto.INT8 in stored
    quantised = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    linear = sum(isinstance(module, torch.nn.Linear) for module in student.modules())
    assert len(quantised) >= linear
    assert not any("GridSample" in node.name and "Quantize" in node.op_type for node in model.graph.node)
    assert {entry.key for entry in model.metadata_props} >= {"teacher", "mean", "std", "image_size", "sparseformers"}
    session = opened(tmp_path / "out.onnx")
    one, many = torch.rand(1, 3, 48, 48), torch.rand(4, 3, 48, 48)
    alone = session.run(None, {"images": one.numpy()})[0]
    among = session.run(None, {"images": torch.cat([one, 3 * many]).numpy()})[0]
    np.testing.assert_allclose(alone[0], among[0], atol=1e-4)  # ranges are fixed, so the others of a batch do not matter


@pytest.mark.slow
def test_fixed_sizes_are_fixed(photographs: Path, tmp_path: Path) -> None:
    settings = ExportConfig(format="onnx", data=(photographs,), images=5, batch=2, size="40x56")
    student = student_of(FRONTS["grid"])
    summary = export(student, tmp_path / "out.onnx", settings)
    assert summary.agreement.sizes == ((40, 56),)
    assert summary.agreement.batches == (2,)
    assert opened(tmp_path / "out.onnx").get_inputs()[0].shape == [2, 3, 40, 56]
    tokens = replace(settings, tokens=9)
    export(student, tmp_path / "nine.onnx", tokens)
    images = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        expected = student(images, 9).embedding.numpy()
    np.testing.assert_allclose(opened(tmp_path / "nine.onnx").run(None, {"images": images.numpy()})[0], expected, atol=2e-5)


class Attending(nn.Module):
    """Images as their own queries, keys and values."""

    def __init__(self, scale: float | None, masked: bool) -> None:
        super().__init__()
        self.scale = scale
        self.mask = 5 * torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(0)) if masked else None

    def forward(self, images: Tensor) -> Tensor:
        """B x heads x T x C -> the same."""
        return F.scaled_dot_product_attention(3 * images, images, images + 1, attn_mask=self.mask, scale=self.scale)


@pytest.mark.parametrize(("scale", "masked"), [(None, False), (0.7, True)])
def test_is_pytorchs_for_any_batch(scale: float | None, masked: bool, tmp_path: Path) -> None:
    network, shape = Attending(scale, masked), {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(network, (torch.rand(2, 3, 7, 5),), dynamic_shapes=shape)
    write_onnx(program, tmp_path / "out.onnx")
    names = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert names <= {"MatMul", "Mul", "Add", "Transpose", "Softmax"}  # nothing that works out shapes
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        images = torch.randn(batch, 3, 7, 5)
        (given,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(given, network(images).numpy(), rtol=0, atol=1e-5)


def test_refuses_what_it_does_not_write(tmp_path: Path) -> None:
    class Causal(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(images, images, images, is_causal=True)

    program = torch.export.export(Causal(), (torch.rand(2, 3, 7, 5),))
    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        write_onnx(program, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
