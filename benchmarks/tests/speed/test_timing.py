"""Turns, with a clock that only passes tell what time it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparseformers.evaluation.profile import FEWEST_TURNS, interleave, median_ratio


class Clock:
    """Stands still unless a pass or a pause takes its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.passes: list[str] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """A pass that takes the given times in turn, and the last one from then on."""
        left = list(seconds)

        def run() -> None:
            self.passes.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_interleave__takes_turns_and_counts_neither_warm_up_nor_pauses() -> None:
    clock = Clock()
    passes = {"a": clock.takes("a", 9, 9, 1, 2, 3), "b": clock.takes("b", 9, 9, 4)}
    taken = interleave(passes, turns=3, seconds=1000, warm_up=2, clock=clock, pause=clock.pause)
    assert clock.passes == ["a", "b"] * 5
    assert taken["a"] == pytest.approx((1, 2, 3))
    assert taken["b"] == pytest.approx((4, 4, 4))


def test_interleave__ends_when_its_time_is_over_but_not_before_the_fewest_turns() -> None:
    clock = Clock()
    told: list[None] = []
    slow = {"a": clock.takes("a", 10.0)}
    taken = interleave(
        slow, turns=50, seconds=45, warm_up=0, clock=clock, pause=lambda _: None, on_turn=lambda: told.append(None)
    )
    assert len(taken["a"]) == len(told) == 5  # the fifth begins after 40 seconds, a sixth would after 50
    assert len(interleave(slow, turns=50, seconds=1, clock=clock, pause=lambda _: None)["a"]) == FEWEST_TURNS
    assert len(interleave(slow, turns=2, seconds=1, clock=clock, pause=lambda _: None)["a"]) == 2


def test_median_ratio__is_of_each_turn() -> None:
    # The machine is ten times as slow in the last turn, for both.
    assert median_ratio((2.0, 4.0, 30.0), (1.0, 1.0, 10.0)) == 3.0


def test_median_ratio__refuses_unlike_numbers_of_turns() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        median_ratio((1.0, 2.0), (1.0,))
