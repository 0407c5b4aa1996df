"""Recipes, which are named sets of settings in TOML files, and other changes to settings by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sparseformers.errors import ConfigError, suggest
from sparseformers.settings import Mark, flag
from sparseformers.train.settings import BootstrapConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPE_KEYS = (
    *("front", "truncate", "tune", "freeze", "focusing_width", "channels", "points", "iterations"),
    *("start", "dense", "dense_layer"),
    *("batch_size", "lr", "tuned_lr_ratio", "whiten", "weight_decay", "warm_up", "clip_norm"),
    *("augment", "crop_scale"),
)
"""Settings of :class:`BootstrapConfig` that are the method; teacher, images, sizes, length, seed and machine are not."""
NO_FLAGS = ("start",)  # those among them that only a recipe sets
FORMER_NAMES = {"inherited": "grid", "bootstrapped": "paper", "moving": "grid"}
"""Recipes of version 0.1, and what to use in their place; RoIs of the grid front that move brought nothing."""


@dataclass(frozen=True)
class Recipe:
    """A named set of settings; raises ConfigError for one that is no part of a method, or a value that does not fit."""

    name: str
    description: str  # one sentence
    settings: Mapping[str, Any]  # values for some of ``RECIPE_KEYS``; the others keep what they are

    def __post_init__(self) -> None:
        for key in self.settings:
            if key not in RECIPE_KEYS:
                problem = f"The recipe '{self.name}' sets '{key}', which is no part of a recipe."
                raise ConfigError(problem, suggest(key, RECIPE_KEYS) or f"It may set: {', '.join(RECIPE_KEYS)}.")
        self.apply(BootstrapConfig.of(teacher="bundled", data=["photos"]))  # any will do to check the values

    def apply(self, settings: BootstrapConfig) -> BootstrapConfig:
        """The settings with the recipe's in their place; raises ConfigError where a value does not fit."""
        return changed(settings, self.settings, where=f"recipe '{self.name}'")

    def flags(self) -> list[str]:
        """The recipe as flags of ``sparseformers bootstrap``, but for what no flag sets."""
        return [part for key, value in self.settings.items() if key not in NO_FLAGS for part in (flag(key), str(value))]


def changed(settings: BootstrapConfig, changes: Mapping[str, Any], *, where: str) -> BootstrapConfig:
    """The settings with some changed, as strictly as from a file; raises ConfigError, which names ``where`` they come from."""
    try:
        return type(settings).from_flat(settings.flat() | dict(changes), where=where)
    except ConfigError as error:
        if where in error.problem:
            raise
        raise ConfigError(f"The {where} does not fit: {error.problem}", error.remedy) from None


def settings_of(
    settings: BootstrapConfig | None, *, teacher: object, recipe: str | Path | None, options: Mapping[str, Any]
) -> BootstrapConfig:
    """The settings that a call asks for: ``settings``, then teacher (a module by its class), recipe, options; or ConfigError."""
    values = {} if settings is None else settings.flat()
    if isinstance(teacher, str):
        values["teacher"] = teacher
    elif teacher is not None and settings is None:
        values["teacher"] = f"module:{type(teacher).__name__}"
    if recipe is not None:
        values |= load_recipe(recipe).settings
    return BootstrapConfig.from_flat({**values, **options}, where="call of bootstrap")


def parse_pairs(pairs: Sequence[str], known: Sequence[str] = tuple(BootstrapConfig.groups())) -> dict[str, Any]:
    """The ``KEY=VALUE`` pairs of ``--set`` as settings, values as in TOML or bare words; ConfigError for names not ``known``."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        key = key.replace("-", "_")
        if not equals or not value:
            raise ConfigError(f"--set {pair} is not KEY=VALUE.", "Write --set batch_size=64, for example.")
        if key not in known:
            problem = f"--set {pair} names no setting of bootstrap."
            raise ConfigError(problem, suggest(key, known) or f"There are: {', '.join(known)}.")
        try:
            settings[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = value
    return settings


MOVABLE = ("teacher", "data", "eval_data")  # settings that say where something is; that it is the same shows by its fingerprint


def refuse_changes(there: BootstrapConfig, asked: BootstrapConfig) -> list[str]:
    """The changes, as phrases, that have no effect on what is learnt; raises ConfigError with all others, by name."""
    before, after = there.flat(), asked.flat()
    harmless = [*BootstrapConfig.marked(Mark.WITHOUT_EFFECT), *MOVABLE]
    changes = {name: f"{name} is {before[name]}, {after[name]} asked" for name in after if after[name] != before[name]}
    if refused := [name for name in changes if name not in harmless]:
        told = "; ".join(changes[name] for name in refused)
        what, them = ("setting", "it") if len(refused) == 1 else ("settings", "them")
        problem = f"A run that goes on cannot change the {what} {', '.join(map(repr, refused))} ({told})."
        raise ConfigError(problem, f"Leave {them} as before or start a new run; these may change: {', '.join(harmless)}.")
    return list(changes.values())


def recipes_folder() -> Path:
    """Folder of the recipes that come with the package: inside of it as it is installed, else beside its sources."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Reads a recipe by its name or from a TOML file; raises ConfigError if there is none of that name, or the file is none."""
    known, name = list_recipes(), str(name_or_path)
    path = recipes_folder() / f"{name}.toml" if name in known else Path(name)
    if not path.is_file():
        if name in FORMER_NAMES:
            raise ConfigError(f"There is no recipe '{name}' any more.", f"Use --recipe {FORMER_NAMES[name]}.")
        near = suggest(name, known)
        raise ConfigError(f"There is no recipe '{name}'.", f"{near} Known are: {', '.join(known)}; or give a TOML file.".strip())
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"The recipe '{path}' cannot be read as TOML ({error}).", "Mend the file.") from None
    description, settings = content.get("description"), content.get("settings")
    if content.keys() != {"description", "settings"} or not isinstance(description, str) or not isinstance(settings, dict):
        problem = f"The file '{path}' is no recipe."
        raise ConfigError(problem, 'A recipe has description = "..." and a table [settings], and nothing else.')
    return Recipe(path.stem, description, settings)


def expand_recipe(options: Sequence[str]) -> list[str]:
    """Puts the flags that a recipe stands for before those that the user gave, of which the last one counts."""
    for option, following in pairwise([*options, ""]):
        name, _, value = option.partition("=")
        if name == "--recipe" and (value or following):
            return [*load_recipe(value or following).flags(), *options]
    return list(options)


def with_recipe(settings: BootstrapConfig, recipe: str | None) -> BootstrapConfig:
    """The settings of the command line with what a recipe sets that has no flag."""
    given = {} if recipe is None else load_recipe(recipe).settings
    return settings.with_(**{key: value for key, value in given.items() if key in NO_FLAGS})
