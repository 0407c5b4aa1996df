"""Where the time of a pass goes, operator by operator, by the profilers of the libraries that run models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from sparseformers.exporting.onnx_file import onnx_session
from sparseformers.exporting.openvino_file import compiled_openvino
from sparseformers.files import replacing
from sparseformers.profiling.backends import Runner

PASSES = 3
"""So many are profiled, after one that is not; times are those of one."""


@dataclass(frozen=True)
class Operator:
    """One kind of operator in a pass, without those that it calls; on CUDA, one kernel."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """The operators of a pass, those that take longest first, and the trace for chrome://tracing, where there is one."""

    operators: tuple[Operator, ...]
    trace: Path | None = None

    @property
    def seconds(self) -> float:
        """Of all operators, a pass. On CUDA the device is idle in the rest of it."""
        return sum(operator.seconds for operator in self.operators)


def sorted_operators(called: Iterable[tuple[str, float, float]]) -> tuple[Operator, ...]:
    """Operators by name, those that take longest first.

    Args:
        called: names, calls and seconds, of :data:`PASSES` passes together; a name may come more than once.
    """
    sums: dict[str, tuple[float, float]] = {}
    for name, calls, seconds in called:
        before = sums.get(name, (0.0, 0.0))
        sums[name] = (before[0] + calls, before[1] + seconds)
    found = (Operator(name, calls / PASSES, seconds / PASSES) for name, (calls, seconds) in sums.items() if seconds > 0)
    return tuple(sorted(found, key=lambda operator: -operator.seconds))


def of_pytorch(run: Runner, images: Tensor, path: Path) -> Profile:
    """Profiles what PyTorch runs, compiled or not, on the device of ``images``; the trace goes to ``path``."""
    on_cuda = images.device.type == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell the terminal of every start and stop
    run(images)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as recorded:
        for _ in range(PASSES):
            run(images)
            if on_cuda:
                torch.cuda.synchronize(images.device)
    with replacing(path) as temporary:
        recorded.export_chrome_trace(str(temporary))
    return Profile(sorted_operators(_called(recorded.key_averages(), on_cuda=on_cuda)), path)


def _called(events: Iterable[Any], *, on_cuda: bool) -> Iterator[tuple[str, float, float]]:
    """Names, calls and seconds of PyTorch's events."""
    for event in events:
        # On CUDA operators of the host have the times of their kernels, too, which would count them twice.
        if on_cuda and event.device_type == DeviceType.CUDA:
            yield event.key, event.count, event.self_device_time_total / 1e6
        elif not on_cuda:
            yield event.key, event.count, event.self_cpu_time_total / 1e6


def of_onnxruntime(model: Path, threads: int, images: Tensor, path: Path) -> Profile:
    """Profiles a .onnx file on a batch; the trace goes to ``path``."""
    session = onnx_session(model, batch=len(images), threads=threads, trace=path)
    for _ in range(1 + PASSES):
        session.run(None, {"images": images.numpy()})
    Path(session.end_profiling()).replace(path)
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    begun = sorted(event["ts"] for event in events if event["name"] == "model_run")[1]  # after the first pass
    called = (
        (event["args"]["op_name"], 1.0, event["dur"] / 1e6)
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begun
    )
    return Profile(sorted_operators(called), path)


def of_openvino(model: Path, threads: int, images: Tensor) -> Profile:
    """Profiles the files of OpenVINO on a batch; it tells how long its operators took, but not when, so there is no trace."""
    request = compiled_openvino(model, batch=len(images), threads=threads, profiled=True).create_infer_request()
    request.infer([images.numpy()])
    called: list[tuple[str, float, float]] = []
    for _ in range(PASSES):
        request.infer([images.numpy()])
        # With its kernel, which tells the precision that it was really computed in.
        called += [(f"{each.node_type} {each.exec_type}", 1.0, each.real_time.total_seconds()) for each in request.profiling_info]
    return Profile(sorted_operators(called))
