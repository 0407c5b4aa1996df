"""A report with figures that can be worked out by hand."""

from collections.abc import Sequence

from benchmarks.speed.backends import Route
from benchmarks.speed.machine import Floor, Machine
from benchmarks.speed.report import Circumstances, Model, Nearness, Row, SpeedReport
from sparseformers.evaluation import Cost
from sparseformers.profiling.profile import summarise_latency

MACHINE = Machine({"fp32": (1.0, 1.0, 2.0), "int8": (0.5, 0.5, 0.5)}, (0.3, 0.1, 0.2), 1000)
"""1000 multiply-adds a second in fp32 in the median, 2000 in int8; reads ten times BYTES_READ a second at best."""


def row(name: str, precision: str, backend: str, *seconds: float, batch: int = 1, cosine: float = 1.0) -> Row:
    return Row(
        route=Route(name, precision, backend),  # type: ignore[arg-type]
        multiply_adds=2_000_000_000,
        seconds=seconds,
        latency=summarise_latency(batch, seconds),
        cosine=Nearness(cosine, cosine - 0.01),
        floor=Floor(0.25, "weights") if batch == 1 else Floor(0.5, "multiply-adds"),
        share=0.75,
        peak_bytes=3_000_000,
    )


def report(rows: Sequence[Row], *, photographs: bool = True, left_out: tuple[str, ...] = ()) -> SpeedReport:
    names = dict.fromkeys(row.route.model for row in rows)
    return SpeedReport(
        circumstances=Circumstances("a machine", "AVX2", 2, "32 photographs", photographs, {"torch": "2.13"}),
        models=tuple(Model(name, f"what {name} is", Cost(1_000_000, 2_000_000_000, (32, 32))) for name in names),
        machines={row.batch: MACHINE for row in rows},
        rows=tuple(rows),
        left_out=left_out,
    )


def one_batch(batch: int = 1) -> list[Row]:
    """The student on two paths and in int8, and the teacher on one and faster on another."""
    return [
        row("student", "fp32", "eager", 1.0, 2.0, 3.0, batch=batch),
        row("student", "fp32", "compile", 0.5, 1.0, 1.5, batch=batch),
        row("student", "int8", "openvino", 0.2, 0.5, 0.5, batch=batch, cosine=0.98),
        row("teacher", "fp32", "eager", 4.0, 8.0, 15.0, batch=batch),
        row("teacher", "fp32", "openvino", 2.0, 4.0, 6.0, batch=batch),
    ]
