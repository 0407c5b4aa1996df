"""Options from the command line; and help of a command with many: a line for each common one, and the names of the rest."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import tyro

from sparseformers.errors import ConfigError, suggest
from sparseformers.settings import Mark, flag

Command = TypeVar("Command")
EXPERT_HELP = "--help-expert"
WIDTH, VALUE_WIDTH, LONGEST_CHOICES = 100, 32, 20
"""Characters of a line of names, of an option with its value, and of choices that are written out."""
SUPPRESSED, POSITIONAL = typing.get_args(tyro.conf.Suppress[int])[1], typing.get_args(tyro.conf.Positional[int])[1]
VALUES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: ""}
GONE = {  # options of earlier versions that no command has any more, and what to do about them
    **dict.fromkeys(("--ema", "--layer-decay", "--looks", "--rois-lr-ratio"), "It brought nothing: leave it out."),
    "--start": "Use --recipe fitted for the fitted start.",
    "--dense-weight": "Use --recipe fitted, of which it is a part.",
    "--token-weight": "Use --dense, by which the feature map is learnt.",
    "--batches": "It is called --batch now.",
}


class _Option(NamedTuple):
    """A setting as help shows it; ``name`` is that of its flag, with underscores."""

    group: str
    name: str
    marks: tuple[Any, ...]
    value: str
    text: str
    default: Any


def parse(kind: type[Command], prog: str, arguments: Sequence[str], *, speaks: bool = True) -> Command:
    """A command (a dataclass) with the options that follow ``prog`` on the command line; prints its help where that is asked for.

    ``speaks`` tells whether this process prints what is wrong. Raises ConfigError for an option that the command does not have,
    or has no more, and SystemExit after help, and with code 2 for values that do not fit.
    """
    options, arguments = list(_options(kind)), [_at_home(word) for word in arguments]
    if any(Mark.EXPERT in option.marks for option in options):
        if {"-h", "--help"}.intersection(arguments):
            print(_short_help(kind, prog, options))
            raise SystemExit(0)
        arguments = ["--help" if each == EXPERT_HELP else each for each in arguments]
    _refuse_unknown(arguments, options, prog)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(kind, prog=prog, args=arguments, console_outputs=speaks, config=config)


def _at_home(word: str) -> str:
    """A word of the command line with the user's home folder for a leading ~, which shells leave alone behind an '='."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{equals}{Path(value).expanduser() if value == '~' or value.startswith('~/') else value}"


def _refuse_unknown(arguments: Sequence[str], options: Sequence[_Option], prog: str) -> None:
    named = [each for each in options if POSITIONAL not in each.marks]
    known = ["--help", "-h", *(flag(f"no_{each.name}" if each.default is True else each.name) for each in named)]
    for name in (each.partition("=")[0].replace("_", "-") for each in arguments):
        if re.match("-+[a-z]", name) and name not in known:
            if name in GONE:
                raise ConfigError(f"There is no option {name} any more.", GONE[name])
            near = suggest(name.lstrip("-"), [each[2:] for each in known]).replace(" '", " '--")
            raise ConfigError(f"'{prog}' has no option {name}.", near or f"'{prog} --help' lists the options.")
    switches = [flag(each.name) for each in named if each.default is False]
    for name, word in pairwise(arguments):
        if len(named) == len(options) and name.replace("_", "-") in switches and not word.startswith("-"):
            raise ConfigError(f"{name} is a switch and takes no value, such as '{word}'.", "Leave the value out.")


def documented(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass, with those that it inherits."""
    texts: dict[str, str] = {}
    for each in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts


def _short_help(kind: type, prog: str, options: Sequence[_Option]) -> str:
    """Its common options by group, a line for each, then the names of the rare ones."""
    lines = [f"usage: {prog} [OPTIONS]", "", inspect.getdoc(kind) or ""]
    for group, members in groupby((each for each in options if Mark.EXPERT not in each.marks), key=lambda each: each.group):
        lines += ["", group]
        for option in members:
            text = option.text.partition(". ")[0].rstrip(".")
            lines.append(f"  {f'{flag(option.name)} {option.value}':<{VALUE_WIDTH}} {text}{_written(option.default)}")
    rare = " ".join(flag(option.name) for option in options if Mark.EXPERT in option.marks)
    wrapped = textwrap.fill(rare, WIDTH, break_on_hyphens=False, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, "", f"expert (explained by {prog} {EXPERT_HELP})", wrapped])


def _options(kind: type, group: str = "This command") -> Iterator[_Option]:
    texts, hints = documented(kind), typing.get_type_hints(kind, include_extras=True)
    own: list[_Option] = []
    for field in dataclasses.fields(kind):
        hint, marks = hints[field.name], getattr(hints[field.name], "__metadata__", ())
        bare = hint.__origin__ if marks else hint
        if dataclasses.is_dataclass(bare):
            nested = typing.cast(type, bare)
            yield from _options(nested, group=(nested.__doc__ or field.name).partition(".")[0])
        elif SUPPRESSED not in marks:
            given = (mark.name for mark in marks if getattr(mark, "metavar", None) and getattr(mark, "name", None))
            name = next(given, field.name)
            own.append(_Option(group, name, marks, _value(bare, marks), texts.get(field.name, ""), field.default))
    yield from own


def _value(bare: Any, marks: Sequence[Any]) -> str:
    metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None)
    members = [each for each in typing.get_args(bare) if each not in (type(None), Ellipsis)]
    if metavar is not None or bare in VALUES:
        return metavar or VALUES[bare]
    if typing.get_origin(bare) is Literal:
        choices = "|".join(map(str, members))
        return choices if len(choices) <= LONGEST_CHOICES else "NAME"
    return _value(members[0], ())


def _written(default: Any) -> str:
    """A default behind the text of its option, where there is something to say."""
    if default in (None, (), False, dataclasses.MISSING):
        return ""
    words = default if isinstance(default, tuple) else (default,)
    return f" ({' '.join(f'{word:g}' if isinstance(word, float) else str(word) for word in words)})"
