"""One step in each precision, with gradient checkpointing and compiled."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sparseformers.data import Batch
from sparseformers.errors import ConfigError
from sparseformers.modes import gradient_scaler
from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig, bootstrap
from sparseformers.train import step as step_module
from sparseformers.train.objective import Objective
from sparseformers.train.optimiser import build_optimiser
from sparseformers.train.setup import Parts, gather_parts
from sparseformers.train.step import CompiledForBatches, TrainingStep, clip, compile_errors, group_norms, total_norm
from tests.refusals import refused
from tests.train.runs import entries

CPU = torch.device("cpu")


@pytest.fixture
def settings(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(front="grid", lr=1e-4)


def parts_of(settings: BootstrapConfig) -> Parts:
    return gather_parts(settings, device=CPU)


def step_of(parts: Parts) -> TrainingStep:
    student, settings = parts.inheritance.student, parts.settings
    learning = settings.optimisation
    optimiser = build_optimiser(student, lr=learning.lr, lr_ratios=settings.lr_ratios, weight_decay=learning.weight_decay)
    scaler = gradient_scaler(parts.precision, CPU)
    return TrainingStep(parts, student, optimiser, make_accelerator(), objective=Objective(), scaler=scaler)


def batch_of(images: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(images)
    return Batch(torch.rand(images, 3, 64, 64, generator=generator), torch.arange(images), [])


def test_norms__are_those_before_clipping_by_group(settings: BootstrapConfig) -> None:
    figures = {clip: step_of(parts_of(settings.with_(clip_norm=clip)))(batch_of(), rate=1.0, samples=0) for clip in (1e-6, 1e6)}
    assert set(figures[1e6].norms) == {"tuned"}
    for name, norm in figures[1e6].norms.items():
        assert norm > 0, name
        assert torch.equal(norm, figures[1e-6].norms[name]), name
    torch.testing.assert_close(figures[1e-6].norm, figures[1e-6].norms["tuned"])


def test_group_norms__join_groups_of_a_name_and_tell_what_is_not_finite() -> None:
    vectors = [nn.Parameter(torch.zeros(2)) for _ in range(4)]
    names = ("new", "new", "tuned", "frozen")
    optimiser = torch.optim.SGD([{"params": [each], "name": name} for each, name in zip(vectors, names, strict=True)], lr=1.0)
    for vector, value in zip(vectors[:3], (3.0, 4.0, 12.0), strict=True):
        vector.grad = torch.tensor([value, 0.0])
    norms = group_norms(optimiser)
    assert {name: float(value) for name, value in norms.items()} == {"new": 5.0, "tuned": 12.0, "frozen": 0.0}
    assert float(total_norm(norms)) == 13.0
    vectors[1].grad = torch.tensor([float("nan"), 0.0])
    assert not torch.isfinite(total_norm(group_norms(optimiser)))


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_clip__is_what_pytorch_makes_of_it_to_the_bit(largest: float) -> None:
    gradients = [torch.randn(3, 4), torch.randn(5)]
    ours, theirs = ([nn.Parameter(torch.zeros_like(each)) for each in gradients] for _ in range(2))
    for parameters in (ours, theirs):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
    optimiser = torch.optim.SGD([{"params": [each], "name": str(number)} for number, each in enumerate(ours)], lr=1.0)
    clip(optimiser, total_norm(group_norms(optimiser)), largest)
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=0)


def test_fp16__scales_the_loss_and_not_the_step(settings: BootstrapConfig) -> None:
    steps = {precision: step_of(parts_of(settings.with_(precision=precision))) for precision in ("fp32", "fp16")}
    figures = {precision: step(batch_of(), rate=1.0, samples=0) for precision, step in steps.items()}
    assert steps["fp16"].scaler.get_scale() == 2**16
    assert not steps["fp32"].scaler.is_enabled()
    assert figures["fp16"].outcome == "made"
    assert float(figures["fp16"].norm) == pytest.approx(float(figures["fp32"].norm), rel=0.05)
    assert float(figures["fp16"].loss) == pytest.approx(float(figures["fp32"].loss), abs=0.01)


def test_fp16__overflows_lower_the_scale_down_to_one(settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(settings.with_(precision="fp16"))
    step = step_of(parts)
    before = {name: value.clone() for name, value in parts.inheritance.student.state_dict().items()}
    original = step_module.alignment_loss
    monkeypatch.setattr(step_module, "alignment_loss", lambda *given, **named: original(*given, **named) * 1e38)
    outcomes = [step(batch_of(), rate=1.0, samples=0).outcome for _ in range(18)]
    assert outcomes == ["overflow"] * 16 + ["non_finite"] * 2
    assert step.scaler.get_scale() == 0.25
    assert all(torch.equal(value, before[name]) for name, value in parts.inheritance.student.state_dict().items())
    resumed = gradient_scaler("fp16", CPU)
    resumed.load_state_dict(step.scaler.state_dict())
    assert resumed.get_scale() == 0.25


def test_fp16__a_whole_run(settings: BootstrapConfig, tmp_path: Path) -> None:
    summary = bootstrap(settings.with_(precision="fp16", log_every=1, samples=8, lr=1e-5), tmp_path / "run")
    assert (summary.non_finite_steps, entries(tmp_path / "run", "train")[-1]["overflow_steps"]) == (0, 0)
    measured = [line["cosine_mean"] for line in entries(tmp_path / "run", "held_out")]
    assert measured[-1] > measured[0] > 0.5


def test_gradient_checkpointing__gives_the_same_step_and_keeps_less(settings: BootstrapConfig) -> None:
    kept: dict[bool, int] = {}
    weights: dict[bool, dict[str, torch.Tensor]] = {}
    for on in (False, True):
        step = step_of(parts := parts_of(settings.with_(gradient_checkpointing=on)))
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = step._loss(batch_of(), step.objective, None)
        kept[on] = sum(sizes.values())
        assert torch.isfinite(loss)
        step(batch_of(), rate=1.0, samples=0)
        weights[on] = parts.inheritance.student.state_dict()
    assert kept[True] < 0.6 * kept[False]
    assert weights[True].keys() == weights[False].keys()
    assert all(torch.equal(value, weights[False][name]) for name, value in weights[True].items())


class _Adds(nn.Module):
    def forward(self, images: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        return images + (tokens or 0)


def test_compiled_for_batches__runs_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compile_(network: nn.Module, *, dynamic: bool) -> object:
        assert not dynamic
        return lambda images, *given: (calls.append(len(images)), network(images, *given))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    network = CompiledForBatches(_Adds(), 4)
    assert float(network(torch.zeros(4, 1), 2).sum()) == 8
    assert float(network(torch.zeros(3, 1), 2).sum()) == 6
    assert calls == [4]


def test_compile__is_for_the_teacher_and_the_student(settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compile_(network: nn.Module, **_named: object) -> object:
        return lambda *given: (calls.append(type(network).__name__), network(*given))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    step_of(parts_of(settings.with_(compile=True)))(batch_of(), rate=1.0, samples=0)
    assert calls == ["TimmTeacher", "SparseFormer"]


def test_compile__failures_are_told(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_given: object, **_named: object) -> object:
        raise RuntimeError("no C++ compiler")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **named: original(network, backend=no_compiler, **named))
    with refused(ConfigError, "cannot be compiled on this machine (BackendCompilerFailed)", "Leave out --compile."):
        bootstrap(settings.with_(compile=True), tmp_path / "run")
    with pytest.raises(KeyError), compile_errors():
        raise KeyError("something else")


@pytest.mark.slow
def test_compile__learns_as_without(settings: BootstrapConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the machine code, which takes minutes to make: both graphs whole, forward and backward."""
    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, **named: original(network, backend="aot_eager", fullgraph=True, **named)
    )
    settings = settings.with_(gradient_checkpointing=True, elastic=(4,))
    losses: dict[bool, list[float]] = {}
    for on in (False, True):
        step = step_of(parts_of(settings.with_(compile=on)))
        batches = [batch_of(), batch_of(), batch_of(3), batch_of()]
        losses[on] = [float(step(batch, rate=1.0, samples=4 * n).loss) for n, batch in enumerate(batches)]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)
