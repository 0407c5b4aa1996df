"""Every backend gives the embeddings that the network gives, and its profiler tells where the time goes."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.autograd import DeviceType

from benchmarks.speed.backends import Conditions, InPyTorch, make_ready, why_not
from benchmarks.speed.memory import can_measure, peak_on_cpu
from benchmarks.speed.operators import PASSES, Operator, Profile, _called, sorted_operators
from benchmarks.speed.subjects import Subject, find_subjects, subject
from benchmarks.tests.speed.needy import MEGABYTES, Broken, Needy
from sparseformers.config import PreprocessingConfig
from sparseformers.evaluation import Cost
from sparseformers.exporting.config import Precision
from sparseformers.profiling.backends import Backend
from tests.exporting.students import FRONTS, student_of
from tests.tiny import SIDE

CPU = torch.device("cpu")
CONDITIONS = Conditions(CPU, 1)


@pytest.fixture(scope="module")
def student(tiny_student: Path) -> Subject:
    return find_subjects(str(tiny_student), ("student",)).found[0]


def images(batch: int, side: int = SIDE) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def embedded(student: Subject, backend: Backend, precision: Precision, folder: Path) -> Tensor:
    """Embeddings by a backend, through an opening that went to another process and back."""
    calibration = torch.rand(8, 3, SIDE, SIDE).split(4)
    opening = make_ready(student, backend, precision, CONDITIONS, calibration, folder)
    assert opening.cost == (student.cost if backend == "eager" else student.folded.cost)
    return pickle.loads(pickle.dumps(opening)).open(2)(images(2))


def check_profile(student: Subject, backend: Backend, product: str, folder: Path) -> None:
    """Asserts that a backend's profiler finds the matrix products, and counts whole passes."""
    opening = make_ready(student, backend, "fp32", CONDITIONS, (), folder)
    profile = opening.profile(opening.open(2), images(2), folder / "trace.json")
    products = [operator for operator in profile.operators if operator.name.startswith(product)]
    calls = sum(operator.calls for operator in products)
    assert calls >= 4
    assert calls == pytest.approx(round(calls))
    assert 0 < sum(operator.seconds for operator in products) <= profile.seconds
    if backend == "openvino":
        assert profile.trace is None
        assert all(operator.name.partition(" ")[2] for operator in profile.operators)  # its kernel
        return
    assert profile.trace == folder / "trace.json"
    events = json.loads(profile.trace.read_text())
    if backend == "onnxruntime":
        assert len([event for event in events if event["name"] == "model_run"]) == 1 + PASSES
    else:
        assert any("dur" in event for event in events["traceEvents"])


