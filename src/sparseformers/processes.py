"""The device of this process, whether it is one of several (torchrun, accelerate launch), and what these agree on."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from sparseformers.errors import ConfigError

LONGEST_WAIT = timedelta(minutes=30)  # for a process that does not come; a launcher such as torchrun ends all when one has ended
PATIENCE = 10.0  # seconds after which a process that is waiting for others says so
ALONE = "env -u WORLD_SIZE -u RANK -u LOCAL_RANK sparseformers ..."
Choice = TypeVar("Choice")


def process_state() -> PartialState:
    """Accelerate's state of this process; joins the others where there are any.

    A process that reads images and imports a script without a main guard comes here as it starts, and ends; its parent says so.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)
    if is_restarted() and not torch.distributed.is_initialized():
        _join_again()
    # Without being told, accelerate does not join processes of a machine without an accelerator.
    with _patience():
        return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)


@contextmanager
def _patience() -> Iterator[None]:
    """Says what this process is waiting for, if the others do not come soon."""
    processes = os.environ.get("WORLD_SIZE", "1")
    address = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29500')}"
    told = f"waiting for the other processes: WORLD_SIZE is {processes}, so {processes} have to meet at {address}. "
    told += f"To run in one process alone: {ALONE}\n"
    timer = threading.Timer(PATIENCE, lambda: os.write(2, told.encode()))
    timer.daemon = True
    if processes != "1":
        timer.start()
    try:
        yield
    except ValueError as error:  # of accelerate, where one of the variables is missing
        problem = f"WORLD_SIZE is {processes}, but this is not one of several processes as a launcher starts them ({error})."
        raise ConfigError(problem, f"Start it with torchrun, or in one process alone: {ALONE}.") from None
    finally:
        timer.cancel()


def _join_again() -> None:
    """Joins processes that a launcher has started again: the addresses that they left in its store before lead nowhere."""
    # A PyTorch that was built for an accelerator names it on machines without one, too.
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    backend = torch.distributed.get_default_backend_for_device(accelerator or torch.device("cpu"))
    store, rank, processes = next(torch.distributed.rendezvous("env://", timeout=LONGEST_WAIT))
    attempt = torch.distributed.PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    torch.distributed.init_process_group(backend, store=attempt, rank=rank, world_size=processes, timeout=LONGEST_WAIT)


def make_accelerator() -> Accelerator:
    """Accelerate's handle on devices and processes; precision is ours, so it is told of none."""
    process_state()
    wrapper = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=[wrapper])


def launch() -> str | None:
    """The name of this process's launcher, the same after it has restarted the process; None without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    # A launcher that was given no name is known by its process, which is this one's parent.
    return f"{socket.gethostname()}/{os.getppid()}" if name == "none" else name


def is_restarted() -> bool:
    """Whether a launcher has started this process again after one of them has failed (torchrun --max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def agreed(value: float, accelerator: Accelerator) -> float:
    """The largest of all processes' values, so that all of them take the same decisions from it."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())


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
    """The choice of the main process, for all: measured by each of them, it could differ."""
    choices = [choose() if accelerator.is_main_process else None]
    broadcast_object_list(choices)
    return choices[0]  # type: ignore[return-value]  # the main process has put it there
