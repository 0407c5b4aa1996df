"""Sets of settings by name: recipes, which are TOML files that this package ships or a user's own, and changes to a run's."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    *("front", "truncate", "tune", "freeze", "focusing_width", "channels", "points", "iterations", "start"),
    *("batch_size", "lr", "tuned_lr_ratio", "whiten", "token_weight", "weight_decay", "warm_up", "clip_norm"),
    *("augment", "crop_scale"),
)
"""Settings of :class:`BootstrapConfig` that are the method; teacher, images, sizes, length, seed and machine are not."""
NO_FLAGS = ("start",)
"""Those among them that only a recipe sets."""
FORMER_NAMES = {"inherited": "grid", "bootstrapped": "paper"}


@dataclass(frozen=True)
class Recipe:
    """A named set of settings.

    Raises:
        ConfigError: for a setting that is no part of a method, or a value that does not fit.
    """

    name: str
    description: str
    """One sentence."""
    settings: Mapping[str, Any]
    """Values for some of ``RECIPE_KEYS``; the others keep what they are."""

    def __post_init__(self) -> None:
        for key in self.settings:
            if key not in RECIPE_KEYS:
                raise ConfigError(
                    f"The recipe '{self.name}' sets '{key}', which is no part of a recipe.",
                    suggest(key, RECIPE_KEYS) or f"It may set: {', '.join(RECIPE_KEYS)}.",
                )
        self.apply(BootstrapConfig.of(teacher="bundled", data=["photos"]))  # any will do to check the values

    def apply(self, settings: BootstrapConfig) -> BootstrapConfig:
        """The settings with the recipe's in their place.

        Raises:
            ConfigError: for a value of the wrong type or out of range.
        """
        return changed(settings, self.settings, where=f"recipe '{self.name}'")

    def flags(self) -> list[str]:
        """The recipe as flags of ``sparseformers bootstrap``, but for what no flag sets."""
        return [part for key, value in self.settings.items() if key not in NO_FLAGS for part in (flag(key), str(value))]

    @property
    def without_flags(self) -> dict[str, Any]:
        """Its settings that have no flag."""
        return {key: value for key, value in self.settings.items() if key in NO_FLAGS}


def changed(settings: BootstrapConfig, changes: Mapping[str, Any], *, where: str) -> BootstrapConfig:
    """The settings with some of them changed, as strictly as those read from a file.

    Args:
        settings: to begin with.
        changes: plain values by name.
        where: what the changes come from, for messages.

    Raises:
        ConfigError: for an unknown name, a value of the wrong type, or one out of range.
    """
    try:
        return type(settings).from_flat(settings.flat() | dict(changes), where=where)
    except ConfigError as error:
        if where in error.problem:
            raise
        raise ConfigError(f"The {where} does not fit: {error.problem}", error.remedy) from None


def settings_of(
    settings: BootstrapConfig | None, *, teacher: object, recipe: str | Path | None, options: Mapping[str, Any]
) -> BootstrapConfig:
    """The settings that a call of ``bootstrap`` asks for.

    Args:
        settings: to begin with, if there are any.
        teacher: the name of a teacher, or a module, which is named by its class.
        recipe: what counts more than those.
        options: what counts most, by name.

    Raises:
        ConfigError: for an unknown name, a missing one, or a value that does not fit.
    """
    values = {} if settings is None else settings.flat()
    if isinstance(teacher, str):
        values["teacher"] = teacher
    elif teacher is not None and settings is None:
        values["teacher"] = f"module:{type(teacher).__name__}"
    if recipe is not None:
        values |= load_recipe(recipe).settings
    return BootstrapConfig.from_flat({**values, **options}, where="call of bootstrap")


def parse_pairs(pairs: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Turns ``KEY=VALUE`` pairs into settings; values are as in TOML, bare words are text.

    Args:
        pairs: as they were given to ``--set``.
        known: names of settings, with underscores; pairs may have hyphens.

    Raises:
        ConfigError: for what is no pair, or no setting.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        key = key.replace("-", "_")
        if not equals or not value:
            raise ConfigError(f"--set {pair} is not KEY=VALUE.", "Write --set batch_size=64, for example.")
        if key not in known:
            raise ConfigError(
                f"--set {pair} names no setting of bootstrap.", suggest(key, known) or f"There are: {', '.join(known)}."
            )
        settings[key] = _value(value)
    return settings


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def setting_names() -> list[str]:
    """Names of all settings of a run."""
    return list(BootstrapConfig.groups())


def refuse_changes(there: BootstrapConfig, asked: BootstrapConfig) -> list[str]:
    """Holds the settings that a run is to go on with against those it has.

    Returns:
        The changes without effect on what is learnt, as phrases.

    Raises:
        ConfigError: for the others, each by its name.
    """
    before, after, harmless = there.flat(), asked.flat(), BootstrapConfig.marked(Mark.WITHOUT_EFFECT)
    changes = {name: f"{name} is {before[name]}, {after[name]} asked" for name in after if after[name] != before[name]}
    if refused := [name for name in changes if name not in harmless]:
        told = "; ".join(changes[name] for name in refused)
        what = "setting" if len(refused) == 1 else "settings"
        raise ConfigError(
            f"A run that goes on cannot change the {what} {', '.join(repr(name) for name in refused)} ({told}).",
            f"Leave {'it' if len(refused) == 1 else 'them'} as before or start a new run; these may change:"
            f" {', '.join(harmless)}.",
        )
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
    """Reads a recipe.

    Args:
        name_or_path: the name of one that comes with the package, or a TOML file with ``description = "..."`` and a table
            ``[settings]`` whose keys are among ``RECIPE_KEYS``.

    Raises:
        ConfigError: if there is none of that name, or the file is no recipe.
    """
    known = list_recipes()
    path = recipes_folder() / f"{name_or_path}.toml" if str(name_or_path) in known else Path(name_or_path)
    if not path.is_file():
        former = FORMER_NAMES.get(str(name_or_path))
        near = f"Did you mean '{former}'?" if former else suggest(str(name_or_path), known)
        raise ConfigError(
            f"There is no recipe '{name_or_path}'.", f"{near} Known are: {', '.join(known)}; or give a TOML file.".strip()
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"The recipe '{path}' cannot be read as TOML ({error}).", "Mend the file.") from None
    description, settings = content.get("description"), content.get("settings")
    if content.keys() != {"description", "settings"} or not isinstance(description, str) or not isinstance(settings, dict):
        raise ConfigError(
            f"The file '{path}' is no recipe.", 'A recipe has description = "..." and a table [settings], and nothing else.'
        )
    return Recipe(path.stem, description, settings)
