"""State dicts as plain JSON values and tensors by name, and copies of these that outlive the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

TENSOR = "$tensor"
TUPLE = "$tuple"
ITEMS = "$items"
"""Marks of what JSON has no form for; a mapping with keys that are no texts, or look like a mark, is a list of items."""


class Stateful(Protocol):
    """Whatever can say all that it has to go on from, as mappings, sequences, tensors, numbers and texts."""

    def state_dict(self) -> Mapping[str, Any]:
        """All of it."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes it over."""
        ...


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """A state as plain JSON values.

    Args:
        value: the state, or a part of it.
        tensors: takes its tensors, as they are, by their path in it.
        name: the path of the part.

    Raises:
        TypeError: for anything that is no mapping, list, tuple, tensor, number, text or None.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        packed = [(key, pack(item, tensors, f"{name}.{key}" if name else str(key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in packed):
            return dict(packed)
        return {ITEMS: [[key, item] for key, item in packed]}
    if isinstance(value, (list, tuple)):
        items = [pack(item, tensors, f"{name}.{place}") for place, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"'{name}' is a {type(value).__name__}, which a checkpoint cannot hold")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`pack` made ``value`` of; raises KeyError if a tensor of it is missing."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(unpack(item, tensors) for item in value[TUPLE])
    if ITEMS in value:
        return {key: unpack(item, tensors) for key, item in value[ITEMS]}
    return {key: unpack(item, tensors) for key, item in value.items()}


class HostMemory:
    """Copies of tensors in memory of the processor, which is taken once and used again for every checkpoint."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], Tensor] = {}

    def copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies of the tensors, contiguous; those of the call before are overwritten.

        Args:
            tensors: by file and name.
        """
        copies = {
            file: {name: self._filled((file, name), tensor) for name, tensor in named.items()} for file, named in tensors.items()
        }
        if any(tensor.device.type != "cpu" for named in tensors.values() for tensor in named.values()):
            torch.accelerator.synchronize()
        return copies

    def _filled(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        copy = self._copies.get(key)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            pinned = tensor.device.type == "cuda"  # which lets all copies go on at once
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            self._copies[key] = copy
        return copy.copy_(tensor, non_blocking=True)
