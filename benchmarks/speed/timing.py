"""Time, taken in turns: whatever else the machine does slows all of them alike, and ratios are taken turn by turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

FEWEST_TURNS = 3
"""Of which there is a median that is none of the extremes."""
PAUSE = 0.005
"""Seconds before each pass, in which waiting threads of the library that ran before fall asleep."""


def interleave(
    passes: Mapping[Key, Callable[[], object]],
    *,
    turns: int,
    seconds: float,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[float], None] = time.sleep,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[Key, tuple[float, ...]]:
    """Times passes in turn: A B C, A B C, ...

    Args:
        passes: one pass of each, which ends when its work is done.
        turns: how often, at the most.
        seconds: no turn begins after so many, once there are :data:`FEWEST_TURNS`.
        warm_up: turns before these, which are not counted.
        clock: gives seconds.
        pause: waits for so many seconds.
        on_turn: is told of the end of each turn that counts.

    Returns:
        Seconds of each pass, turn by turn; as many for each.
    """
    taken: dict[Key, list[float]] = {key: [] for key in passes}
    for _ in range(warm_up):
        for run in passes.values():
            run()
    begun = clock()
    for turn in range(turns):
        if turn >= FEWEST_TURNS and clock() - begun > seconds:
            break
        for key, run in passes.items():
            pause(PAUSE)
            start = clock()
            run()
            taken[key].append(clock() - start)
        on_turn()
    return {key: tuple(values) for key, values in taken.items()}


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median over the turns of how many times as long ``one`` took as ``other`` in the same turn."""
    return statistics.median(first / second for first, second in zip(one, other, strict=True))
