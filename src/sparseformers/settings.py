"""Settings are frozen dataclasses, with each bound beside its field; read strictly from JSON values and from flat names."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sparseformers.errors import ConfigError, suggest

ImageSize = int | tuple[int, int]  # pixels a side of images, for a square; or height and width
KIND = "kind"  # the field that tells the dataclasses of a union apart
Settings = TypeVar("Settings")
Group = TypeVar("Group", bound="Grouped")


@dataclass(frozen=True)
class AtLeast:
    """The least value of a number, beside its field: ``tokens: Annotated[int, AtLeast(1)]``."""

    least: float

    def refusal(self, value: float) -> tuple[str, str] | None:
        """For a value out of range: the range in words, and a remedy; None for one in range."""
        return None if value >= self.least else (f"at least {self.least}", f"Use {self.least} or more.")


@dataclass(frozen=True)
class Above:
    """A number has to be above ``low``."""

    low: float

    def refusal(self, value: float) -> tuple[str, str] | None:
        return None if value > self.low else (f"above {self.low}", "Use a positive number.")


@dataclass(frozen=True)
class Between:
    """A number has to be in an interval; ``ends`` tells which of its ends belong to it, such as ``[)``."""

    low: float
    high: float
    ends: str = "[]"
    example: float | None = None

    def refusal(self, value: float) -> tuple[str, str] | None:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        if above and below:
            return None
        remedy = "Choose a value in that range." if self.example is None else f"Use {self.example}, for example."
        return f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}", remedy


class Mark(enum.Enum):
    """Marks that stand beside fields, as bounds do."""

    WITHOUT_EFFECT = enum.auto()  # it changes nothing of what is learnt or measured, so a run that goes on may change it
    EXPERT = enum.auto()  # it is seldom needed, so ``--help`` names it without explaining it


def check_bounds(settings: Any, *, named: Callable[[str], str] | None = None) -> None:
    """Holds each number of a dataclass, and in its tuples, against the bound beside it; ConfigError calls it ``named(field)``."""
    for name, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        if typing.get_origin(hint) is not typing.Annotated:
            continue
        value = getattr(settings, name)
        for each in value if isinstance(value, tuple) else () if value is None else (value,):
            for bound in hint.__metadata__:
                if isinstance(bound, (AtLeast, Above, Between)) and (refusal := bound.refusal(each)) is not None:
                    must, remedy = refusal
                    raise ConfigError(f"{(named or flag)(name)} must be {must}, not {each}.", remedy)


class Checked:
    """A part of a configuration, which refuses values out of their bounds and names itself then."""

    def __post_init__(self) -> None:
        part = type(self).__name__.removesuffix("Config")
        check_bounds(self, named=lambda name: f"{part}: {name.replace('_', ' ')}")


def flag(name: str) -> str:
    """The command line's word for a setting."""
    return f"--{name.replace('_', '-')}"


class Grouped:
    """A dataclass whose fields are dataclasses of settings; no two of their fields share a name, so the names stand alone."""

    @classmethod
    def groups(cls) -> dict[str, str]:
        """The group of each setting by its name, in their order."""
        return {name: group for group, kind in _kinds(cls).items() for name in _names(kind)}

    @classmethod
    def marked(cls, mark: Mark) -> list[str]:
        """Names of the settings that have a mark beside them."""
        return [
            name
            for kind in _kinds(cls).values()
            for name, hint in typing.get_type_hints(kind, include_extras=True).items()
            if mark in getattr(hint, "__metadata__", ())
        ]

    @classmethod
    def of(cls: type[Group], **values: Any) -> Group:
        """The settings from their names without groups: ``BootstrapConfig.of(teacher="bundled", data=["photos"], lr=1e-4)``.

        Raises ConfigError for unknown names, with the nearest ones, and values of a wrong type or out of range.
        """
        return cls.from_flat(values, where="settings")

    @classmethod
    def from_flat(cls: type[Group], values: Mapping[str, Any], *, where: str) -> Group:
        """As :meth:`of`, from a mapping; ``where`` names it in messages."""
        places = cls.groups()
        faults = [f"unknown key '{name}'. {suggest(name, places)}".rstrip(". ") for name in values if name not in places]
        out_of_range: list[ConfigError] = []
        built: dict[str, Any] = {}
        for group, kind in _kinds(cls).items():
            own = {name: value for name, value in values.items() if places.get(name) == group}
            try:
                built[group] = _build(kind, own, prefix="")
            except _UnfitError as unfit:
                faults += unfit.faults
            except ConfigError as error:
                out_of_range.append(error)
        if faults:
            raise _unfit(where, _UnfitError(*faults), list(places))
        if out_of_range:
            raise out_of_range[0]
        return cls(**built)

    def with_(self: Group, **changes: Any) -> Group:
        """The same settings but for some, by their names without groups; errors as for :meth:`of`."""
        return self.from_flat({**self.flat(), **changes}, where="settings")

    def flat(self) -> dict[str, Any]:
        """The value of each setting by its name without group."""
        return {name: getattr(getattr(self, group), name) for name, group in self.groups().items()}


