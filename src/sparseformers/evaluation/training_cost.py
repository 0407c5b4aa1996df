"""What a training step costs: multiply-adds of the teacher, and of the student forward and backward, as autograd does them.

A layer that learns costs twice its forward pass on the way back (a gradient for its input, one for its weight), a frozen one
once (the gradient passes through it), and what stands before all that learns costs nothing. The two products inside attention
have no weights: both their factors need gradients wherever a gradient passes. None of this is assumed, it comes out of
counting a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparseformers.evaluation.cost import multiply_adds


@dataclass(frozen=True)
class TrainingCost:
    """Multiply-adds of matrix products for one image of a training, see :func:`~sparseformers.evaluation.multiply_adds`."""

    teacher_forward: int
    """The teacher's embedding; 0 where it was computed before."""
    student_forward: int
    """The student's embedding."""
    student_backward: int
    """The gradients of what learns."""

    @property
    def total(self) -> int:
        """Of all three."""
        return self.teacher_forward + self.student_forward + self.student_backward


def training_multiply_adds(
    module: nn.Module, *inputs: Any, result: Callable[[Any], Tensor] = lambda output: output
) -> tuple[int, int]:
    """Multiply-adds of a forward pass and of the backward pass that follows, with the parameters frozen that are.

    Only shapes are computed (on PyTorch's meta device). Where nothing learns, the backward pass costs nothing.

    Args:
        module: unchanged by it; ``requires_grad`` of its parameters says what learns.
        inputs: its positional arguments; a batch of one for the cost of one image.
        result: takes from what it returns the tensor that the loss is made of.

    Returns:
        Of the forward pass, and of the backward pass.
    """
    network = _WithBackward(module, result)
    state = {name: _shape_of(value) for name, value in [*network.named_parameters(), *network.named_buffers()]}
    given = tuple(_shape_of(value) if isinstance(value, Tensor) else value for value in inputs)
    # As for a forward pass: the fused kernels are unknown to the counter on some devices.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward = functional_call(network, state, (counter, *given))
    return forward, _counted(counter) - forward


def measure_training_cost(
    student: nn.Module,
    teacher: nn.Module | None,
    size: tuple[int, int],
    *,
    tokens: Sequence[int | None] = (None,),
) -> TrainingCost:
    """Multiply-adds for one image of a training.

    Args:
        student: a SparseFormer with ``requires_grad`` set by inheritance.
        teacher: its teacher; None where its embeddings were computed before.
        size: height and width of the image in pixels.
        tokens: numbers of tokens that steps take in turn, None for the student's own; the mean over them counts.
    """
    image = torch.empty(1, 3, *size, device="meta")
    passes = [training_multiply_adds(student, image, number, result=lambda output: output.embedding) for number in tokens]
    return TrainingCost(
        teacher_forward=0 if teacher is None else multiply_adds(teacher, image),
        student_forward=round(sum(forward for forward, _ in passes) / len(passes)),
        student_backward=round(sum(backward for _, backward in passes) / len(passes)),
    )


class _WithBackward(nn.Module):
    """A network whose backward pass belongs to its forward one, so that both see the same parameters.

    Args:
        network: to run.
        result: takes the tensor that the loss is made of from what it returns.
    """

    def __init__(self, network: nn.Module, result: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.result = result

    def forward(self, counter: FlopCounterMode, *inputs: Any) -> int:
        """Runs both, and returns what ``counter`` has counted in between."""
        value = self.result(self.network(*inputs))
        forward = _counted(counter)
        if value.requires_grad:
            value.sum().backward()
        return forward


def _counted(counter: FlopCounterMode) -> int:
    counts: Mapping[Any, int] = counter.get_flop_counts().get("Global", {})
    return int(sum(counts.values())) // 2


def _shape_of(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta", requires_grad=value.requires_grad)
