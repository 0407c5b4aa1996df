"""Meters, and the lines of metrics.jsonl: what they tell, and that they repeat but for times."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseformers.train import BootstrapConfig, RunFolder, bootstrap
from sparseformers.train.callbacks.metrics import Meters, peak_memory
from tests.train import ranks
from tests.train.ranks_work import command
from tests.train.runs import TIMES, command_line, focusing, without_times

CPU = torch.device("cpu")


def test_waited__is_a_share_of_the_time() -> None:
    meters = Meters(CPU)
    for number in range(4):
        time.sleep(0.05)
        meters.waited(0.05)
        meters.step(torch.tensor(float(number)), torch.tensor(2.0), 8)
    figures = meters.read()
    assert figures["loss"] == 1.5
    assert figures["gradient_norm"] == 2.0
    assert figures["data_wait"] > 0.9


def test_read__starts_over_but_keeps_the_total_and_is_due_after_so_many_steps() -> None:
    meters, read = Meters(CPU, every=2), []
    for loss in (4.0, 8.0, 2.0, 6.0):
        meters.step(torch.tensor(loss), None, 8)
        if meters.due():
            read.append(meters.read()["loss"])
    assert (read, meters.images) == ([6.0, 4.0], 32)


def test_peak_memory__is_that_of_a_process_with_torch() -> None:
    assert 2**26 < peak_memory(CPU) < 2**37


def test_load_state_dict__goes_on_summing() -> None:
    whole, stopped, resumed = (Meters(CPU, every=3) for _ in range(3))
    losses = torch.rand(3, generator=torch.Generator().manual_seed(0))
    for number, loss in enumerate(losses):
        whole.step(loss, 2 * loss, 8)
        if number == 2:
            resumed.load_state_dict(stopped.state_dict())
        (stopped if number < 2 else resumed).step(loss, 2 * loss, 8)
    assert resumed.due()
    figures = [meters.read() for meters in (whole, resumed)]
    assert [(each["loss"], each["gradient_norm"]) for each in figures] == [(figures[0]["loss"], figures[0]["gradient_norm"])] * 2


def test_metrics__tell_all_that_is_asked_for_and_repeat_but_for_times(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    settings = focusing(shared_settings).with_(lr=1e-4, log_every=2, samples=16)
    for name in ("one", "two"):
        bootstrap(settings, tmp_path / name)
    lines = RunFolder(tmp_path / "one").read_metrics()
    assert without_times(tmp_path / "one") == without_times(tmp_path / "two")
    train = {name for line in lines if line["kind"] == "train" for name in line}
    assert train >= TIMES | {"loss", "gradient_norm", "gradient_norm_tuned", "gradient_norm_new", "lr_tuned", "lr_new"}
    assert train >= {"non_finite_steps", "overflow_steps"}
    held_out = [line for line in lines if line["kind"] == "held_out"]
    assert {"cosine_mean", "cosine_p05", "centred_cosine"} <= held_out[0].keys()
    assert {"roi_movement", "roi_step", "roi_size", "roi_size_change", "roi_coverage"} <= held_out[0].keys()
    assert held_out[0]["roi_coverage"] > 0
    assert held_out[-1]["roi_movement"] > 0


@pytest.mark.slow
def test_metrics__a_loss_that_is_not_finite_in_one_process_is_skipped_in_all(tmp_path: Path) -> None:
    arguments = command_line(tmp_path, "--batch-size", "4", "--samples", "24", "--evaluations", "1", "--workers", "0")
    arguments += ["--log-every", "1", "--trackers", "none", "--out"]
    group = ranks.start(2, spoiled, (*arguments, str(tmp_path / "run")), 8, 12, output=tmp_path / "one")
    assert group.join() == [0, 0], group.said(0)
    lines = [line for line in RunFolder(tmp_path / "run").read_metrics() if line["kind"] == "train"]
    assert [(line["samples"], line["non_finite_steps"]) for line in lines] == [(4, 0), (8, 0), (20, 2), (24, 2)]
    group = ranks.start(2, spoiled, (*arguments, str(tmp_path / "stopped")), 8, 12, 16, output=tmp_path / "three")
    assert 2 in group.join()
    assert "not a finite number 3 steps in a row" in " ".join(group.said(0).split())
    assert len((tmp_path / "stopped" / "non_finite_batches.txt").read_text().splitlines()) == 12  # of both processes


def spoiled(arguments: tuple[str, ...], *samples: int) -> int:
    """The command line in a process, the second of which has a loss that is not a number at some places of the run."""
    import os

    from sparseformers.train.step import TrainingStep

    original, place = TrainingStep._loss, TrainingStep._tokens
    now: list[int] = []

    def noted(step: TrainingStep, seen: int) -> int | None:
        now[:] = [seen]
        return place(step, seen)

    def loss(step: TrainingStep, *given: Any) -> Any:
        value = original(step, *given)
        return value * float("nan") if os.environ["RANK"] == "1" and now[0] in samples else value

    TrainingStep._tokens, TrainingStep._loss = noted, loss  # type: ignore[method-assign]
    return command(arguments)
