"""The device of this process, whether it is one of several (torchrun, accelerate launch), and what these agree on."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

LONGEST_WAIT = timedelta(minutes=30)
"""How long processes wait for one that is alive but does not come; those that end are noticed at once."""

Choice = TypeVar("Choice")


def process_state() -> PartialState:
    """Accelerate's state of this process; joins the others where there are any."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) and not torch.distributed.is_initialized():
        _join_again()
    # Without being told, accelerate does not join processes of a machine without an accelerator.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)


def _join_again() -> None:
    """Joins processes that a launcher has started again: what they left in its store before would have them wait for nothing."""
    accelerator = torch.accelerator.current_accelerator()
    backend = torch.distributed.get_default_backend_for_device(accelerator or torch.device("cpu"))
    store, rank, processes = next(torch.distributed.rendezvous("env://", timeout=LONGEST_WAIT))
    attempt = torch.distributed.PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    torch.distributed.init_process_group(backend, store=attempt, rank=rank, world_size=processes, timeout=LONGEST_WAIT)


def make_accelerator() -> Accelerator:
    """Accelerate's handle on devices and processes; precision is ours, so it is told of none."""
    process_state()
    wrapper = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=[wrapper])


def process_number() -> int:
    """Which of the processes of a launcher this is, from 0; known before they are joined."""
    return int(os.environ.get("RANK", "0"))


def leave_processes() -> None:
    """Takes leave of the other processes, where there are any, when all is done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def summed(value: float, accelerator: Accelerator) -> float:
    """The sum of all processes' values."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device), "sum"))


def chosen_by_first(choose: Callable[[], Choice], accelerator: Accelerator) -> Choice:
    """What the main process chooses, for all: measured by each of them, a choice could differ."""
    choices = [choose() if accelerator.is_main_process else None]
    broadcast_object_list(choices)
    return choices[0]  # type: ignore[return-value]  # the main process has put it there
