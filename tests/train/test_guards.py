import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseformers
from sparseformers.errors import NonFiniteLossError
from sparseformers.processes import make_accelerator
from sparseformers.train import BootstrapConfig, bootstrap
from sparseformers.train.objective import alignment_loss
from sparseformers.train.step import NonFiniteSteps, StepFigures, TrainingStep
from tests.train.runs import at_each_step, entries


@pytest.fixture
def settings(shared_settings: BootstrapConfig) -> BootstrapConfig:
    return shared_settings.with_(log_every=1, warm_up=0.0)


def spoil(monkeypatch: pytest.MonkeyPatch, steps: Iterable[int], how: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Spoils the loss of the steps of these numbers."""
    numbers = iter(range(1000))
    spoilt = set(steps)

    def loss(*given: object, **named: object) -> torch.Tensor:
        value = alignment_loss(*given, **named)  # type: ignore[arg-type]
        return how(value) if next(numbers) in spoilt else value

    monkeypatch.setattr(sys.modules[TrainingStep.__module__], "alignment_loss", loss)


def not_a_number(loss: torch.Tensor) -> torch.Tensor:
    return loss * float("nan")


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(_context: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * float("inf")


def everything(step: TrainingStep) -> dict[str, torch.Tensor]:
    """Weights and the optimiser's moments."""
    found = {f"weight.{name}": value for name, value in step.parts.inheritance.student.state_dict().items()}
    for number, state in step.optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize("how", [not_a_number, _InfiniteGradient.apply], ids=["loss", "gradient"])
def test_bad_step__is_skipped(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    spoil(monkeypatch, {2, 4}, how)
    states: list[tuple[StepFigures, dict[str, torch.Tensor]]] = []

    def record(step: TrainingStep, figures: StepFigures) -> None:
        states.append((figures, everything(step)))
        assert all(parameter.grad is None for parameter in step.model.parameters())

    at_each_step(monkeypatch, after=record)
    summary = bootstrap(settings, tmp_path / "run")
    assert [figures.outcome for figures, _ in states] == ["made", "made", "non_finite", "made", "non_finite", "made"]
    for number in range(1, 6):
        before, after = states[number - 1][1], states[number][1]
        same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        assert same == (number in {2, 4})
    assert summary.non_finite_steps == 2
    lines = entries(tmp_path / "run", "train")
    assert [(line["samples"], line["non_finite_steps"], line["overflow_steps"]) for line in lines] == [
        *((4, 0, 0), (8, 0, 0), (16, 1, 0), (24, 2, 0)),
    ]
    assert "the step was skipped" in (tmp_path / "run" / "train.log").read_text()


def test_three_in_a_row__stop_the_run(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    at_each_step(
        monkeypatch, lambda step, batch, _samples: seen.append([step.parts.train.name(int(index)) for index in batch.indices])
    )
    spoil(monkeypatch, {0, 1, 3, 4, 5}, not_a_number)
    with pytest.raises(NonFiniteLossError) as caught:
        bootstrap(settings, tmp_path / "run")
    assert "not a finite number 3 steps in a row, after 20 images" in caught.value.problem
    named = tmp_path / "run" / "non_finite_batches.txt"
    assert str(named) in caught.value.remedy
    assert "--precision fp32" in caught.value.remedy
    assert named.read_text().splitlines() == [file for files in seen[3:6] for file in files]
    assert all(Path(name).is_file() for name in named.read_text().splitlines())
    assert "NonFiniteLossError" in (tmp_path / "run" / "train.log").read_text()
    assert all(value.isfinite().all() for value in sparseformers.load(tmp_path / "run").state_dict().values())


def test_non_finite_steps__a_row_goes_on_after_resuming(tmp_path: Path) -> None:
    accelerator = make_accelerator()
    first, resumed = (NonFiniteSteps(tmp_path / "files.txt", accelerator) for _ in range(2))
    first.skipped(["a"], samples=0)
    first.skipped(["b"], samples=4)
    resumed.load_state_dict(first.state_dict())
    with pytest.raises(NonFiniteLossError):
        resumed.skipped(["c", "d"], samples=8)
    assert (tmp_path / "files.txt").read_text().split() == ["a", "b", "c", "d"]