@pytest.mark.parametrize(
    ("backend", "product"),
    [
        ("eager", "aten::addmm"),
        ("packed", "mkldnn::_linear_pointwise"),
        pytest.param("onnxruntime", "MatMul", marks=pytest.mark.slow),
        pytest.param("openvino", "FullyConnected", marks=pytest.mark.slow),
    ],
)
def test_backends__give_the_same_in_float32_and_profile_it(
    student: Subject, backend: Backend, product: str, tmp_path: Path
) -> None:
    expected = student.network(images(2))
    torch.testing.assert_close(embedded(student, backend, "fp32", tmp_path), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(student.network(images(2)), expected)  # the model stays as it is
    check_profile(student, backend, product, tmp_path)


def test_bfloat16__is_near_and_leaves_the_model_as_it_is(student: Subject, tmp_path: Path) -> None:
    expected = student.network(images(2))
    given = embedded(student, "eager", "bf16", tmp_path)
    assert given.dtype == torch.float32
    assert torch.cosine_similarity(given, expected).min() > 0.999
    assert not torch.equal(given, expected)
    assert torch.equal(student.network(images(2)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8__is_near(student: Subject, backend: Backend, tmp_path: Path) -> None:
    given, expected = embedded(student, backend, "int8", tmp_path), student.network(images(2))
    assert torch.cosine_similarity(given, expected).min() > 0.95
    assert not torch.equal(given, expected)


def test_packed__every_front_after_its_cost_was_counted_and_other_networks(tmp_path: Path) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.mean(dim=(2, 3)))

    size = PreprocessingConfig(size=(48, 48))
    subjects = [subject("student", "", student_of(config), size) for config in FRONTS.values()]
    for each in (*subjects, Subject("plain", "", Linear(), Cost(0, 0, (48, 48)), size)):
        run = make_ready(each, "packed", "fp32", CONDITIONS, (), tmp_path).open(2)
        torch.testing.assert_close(run(images(2, 48)), each.network(images(2, 48)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compile__in_bfloat16(tmp_path: Path) -> None:
    made = subject("student", "", student_of(FRONTS["grid"]), PreprocessingConfig(size=(48, 48)))
    given = make_ready(made, "compile", "bf16", CONDITIONS, (), tmp_path).open(2)(images(2, 48))
    assert given.dtype == torch.float32
    assert torch.cosine_similarity(given, made.network(images(2, 48))).min() > 0.999


@pytest.mark.slow
def test_compile__does_so_for_any_number_of_models() -> None:
    torch.compiler.reset()
    counters.clear()
    opening = InPyTorch(nn.Linear(2, 2), Cost(6, 4, (1, 2)), "fp32", CPU, "compile")
    for batch in range(1, 11):  # PyTorch by itself gives up after eight of one class
        opening.open(batch)(torch.rand(batch, 2))
    assert counters["stats"]["unique_graphs"] == 10


def test_why_not__in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not("eager", "fp32", CPU) is None
    assert why_not("packed", "fp32", CPU) is None
    assert "no int8 layers" in str(why_not("compile", "int8", CPU))
    assert "no products in bfloat16" in str(why_not("onnxruntime", "bf16", CPU))
    assert "float32 only" in str(why_not("packed", "int8", CPU))
    for backend in ("packed", "onnxruntime", "openvino"):
        assert "processors only" in str(why_not(backend, "fp32", torch.device("cuda")))
    monkeypatch.setattr("benchmarks.speed.backends._bfloat16_slower", lambda device: 40.0)
    assert "takes 40 times as long" in str(why_not("eager", "bf16", CPU))


def test_sorted_operators__adds_up_and_begins_with_the_longest() -> None:
    called = [("add", 3.0, 0.3), ("matmul", 6.0, 0.6), ("add", 3.0, 0.6), ("view", 9.0, 0.0)]
    found = sorted_operators(called)
    assert [(each.name, each.calls) for each in found] == [("add", 6 / PASSES), ("matmul", 6 / PASSES)]
    assert [each.seconds for each in found] == pytest.approx([0.9 / PASSES, 0.6 / PASSES])
    assert Profile(found).seconds == pytest.approx(1.5 / PASSES)


def test_on_cuda_kernels_count_and_not_once_more_what_launched_them() -> None:
    def event(key: str, device: DeviceType, cpu: float, cuda: float) -> SimpleNamespace:
        return SimpleNamespace(key=key, device_type=device, count=PASSES, self_cpu_time_total=cpu, self_device_time_total=cuda)

    events = [event("aten::mm", DeviceType.CPU, 5e6, 9e6), event("gemm_bf16", DeviceType.CUDA, 0, 9e6)]
    assert sorted_operators(_called(events, on_cuda=True)) == (Operator("gemm_bf16", 1.0, 9 / PASSES),)
    cpu = [event("aten::mm", DeviceType.CPU, 6e6, 0)]
    assert sorted_operators(_called(cpu, on_cuda=False)) == (Operator("aten::mm", 1.0, 6 / PASSES),)


@pytest.mark.slow
@pytest.mark.skipif(not can_measure(), reason="needs the kernel's count of resident pages")
def test_peak_on_cpu__is_what_a_process_needs(tmp_path: Path) -> None:
    opening = InPyTorch(Needy(), Cost(0, 0, (1, 1)), "fp32", CPU, "eager")
    peaks = peak_on_cpu(opening, (32, 32), (8, 1), threads=1, folder=tmp_path)
    assert peaks[1] / MEGABYTES == pytest.approx(64 + 8, abs=24)
    assert peaks[8] / MEGABYTES == pytest.approx(64 + 64, abs=24)
    with pytest.raises(RuntimeError, match="ValueError: it is broken"):
        peak_on_cpu(Broken(), (32, 32), (1,), threads=1, folder=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
