"""The forward stays fast: counts of operators, and what would make a GPU wait or compute with twice the digits. No times."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.exporting.students import FRONTS, student_of

SYNCHRONISES = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "_unique2", "equal", "item")
"""Operators whose result the host has to wait for."""
NO_KERNEL = ("view", "_unsafe_view", "_reshape_alias", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "slice")
NO_KERNEL += ("select", "split", "split_with_sizes", "chunk", "unbind", "detach", "alias", "as_strided", "empty", "unflatten")
"""Operators that look at the same memory in another way."""
BOUNDS = {"grid": 33, "mixed": 101, "focusing": 195, "original": 185}
"""Most kernels of a forward of the small students; a change that needs more has to say why."""
MOST_COPIES = {"grid": 1, "mixed": 4, "focusing": 4, "original": 4}
"""Of a forward in float32: where a layout has to change for a product, and before a stem, which pools channels side by side."""


class Recorder(TorchDispatchMode):
    """Notes every operator that is dispatched, and what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.dtypes: Counter[torch.dtype] = Counter()
        self.moves: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        name = function.overloadpacket.__name__
        self.operators[name] += 1
        given = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self.dtypes.update(value.dtype for value in given)
        taken = [value for value in tree_leaves((arguments, named)) if isinstance(value, Tensor)]
        if taken and any(value.device != taken[0].device for value in [*taken[1:], *given]):
            self.moves.append(name)
        return result

    @property
    def kernels(self) -> int:
        """Operators that compute or copy something."""
        return sum(count for name, count in self.operators.items() if name not in NO_KERNEL)


def recorded(model: torch.nn.Module, images: Tensor) -> Recorder:
    with torch.no_grad(), Recorder() as recorder:
        model(images)
    return recorder


@pytest.mark.parametrize("front", FRONTS)
def test_forward__needs_no_more_kernels_than_it_did__waits_for_nothing__computes_in_float32_on_one_device(front: str) -> None:
    model = student_of(FRONTS[front])
    few, many = (recorded(model, torch.rand(batch, 3, side, side)) for batch, side in ((2, 48), (5, 96)))
    assert few.kernels == many.kernels  # neither images nor pixels are gone through one by one
    assert many.kernels <= BOUNDS[front], many.operators.most_common()
    assert sum(many.operators[name] for name in ("clone", "copy_", "_to_copy", "contiguous", "_copy_from")) <= MOST_COPIES[front]
    assert [name for name in SYNCHRONISES if few.operators[name]] == []
    assert few.dtypes[torch.float64] == 0
    assert few.dtypes[torch.float32] > 0
    # On the meta device any value that is read, and any tensor that is made on the host by mistake, would raise or be noted.
    assert recorded(model.to("meta"), torch.rand(2, 3, 64, 48, device="meta")).moves == []


def test_forward__more_tokens_are_no_more_kernels() -> None:
    model = student_of(FRONTS["grid"])
    with torch.no_grad():
        counts = []
        for tokens in (4, 9):
            with Recorder() as recorder:
                model(torch.rand(1, 3, 48, 48), tokens)
            counts.append(recorder.kernels)
    assert abs(counts[1] - counts[0]) <= 1


def test_the_guard_sees_what_it_guards_against() -> None:
    class Slow(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            brightest = images.max().item()
            return images.double() / brightest

    recorder = recorded(Slow(), torch.rand(1, 3, 8, 8))
    assert recorder.operators["_local_scalar_dense"] == 1
    assert recorder.dtypes[torch.float64] == 2

    class Moving(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.to("meta")

    assert recorded(Moving(), torch.rand(1, 3, 8, 8)).moves == ["_to_copy"]
