"""Every backend gives the embeddings that the network gives."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from benchmarks.speed.backends import BACKENDS, Conditions
from benchmarks.speed.backends.pytorch import InPyTorch
from benchmarks.speed.subjects import Subject, find_subjects, subject
from sparseformers.config import PreprocessingConfig
from sparseformers.evaluation import Cost
from sparseformers.evaluation.backends import cast_layers
from sparseformers.exporting.config import Precision
from tests.exporting.students import FRONTS, student_of
from tests.tiny import SIDE

CONDITIONS = Conditions(torch.device("cpu"), 1)


@pytest.fixture(scope="module")
def student(tiny_student: Path) -> Subject:
    return find_subjects(str(tiny_student), ("student",)).found[0]


def embedded(student: Subject, backend: str, precision: Precision, folder: Path, *, batch: int = 2) -> torch.Tensor:
    """Embeddings by a backend, through an opening that went to another process and back."""
    calibration = torch.rand(8, 3, SIDE, SIDE).split(4)
    opening = BACKENDS[backend].prepare(student, precision, CONDITIONS, calibration, folder)
    return pickle.loads(pickle.dumps(opening)).open(batch)(images(batch))


def images(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", ["eager", "packed", "onnxruntime"])
def test_backends__give_the_same_in_float32(student: Subject, backend: str, tmp_path: Path) -> None:
    given = embedded(student, backend, "fp32", tmp_path)
    torch.testing.assert_close(given, student.network(images(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("front", FRONTS)
def test_packed__every_front_after_its_cost_was_counted(front: str, tmp_path: Path) -> None:
    made = subject("student", "", student_of(FRONTS[front]), PreprocessingConfig(size=(48, 48)))
    opening = BACKENDS["packed"].prepare(made, "fp32", CONDITIONS, (), tmp_path)
    batch = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(opening.open(2)(batch), made.network(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backend", "folded"), [("eager", False), ("packed", True), ("compile", True), ("onnxruntime", True)])
def test_cost__is_that_of_what_is_run(student: Subject, backend: str, folded: bool, tmp_path: Path) -> None:
    opening = BACKENDS[backend].prepare(student, "fp32", CONDITIONS, (), tmp_path)
    assert opening.cost == (student.folded.cost if folded else student.cost)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["compile", "openvino"])
def test_slower_backends__give_the_same_in_float32(student: Subject, backend: str, tmp_path: Path) -> None:
    given = embedded(student, backend, "fp32", tmp_path)
    torch.testing.assert_close(given, student.network(images(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compile__does_so_for_any_number_of_models() -> None:
    torch.compiler.reset()
    counters.clear()
    opening = InPyTorch(nn.Linear(2, 2), Cost(6, 4, (1, 2)), "fp32", torch.device("cpu"), compiled=True)
    for batch in range(1, 11):  # PyTorch by itself gives up after eight of one class
        opening.open(batch)(torch.rand(batch, 2))
    assert counters["stats"]["unique_graphs"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_compile__in_bfloat16_with_every_front(front: str, tmp_path: Path) -> None:
    made = subject("student", "", student_of(FRONTS[front]), PreprocessingConfig(size=(48, 48)))
    run = BACKENDS["compile"].prepare(made, "bf16", CONDITIONS, (), tmp_path).open(2)
    batch = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    given, expected = run(batch), made.network(batch)
    assert given.dtype == torch.float32
    assert torch.cosine_similarity(given, expected).min() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8__is_near(student: Subject, backend: str, tmp_path: Path) -> None:
    given, expected = embedded(student, backend, "int8", tmp_path), student.network(images(2))
    assert torch.cosine_similarity(given, expected).min() > 0.95
    assert not torch.equal(given, expected)


def test_bfloat16__has_the_weights_of_layers_cast_and_is_near(student: Subject, tmp_path: Path) -> None:
    given, expected = embedded(student, "eager", "bf16", tmp_path), student.network(images(2))
    assert given.dtype == torch.float32
    assert torch.cosine_similarity(given, expected).min() > 0.999
    assert not torch.equal(given, expected)
    network = cast_layers(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Conv2d(2, 2, 1)))
    assert [value.dtype for value in network.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2 + [torch.bfloat16] * 2


def test_prepare__leaves_the_model_as_it_is(student: Subject, tmp_path: Path) -> None:
    before = student.network(images(2))
    embedded(student, "eager", "bf16", tmp_path)
    assert torch.equal(student.network(images(2)), before)


def test_why_not__in_a_line(student: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKENDS["eager"].why_not(student, "fp32", CONDITIONS) is None
    assert "no int8 layers" in str(BACKENDS["compile"].why_not(student, "int8", CONDITIONS))
    assert "no products in bfloat16" in str(BACKENDS["onnxruntime"].why_not(student, "bf16", CONDITIONS))
    on_cuda = Conditions(torch.device("cuda"), 1)
    assert "on the CPU only" in str(BACKENDS["openvino"].why_not(student, "fp32", on_cuda))
    monkeypatch.setattr("benchmarks.speed.backends.pytorch._bfloat16_slower", lambda device: 40.0)
    assert "takes 40 times as long" in str(BACKENDS["eager"].why_not(student, "bf16", CONDITIONS))


def test_packed__is_for_processors_and_float32(student: Subject, tmp_path: Path) -> None:
    packed = BACKENDS["packed"]
    assert packed.why_not(student, "fp32", CONDITIONS) is None
    assert "float32 only" in str(packed.why_not(student, "int8", CONDITIONS))
    assert "processors only" in str(packed.why_not(student, "fp32", Conditions(torch.device("cuda"), 1)))
    before = student.network(images(2))
    embedded(student, "packed", "fp32", tmp_path)
    assert torch.equal(student.network(images(2)), before)


def test_packed__takes_other_networks_too(student: Subject, tmp_path: Path) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(images.mean(dim=(2, 3)))

    plain = Subject("plain", "", Linear(), student.cost, student.preprocessing)
    run = BACKENDS["packed"].prepare(plain, "fp32", CONDITIONS, (), tmp_path).open(2)
    torch.testing.assert_close(run(images(2)), plain.network(images(2)))
