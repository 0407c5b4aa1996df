"""Sharded weights: each process keeps a part of the student's weights, gradients and optimiser (PyTorch's FSDP2).

What is saved is whole, as without sharding, so a run can go on with any number of processes, sharded or not: :func:`gathered`
puts the parts together on the main process, :func:`load_student`, :func:`load_optimiser` and :func:`scattered` take them apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from sparseformers.model import SparseFormer
from sparseformers.train.setup import Parts


def shard(student: SparseFormer, accelerator: Accelerator) -> None:
    """Spreads a student over the processes, in place and before it gets an optimiser; a single process keeps all of it.

    Each transformer block of the cortex is put together for as long as it computes, frozen ones like
    the others. What is left (the focusing transformer, which comes back to its weights at each iteration, and the ends of the
    cortex) is so during the whole step.
    """
    if accelerator.num_processes == 1:
        student.to(accelerator.device)
        return
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in student.cortex.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(student, mesh=mesh)
    register_fsdp_forward_method(student, "focus")  # which needs its weights put together, too


def is_sharded(model: object) -> bool:
    """Whether the weights of a model are spread over several processes."""
    return isinstance(model, FSDPModule)


def local(value: Tensor) -> Tensor:
    """The part of a tensor that is in this process; a change of it is one of the tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def gathered(state: Any, *, keep: bool) -> Any:
    """A state dict with its sharded tensors put together in host memory; other tensors stay as they are.

    All processes have to call it, with the same state.

    Args:
        state: of a student, an optimiser or an average: tensors in dicts and lists.
        keep: whether this process wants it; others get the same state with None in the place of each tensor.
    """
    if isinstance(state, Mapping):
        return {name: gathered(value, keep=keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gathered(value, keep=keep) for value in state)
    if not isinstance(state, Tensor):
        return state
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.detach().cpu() if keep else None
    return state if keep else None


def scattered(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, each sharded as the one of its name in ``like`` is; raises KeyError if one is missing."""
    return {name: _scattered(state[name], pattern) for name, pattern in like.items()}


def _scattered(whole: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    # Every process has read the whole tensor and takes its part of it, so nothing has to be sent.
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_student(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``student.load_state_dict`` of a whole state, in every process.

    Raises:
        RuntimeError: if the state is of another network.
    """
    like = student.state_dict()
    if is_sharded(student) and like.keys() == state.keys():
        state = scattered(state, like)
    student.load_state_dict(state)


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """``optimiser.load_state_dict`` of a whole state, in every process."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, parameters, strict=True))
    moments = {
        number: {
            name: _scattered(value, of[number]) if isinstance(value, Tensor) and value.shape == of[number].shape else value
            for name, value in entries.items()
        }
        for number, entries in state["state"].items()
    }
    optimiser.load_state_dict({**state, "state": moments})


def unsharded(parts: Parts) -> Parts:
    """The parts of a training with a whole student, for what is made of it after the training; all processes have to call it."""
    student = parts.inheritance.student
    if not is_sharded(student):
        return parts
    state = gathered(student.state_dict(), keep=True)
    whole = SparseFormer(student.config)
    whole.load_state_dict(state)
    for (_, parameter), (_, trained) in zip(whole.named_parameters(), student.named_parameters(), strict=True):
        parameter.requires_grad_(trained.requires_grad)
    return dataclasses.replace(parts, inheritance=parts.inheritance._replace(student=whole.to(parts.device)))
