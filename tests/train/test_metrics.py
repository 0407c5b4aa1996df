from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from sparseformers.train.metrics import Meters, peak_memory

CPU = torch.device("cpu")


def slow(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_timed__passes_batches_on_and_counts_the_waiting() -> None:
    meters = Meters(CPU)
    passed = []
    for number in meters.timed(slow(4, 0.05)):
        passed.append(number)
        meters.step(torch.tensor(float(number)), torch.tensor(2.0), 8)
    figures = meters.read()
    assert passed == [0, 1, 2, 3]
    assert figures["loss"] == 1.5
    assert figures["gradient_norm"] == 2.0
    assert figures["data_wait"] > 0.9
    assert meters.data_wait() > 0.9


def test_timed__time_spent_on_a_batch_is_no_waiting() -> None:
    meters = Meters(CPU)
    for _ in meters.timed(range(3)):
        time.sleep(0.05)
        meters.step(torch.tensor(1.0), None, 1)
    assert meters.read()["data_wait"] < 0.1


def test_read__starts_over_but_keeps_the_total() -> None:
    meters = Meters(CPU)
    meters.step(torch.tensor(4.0), None, 8)
    meters.read()
    meters.step(torch.tensor(2.0), None, 8)
    assert meters.read()["loss"] == 2.0
    assert meters.images == 16
    assert not meters.due()


def test_peak_memory__is_that_of_a_process_with_torch() -> None:
    assert 2**26 < peak_memory(CPU) < 2**37


@pytest.mark.parametrize(("steps", "due"), [(0, False), (2, False), (3, True)])
def test_due__after_so_many_steps(steps: int, due: bool) -> None:
    meters = Meters(CPU, every=3)
    for _ in range(steps):
        meters.step(torch.tensor(1.0), None, 1)
    assert meters.due() == due


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
