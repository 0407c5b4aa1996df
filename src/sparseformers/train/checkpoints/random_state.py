"""The states of the global random generators of a process, as plain JSON values.

Nothing in a training draws from them: order and views come from seeds of their own. They are kept nonetheless, for a teacher
or a student that is given as a module may draw from them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of Python's generator, numpy's, torch's, and that of the device.

    Args:
        device: that the process trains on.
    """
    version, words, gauss = random.getstate()
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is what is asked for
    assert isinstance(numbers, dict)  # as the argument says
    state = {
        "python": [version, list(words), gauss],
        "numpy": {**numbers, "state": {**numbers["state"], "key": numbers["state"]["key"].tolist()}},
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
    }
    if device.type != "cpu":
        state["device"] = bytes(torch.get_device_module(device).get_rng_state(device).tolist()).hex()
    return state


@contextmanager
def random_state_of(state: Mapping[str, Any] | None, device: torch.device) -> Iterator[None]:
    """Within it the generators go on from ``state``; afterwards from where they were before.

    Args:
        state: of :func:`random_state`; None changes nothing.
        device: that the process trains on.
    """
    if state is None:
        yield
        return
    before = random_state(device)
    _restore(state, device)
    try:
        yield
    finally:
        _restore(before, device)


def _restore(state: Mapping[str, Any], device: torch.device) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numbers = state["numpy"]
    key = np.array(numbers["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numbers, "state": {**numbers["state"], "key": key}})  # noqa: NPY002  # as above
    torch.set_rng_state(_bytes(state["torch"]))
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(_bytes(state["device"]), device)


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()
