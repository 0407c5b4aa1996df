"""Settings given by name: which there are, and which may change in a run that goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from sparseformers.errors import ConfigError, suggest
from sparseformers.settings import Mark
from sparseformers.train.settings import BootstrapConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
    """Of all settings of a run."""
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
