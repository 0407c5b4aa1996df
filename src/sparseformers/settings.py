"""Frozen dataclasses to and from plain dictionaries (JSON), strictly: an unknown key is an error that names its neighbour."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sparseformers.errors import ConfigError, suggest

Settings = TypeVar("Settings")


class _UnfitError(TypeError):
    """Values that do not fit their types; the message is one fault, or several."""

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(sorted(faults)))
        self.faults = faults


def to_dict(settings: Any) -> dict[str, Any]:
    """The dataclass ``settings`` as a dictionary of plain JSON values, nested dataclasses included."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(kind: type[Settings], values: Any, *, where: str = "configuration") -> Settings:
    """Builds the dataclass ``kind`` from ``values``.

    Args:
        kind: a dataclass; its ``__post_init__`` checks ranges.
        values: a mapping from field names to JSON values; nested dataclasses as nested mappings.
        where: what the values are, for messages.

    Raises:
        ConfigError: all unknown keys, missing keys and values of a wrong type, nested ones too, in one message; if there
            are none, the first value that is out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"The {where} is not a mapping of names to values.", "Give a JSON object.")
    try:
        return _build(kind, values, prefix="")
    except _UnfitError as unfit:
        known = ", ".join(field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
        problem = f"The {where} does not fit: {unfit}"
        raise ConfigError(problem if problem.endswith("?") else f"{problem}.", f"Known keys are: {known}.") from None


def _build(kind: type[Settings], values: Mapping[str, Any], *, prefix: str) -> Settings:
    """The dataclass from ``values``; raises _UnfitError with the faults of all levels, named by their path."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    known = f"Known there are: {', '.join(fields)}" if prefix else ""
    unknown = [str(key) for key in values if key not in fields]
    faults = [f"unknown key '{prefix}{key}'. {suggest(key, fields) or known}".rstrip(". ") for key in unknown]
    required = (
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    faults += [f"missing key '{prefix}{name}'" for name in required if name not in values]
    built: dict[str, Any] = {}
    out_of_range: list[ConfigError] = []
    for name in [name for name in fields if name in values]:
        try:
            built[name] = _coerce(hints[name], values[name], where=f"{prefix}{name}")
        except _UnfitError as unfit:
            faults += unfit.faults
        except ConfigError as error:
            out_of_range.append(error)
        except TypeError as error:
            faults.append(f"key '{prefix}{name}': {error}")
    if faults:
        raise _UnfitError(*faults)
    if out_of_range:
        raise out_of_range[0]
    return kind(**built)


def _coerce(hint: Any, value: Any, *, where: str) -> Any:
    """``value`` as the type ``hint`` asks for it; raises TypeError where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(arguments, value, where=where)
    if origin is typing.Literal:
        if value not in arguments:
            raise TypeError(f"{value!r} is none of {', '.join(repr(choice) for choice in arguments)}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a mapping of names to values but got {value!r}")
        return _build(typing.cast(type, hint), value, prefix=f"{where}.")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list but got {value!r}")
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            raise TypeError(f"expected {len(items)} values but got {len(value)}")
        return tuple(_coerce(item, part, where=where) for item, part in zip(items, value, strict=True))
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"expected {hint.__name__} but got {value!r}")
    return value


def _coerce_union(arguments: tuple[Any, ...], value: Any, *, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    members = [choice for choice in arguments if dataclasses.is_dataclass(choice)]
    if len(members) > 1 and isinstance(value, Mapping):
        return _coerce(_member(members, value, where=where), value, where=where)
    faults = []
    for choice in arguments:
        if choice is type(None):
            continue
        try:
            return _coerce(choice, value, where=where)
        except _UnfitError:
            raise
        except TypeError as error:
            faults.append(str(error))
    raise TypeError(" or ".join(faults) or f"unexpected {value!r}")


def _member(members: Sequence[Any], values: Mapping[str, Any], *, where: str) -> Any:
    """The one of several dataclasses that ``values`` mean, by the Literal field that tells them apart.

    Without that key it is the first one, as in files from before there were others.
    """
    tag, owners = _tag(members)
    if tag not in values:
        return members[0]
    if not isinstance(values[tag], str) or values[tag] not in owners:
        known = ", ".join(repr(choice) for choice in owners)
        raise _UnfitError(f"key '{where}.{tag}': {values[tag]!r} is none of {known}")
    return owners[values[tag]]


def _tag(members: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """The name of the Literal field whose values no two of the dataclasses share, and whose each value is."""
    hints = [typing.get_type_hints(member) for member in members]
    for field in dataclasses.fields(members[0]):
        choices = [typing.get_args(hint.get(field.name)) for hint in hints]
        literal = all(typing.get_origin(hint.get(field.name)) is typing.Literal for hint in hints)
        owners = {choice: member for member, own in zip(members, choices, strict=True) for choice in own}
        if literal and len(owners) == sum(len(own) for own in choices):
            return field.name, owners
    names = ", ".join(member.__name__ for member in members)
    raise AssertionError(f"{names} have no Literal field that tells them apart")
