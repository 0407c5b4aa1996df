"""Where the time of a pass goes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks.speed.backends import BACKENDS, Conditions
from benchmarks.speed.backends.profiles import _called
from benchmarks.speed.operators import PASSES, Operator, Profile, sorted_operators
from benchmarks.speed.subjects import find_subjects
from tests.tiny import SIDE

BATCH = 2


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


@pytest.mark.parametrize(
    ("backend", "product"),
    [
        ("eager", "aten::addmm"),
        ("packed", "mkldnn::_linear_pointwise"),
        ("onnxruntime", "MatMul"),
        pytest.param("openvino", "FullyConnected", marks=pytest.mark.slow),
    ],
)
def test_profile__of_every_backend(backend: str, product: str, tiny_student: Path, tmp_path: Path) -> None:
    student = find_subjects(str(tiny_student), ("student",)).found[0]
    opening = BACKENDS[backend].prepare(student, "fp32", Conditions(torch.device("cpu"), 1), (), tmp_path)
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    profile = opening.profile(opening.open(BATCH), images, tmp_path / "trace.json")
    products = [operator for operator in profile.operators if operator.name.startswith(product)]
    assert products
    # Whole numbers: of the passes that count all operators are there, and of no other pass any.
    assert sum(operator.calls for operator in products) == pytest.approx(round(sum(operator.calls for operator in products)))
    assert sum(operator.calls for operator in products) >= len(student.network.network.cortex.blocks)  # type: ignore[union-attr]
    assert 0 < sum(operator.seconds for operator in products) <= profile.seconds
    if backend == "openvino":
        assert profile.trace is None
        assert all(operator.name.partition(" ")[2] for operator in profile.operators)  # its kernel
    else:
        assert profile.trace == tmp_path / "trace.json"
        events = json.loads(profile.trace.read_text())
        assert any("dur" in event for event in (events["traceEvents"] if isinstance(events, dict) else events))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".onnx", ".xml", ".bin"}


def test_profile__of_onnxruntime_leaves_out_the_first_pass(tiny_student: Path, tmp_path: Path) -> None:
    student = find_subjects(str(tiny_student), ("student",)).found[0]
    opening = BACKENDS["onnxruntime"].prepare(student, "fp32", Conditions(torch.device("cpu"), 1), (), tmp_path)
    profile = opening.profile(opening.open(BATCH), torch.rand(BATCH, 3, SIDE, SIDE), tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    assert len([event for event in events if event["name"] == "model_run"]) == 1 + PASSES
    # An operator that takes less than a microsecond each time is not among those of the profile.
    counted = {operator.name: operator.calls for operator in profile.operators}
    in_file = {name: len([event for event in kernels if event["args"]["op_name"] == name]) for name in counted}
    assert counted == {name: count / (1 + PASSES) for name, count in in_file.items()}
