"""``profile``: student and teacher timed in turns, and what is said of them."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from sparseformers.errors import ConfigError, SparseFormersError
from sparseformers.evaluation import Cost
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.profiling.backends import BACKENDS, check_backend, prepare
from sparseformers.profiling.profile import Latency, ProfileReport, Timing, interleave, median_ratio, profile, summarise_latency
from sparseformers.saving import save
from sparseformers.teachers import Teacher, load_teacher
from tests.evaluation.networks import Network
from tests.evaluation.printed import printed
from tests.tiny import SIDE, write_teacher

CPU = torch.device("cpu")


class Made(NamedTuple):
    """A student and its teacher, and the file of each."""

    student: SparseFormer
    teacher: Teacher
    model: Path
    weights: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("profile")
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    student, _, provenance = inherit(teacher, tokens=4)
    save(student, folder / "model.safetensors", provenance=provenance)
    return Made(student, teacher, folder / "model.safetensors", folder / "teacher.safetensors")


def lines(report: ProfileReport) -> list[list[str]]:
    text = "".join(printed(table) for table in report.tables())
    return [line.replace("│", " ").replace("┃", " ").split() for line in text.splitlines()]


def test_profile__sets_student_beside_teacher(made: Made) -> None:
    report = profile(made.model, backend=("eager", "packed"), batch=(1, 2), repeats=3, precision="fp32")
    kinds = [(timing.backend, timing.batch) for timing in report.timings]
    assert kinds == [("eager", 1), ("eager", 2), ("packed", 1), ("packed", 2)]
    assert report.teacher is not None
    assert sum(report.parameter_groups.values()) == report.student.parameters
    for timing in report.timings:
        assert timing.ratio > 0
        assert 0 < timing.student.milliseconds_p05 <= timing.student.milliseconds_median <= timing.student.milliseconds_p95
    values = json.loads(json.dumps(report.to_dict()))
    assert values["timings"][3]["teacher"]["batch"] == 2
    assert values["precision"] == "fp32"
    # Modules are taken, too, and stay in their mode; the student alone costs the same.
    student = made.student.train()
    alone = profile(student, batch=())
    assert (alone.student, alone.teacher, alone.timings) == (report.student, None, ())
    assert student.training
    assert ["image,", "pixels", str(SIDE), "x", str(SIDE)] in lines(alone)
    assert profile(student, teacher=made.teacher, batch=(1,), repeats=1).teacher == report.teacher


def test_profile__says_why_there_is_no_teacher(made: Made) -> None:
    aside = made.weights.rename(made.weights.with_suffix(".aside"))
    try:
        report = profile(made.model, batch=())
    finally:
        aside.rename(made.weights)
    assert report.teacher is None
    assert report.remarks[0].startswith("Without the teacher: ")
    with pytest.raises(SparseFormersError):
        profile(made.model, teacher="timm:test_vit@nowhere.safetensors", batch=())


def test_tables__of_known_figures() -> None:
    latencies = (Latency(16, 200.0, 190.0, 210.0, 80.0), Latency(16, 800.0, 790.0, 810.0, 20.0))
    report = ProfileReport(
        model="sf_base_augreg",
        precision="fp32",
        device="cpu",
        student=Cost(64_200_000, 3_780_000_000, (224, 224), 3_720_000_000),
        teacher=Cost(86_600_000, 17_560_000_000, (224, 224), 16_850_000_000),
        parameter_groups={"new": 7_500_000, "tuned": 28_300_000, "frozen": 28_400_000},
        timings=(Timing("eager", 16, *latencies, ratio=4.01),),
    )
    found = lines(report)
    assert ["parameters,", "M", "64.2", "86.6", "1.35"] in found
    assert ["tuned", "28.3"] in found
    assert ["multiply-adds,", "G", "3.78", "17.56", "4.65"] in found
    assert ["as", "the", "papers", "count", "3.72", "16.85", "4.53"] in found
    assert ["eager", "16", "200.0", "800.0", "80.0", "20.0", "4.01"] in found


def test_bad_input(made: Made) -> None:
    for given, problem in (
        ({"repeats": 0}, "must be at least 1"),
        ({"batch": (0,)}, "must be at least 1"),
        ({"backend": ("eagr",)}, r"There is no backend 'eagr'\. Did you mean 'eager'"),
        ({"backend": ("packed",), "precision": "bf16"}, "timed in float32 only"),
    ):
        with pytest.raises(ConfigError, match=problem):
            profile(made.model, **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="runs on processors only, not on cuda"):
        check_backend("packed", precision="fp32", device=torch.device("cuda"))
    with pytest.raises(SparseFormersError, match="released model 'sf_base_augrg'"):
        profile("sf_base_augrg")


@pytest.mark.parametrize(
    "backend", [name if name in ("eager", "packed") else pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS]
)
def test_backends__embed_alike(backend: str, made: Made, tmp_path: Path) -> None:
    for package in {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}.get(backend, ()):
        pytest.importorskip(package)
    images = torch.rand(2, 3, SIDE, SIDE)
    networks: dict[str, nn.Module] = {"student": made.student.eval(), "teacher": made.teacher.eval()}
    for name, network in networks.items():
        (tmp_path / name).mkdir()
        run = prepare(network, backend, size=(SIDE, SIDE), precision="fp32", device=CPU, folder=tmp_path / name)(2)  # type: ignore[arg-type]
        with torch.no_grad():
            torch.testing.assert_close(run(images).clone(), network(images).embedding, atol=1e-4, rtol=1e-3)


def test_eager__runs_without_gradients_in_the_precision_asked_for(tmp_path: Path) -> None:
    found: list[tuple[bool, torch.dtype]] = []
    network = Network()
    network.linear.register_forward_hook(lambda *given: found.append((torch.is_inference_mode_enabled(), given[-1].dtype)))
    for precision in ("fp32", "bf16"):
        prepare(network, "eager", size=(32, 32), precision=precision, device=CPU, folder=tmp_path)(1)(torch.rand(1, 3, 32, 32))
    assert found == [(True, torch.float32), (True, torch.bfloat16)]
    assert network.linear.weight.dtype == torch.float32


def test_interleave__takes_turns_and_figures_are_taken_turn_by_turn() -> None:
    calls: list[str] = []
    passes = {name: (lambda name=name: calls.append(name)) for name in "ab"}  # type: ignore[misc]
    times = iter([0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 1.0, 1.0, 3.0, 0.0, 2.0, 2.0, 10.0])
    taken = interleave(passes, turns=3, warm_up=2, clock=lambda: next(times), pause=lambda _: None)
    assert calls == list("ab" * 5)
    assert taken == {"a": (1.0, 1.0, 2.0), "b": (3.0, 2.0, 8.0)}
    assert median_ratio(taken["b"], taken["a"]) == 3.0
    latency = summarise_latency(4, [0.1, 0.3, 0.2])
    assert latency.milliseconds_median == pytest.approx(200)
    assert latency.images_per_second == pytest.approx(20)