def _kinds(grouped: type[Grouped]) -> dict[str, type]:
    hints = typing.get_type_hints(grouped)
    return {name: hints[name] for name in _names(grouped)}


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


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
    """The dataclass ``kind`` from JSON values, nested too; ConfigError with all that is unfit, else the first out of range."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"The {where} is not a mapping of names to values.", "Give a JSON object.")
    try:
        return _build(kind, values, prefix="")
    except _UnfitError as unfit:
        raise _unfit(where, unfit, _names(kind)) from None


def with_words(kind: type[Settings], settings: Settings | None, words: Mapping[str, Any], *, where: str) -> Settings:
    """The dataclass ``kind`` from ``settings``, if any, and what is given by name in their place; raises as :func:`from_dict`."""
    values = {} if settings is None else {name: getattr(settings, name) for name in _names(kind)}
    return from_dict(kind, {**values, **words}, where=where)


def _unfit(where: str, unfit: _UnfitError, known: Sequence[str]) -> ConfigError:
    problem = f"The {where} does not fit: {unfit}"
    return ConfigError(problem if problem.endswith("?") else f"{problem}.", f"Known keys are: {', '.join(known)}.")


def _build(kind: type[Settings], values: Mapping[str, Any], *, prefix: str) -> Settings:
    """The dataclass from ``values``; raises _UnfitError with the faults of all levels, named by their path."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    known = f"Known there are: {', '.join(fields)}" if prefix else ""
    unknown = [str(key) for key in values if key not in fields]
    faults = [f"unknown key '{prefix}{key}'. {suggest(key, fields) or known}".rstrip(". ") for key in unknown]
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            faults.append(f"missing key '{prefix}{name}'")
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
        if isinstance(value, typing.cast(type, hint)):
            return value
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a mapping of names to values but got {value!r}")
        return _build(typing.cast(type, hint), value, prefix=f"{where}.")
    if origin is tuple:
        if arguments[-1] is Ellipsis and isinstance(value, (str, Path)):
            value = (value,)  # one of many
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list but got {value!r}")
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            raise TypeError(f"expected {len(items)} values but got {len(value)}")
        return tuple(_coerce(item, part, where=where) for item, part in zip(items, value, strict=True))
    if hint in (str, Path) and isinstance(value, (str, Path)):
        return hint(value)
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
    for choice in (each for each in arguments if each is not type(None)):
        try:
            return _coerce(choice, value, where=where)
        except _UnfitError:
            raise
        except TypeError as error:
            faults.append(str(error))
    raise TypeError(" or ".join(faults) or f"unexpected {value!r}")


def _member(members: Sequence[Any], values: Mapping[str, Any], *, where: str) -> Any:
    """The one of several dataclasses that the field ``kind`` of ``values`` means; the first without it, as in older files."""
    owners = {choice: member for member in members for choice in typing.get_args(typing.get_type_hints(member)[KIND])}
    kind = values.get(KIND, members[0].kind)
    if not isinstance(kind, str) or kind not in owners:
        raise _UnfitError(f"key '{where}.{KIND}': {kind!r} is none of {', '.join(map(repr, owners))}")
    return owners[kind]
