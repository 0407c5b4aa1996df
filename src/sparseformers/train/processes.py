"""A training in several processes: they stop together when one is asked to, and may share one student's weights between them."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from sparseformers.model import SparseFormer
from sparseformers.train.setup import Parts

NOTICE = "\nfinishing the step and saving; Ctrl-C once more stops at once\n"


class StopSignals:
    """Notes SIGTERM and Ctrl-C as long as the context lasts, in the main thread; elsewhere it notes nothing.

    A second Ctrl-C raises KeyboardInterrupt, as it does without this; that the first was heard is said on standard error if it
    ``speaks``.
    """

    def __init__(self, *, speaks: bool) -> None:
        self.speaks, self.asked = speaks, 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked and self.speaks:
            os.write(2, NOTICE.encode())  # print may not be called while it is going on
        self.asked = self.asked or number


def shard(student: SparseFormer, accelerator: Accelerator) -> None:
    """Spreads a student over the processes, in place and before it gets an optimiser; a single process keeps all of it.

    Each process keeps a part of weights, gradients and optimiser (PyTorch's FSDP2). Each transformer block of the cortex is
    put together for as long as it computes, frozen ones like the others; what is left is so during the whole step.
    """
    if accelerator.num_processes == 1:
        student.to(accelerator.device)
        return
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in student.cortex.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(student, mesh=mesh)
    register_fsdp_forward_method(student, "run_front")  # which needs its weights put together, too


def is_sharded(model: object) -> bool:
    """Whether the weights of a model are spread over several processes."""
    return isinstance(model, FSDPModule)


def weights_of(student: nn.Module) -> dict[str, Any]:
    """A student's whole state dict, asked for by all processes; of a sharded one the main process alone has it, on its host."""
    return states.get_model_state_dict(student, options=_whole(student))


def moments_of(student: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole state of an optimiser, its parameters by name; otherwise as :func:`weights_of`."""
    if not optimiser.state:  # PyTorch would make a step to fill it
        return {"state": {}, "param_groups": []}
    return states.get_optimizer_state_dict(student, optimiser, options=_whole(student))


def load_weights(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a student the whole state of :func:`weights_of`, in all processes; RuntimeError if it is another network's."""
    states.set_model_state_dict(student, dict(state), options=_whole(student))


def load_moments(student: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Gives an optimiser the whole state of :func:`moments_of`; all processes have to give the same."""
    if state["state"]:
        states.set_optimizer_state_dict(student, optimiser, dict(state), options=_whole(student))


def unsharded(parts: Parts) -> Parts:
    """The parts of a training with a whole student, in the main process; all processes have to call it."""
    student = parts.inheritance.student
    if not is_sharded(student):
        return parts
    state, whole = weights_of(student), SparseFormer(student.config)
    if state:
        whole.load_state_dict(state)
    for (_, parameter), (_, trained) in zip(whole.named_parameters(), student.named_parameters(), strict=True):
        parameter.requires_grad_(trained.requires_grad)
    return dataclasses.replace(parts, inheritance=parts.inheritance._replace(student=whole.to(parts.device)))


def _whole(student: nn.Module) -> states.StateDictOptions:
    """Puts a sharded student's tensors together on the main process, and leaves those of a whole one as they are."""
    sharded = is_sharded(student)
    return states.StateDictOptions(full_state_dict=sharded, cpu_offload=sharded)
