"""Values as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparseformers.files import printable

LONGEST = 400
"""Letters of a name or value; of a longer one the middle is left out."""


def cut(text: str, longest: int = LONGEST) -> str:
    """Text of at most that many letters; of a longer one the middle is left out."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def value_text(value: Any) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return cut(", ".join(value_text(item) for item in value)) or "-"
    return cut(printable(str(value)))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as pairs of a name with dots and a plain value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def fixed(value: float | None, digits: int) -> str:
    """A number with so many digits after the point, thousands parted by commas; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.{digits}f}" if math.isfinite(value) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def common_start(names: Sequence[str]) -> str:
    """The folders that all names begin with, with the slash at their end."""
    if not names:
        return ""
    first, last = min(names), max(names)
    same = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[: first.rfind("/", 0, same) + 1]
