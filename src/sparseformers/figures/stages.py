"""Stages of the RoIs: which of them to draw, and what to call them."""

from __future__ import annotations

from collections.abc import Sequence

from sparseformers.errors import ConfigError

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def choose_stages(count: int, stages: Sequence[int] | None = None) -> list[int]:
    """Which of ``count`` stages to draw, each once: those asked for, or the first, third and last.

    Raises:
        ConfigError: for a stage that there is not.
    """
    wanted = [0, min(2, count - 1), count - 1] if stages is None else list(stages)
    for stage in wanted:
        if not -count <= stage < count:
            raise ConfigError(
                f"There is no stage {stage}: the student has {count}.",
                f"Choose from 0 (the start) to {count - 1} (the last); -1 is the last, too.",
            )
    return list(dict.fromkeys(stage % count for stage in wanted))


def stage_name(stage: int, count: int) -> str:
    """``first stage``, ``last stage``, ``stage 12`` ...; the start is the first, and ``the only stage`` where nothing moves."""
    if count == 1:
        return "the only stage"
    if stage == count - 1:
        return "last stage"
    return f"{ORDINALS[stage]} stage" if stage < len(ORDINALS) else f"stage {stage + 1}"


def iteration_name(stage: int) -> str:
    """``Start`` for the RoIs before any adjustment, then ``Iteration 1`` ..."""
    return f"Iteration {stage}" if stage else "Start"
