"""One form for the weights of a transformer block, whichever of its equals a host library keeps.

Each step leaves the function as it is: separate projections are joined, a bias that is not there is zero and a layer scale one,
and the channels of rotary queries and keys are put in the order of :mod:`sparseformers.model.positions`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

GATED = (("mlp.fc1_g", "mlp.fc1_x"), ("mlp.gate_proj", "mlp.up_proj"))  # gate and value that our mlp.fc1 joins
PROJECTIONS = {"q": "queries", "k": "keys", "v": "values"}


def renamed(state: Mapping[str, Tensor], beginnings: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights with other beginnings of their names, put in one after the other; a name without counterpart stays."""
    found = dict(state)
    for theirs, ours in beginnings.items():
        found = {ours + name.removeprefix(theirs) if name.startswith(theirs) else name: each for name, each in found.items()}
    return found


def canonical_block(state: Mapping[str, Tensor], *, heads: int, interleaved: bool = False) -> dict[str, Tensor]:
    """The weights of a block under the names of :class:`~sparseformers.model.block.TransformerBlock`.

    ``state`` has these names, but for projections that are apart (``attn.q_proj``, ``attn.q_bias``, ``mlp.fc1_g``) and layer
    scales ``gamma_1`` and ``gamma_2``; a name without counterpart stays, to be refused. ``interleaved`` tells whether rotary
    positions turn neighbouring channels, and not those of the two halves of a head.
    """
    found = {name: value.detach() for name, value in state.items()}
    _join_attention(found, heads)
    for pair in GATED:
        for kind in ("weight", "bias"):
            if all(f"{part}.{kind}" in found for part in pair):
                found[f"mlp.fc1.{kind}"] = torch.cat([found.pop(f"{part}.{kind}") for part in pair])
    scales = {f"ls{half}.gamma": found.pop(f"gamma_{half}", None) for half in (1, 2)}
    if there := [scale for scale in scales.values() if scale is not None]:
        found |= {name: torch.ones_like(there[0]) if scale is None else scale for name, scale in scales.items()}
    return _halves_apart(found, heads) if interleaved else found


def liberties(state: Mapping[str, Tensor], *, heads: int, interleaved: bool = False) -> tuple[str, ...]:
    """What :func:`canonical_block` does to the weights beyond renaming and joining, as sentences."""
    notes = []
    biased = {part for part in PROJECTIONS if f"attn.{part}_bias" in state or f"attn.{part}_proj.bias" in state}
    if biased and len(biased) < len(PROJECTIONS):
        missing = " and ".join(word for part, word in PROJECTIONS.items() if part not in biased)
        notes.append(f"The teacher has no bias on {missing}: zeros stand for it, and may learn.")
    query, key = state.get("attn.q_proj.weight"), state.get("attn.k_proj.weight")
    if query is not None and key is not None and len(key) < len(query):
        groups = heads * len(key) // len(query)
        notes.append(f"The teacher shares {groups} keys and values among {heads} heads; each head gets its own.")
    if ("gamma_1" in state) != ("gamma_2" in state):
        notes.append("The teacher scales one branch of each block; the other gets a scale of one.")
    if interleaved:
        notes.append("The channels of rotary queries and keys were put in another order.")
    return tuple(notes)


def _join_attention(state: dict[str, Tensor], heads: int) -> None:
    """Queries, keys and values from one layer, in place; groups of heads that share keys and values get copies."""
    if all(f"attn.{part}_proj.weight" in state for part in PROJECTIONS):
        weights = [state.pop(f"attn.{part}_proj.weight") for part in PROJECTIONS]
        state["attn.qkv.weight"] = torch.cat([_for_each_head(weight, len(weights[0]), heads) for weight in weights])
    biases = [state.pop(f"attn.{part}_proj.bias", state.pop(f"attn.{part}_bias", None)) for part in PROJECTIONS]
    if any(bias is not None for bias in biases):
        joined, width = state["attn.qkv.weight"], len(state["attn.qkv.weight"]) // 3
        parts = [joined.new_zeros(width) if bias is None else _for_each_head(bias, width, heads) for bias in biases]
        state["attn.qkv.bias"] = torch.cat(parts)


def _for_each_head(value: Tensor, width: int, heads: int) -> Tensor:
    """Rows for groups of heads -> as many rows as ``width``, those of a group again for each of its heads."""
    repeats = width // len(value)
    if repeats == 1:
        return value
    return value.unflatten(0, (heads // repeats, -1)).repeat_interleave(repeats, dim=0).flatten(0, 1)


def _halves_apart(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Queries and keys with the even channels of each head first, then the odd ones, and norms of them alike."""
    for name in ("attn.qkv.weight", "attn.qkv.bias"):
        if name in state:
            query, key, value = state[name].unflatten(0, (3, heads, -1)).unbind(0)  # heads x C x ... each
            state[name] = torch.cat([_even_first(query).flatten(0, 1), _even_first(key).flatten(0, 1), value.flatten(0, 1)])
    for name in ("attn.q_norm.weight", "attn.q_norm.bias", "attn.k_norm.weight", "attn.k_norm.bias"):
        if name in state:
            state[name] = _even_first(state[name][None])[0]
    return state


def _even_first(channels: Tensor) -> Tensor:
    """heads x C x ... -> the same with even channels before odd ones."""
    return torch.cat([channels[:, 0::2], channels[:, 1::2]], dim=1)
