"""The folder that a SparseFormer travels in: as a run's, without the settings that are nobody else's business."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import ConfigError, RunError, WeightsError, suggest
from sparseformers.files import write_json
from sparseformers.inheritance import Provenance
from sparseformers.integrations.card import Figures
from sparseformers.settings import from_dict, to_dict

CONFIG_FILE, CARD_FILE = "config.json", "README.md"
"""What lies beside the weights, in a run folder as in a repository."""

CONFIG_KEYS = ("settings", "resolved", "versions", "figures")
"""What ``config.json`` may hold: a run's settings (not given to others), what they came to, versions, and what was measured."""


def write_config(path: Path, config: SparseFormerConfig, *, provenance: Provenance | None, figures: Figures | None) -> None:
    """Writes a ``config.json`` under the names that a run's has, as far as they are of the model."""
    resolved: dict[str, Any] = {"model": to_dict(config)}
    if provenance is not None:
        resolved["teacher"] = {"name": provenance.teacher}
        resolved["teacher_fingerprint"] = provenance.teacher_fingerprint
        resolved["shares"] = to_dict(provenance.shares)
    measured = {} if figures is None else {"figures": to_dict(figures)}
    write_json(path, {"resolved": resolved, **measured})


def read_figures(path: Path, config: SparseFormerConfig) -> Figures | None:
    """The figures in a ``config.json``, of a run or of :func:`write_config`; None where there are none, or no such file.

    Args:
        path: of the file.
        config: inside the weights beside it, which the file must agree with.

    Raises:
        ConfigError: for unknown keys.
        WeightsError: if the file is damaged, or of another model.
    """
    if not path.is_file():
        return None
    where = f"configuration in '{path}'"
    content = _read_json(path)
    resolved = content.get("resolved", {}) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(resolved, Mapping):
        raise ConfigError(f"The {where} is not a mapping of names to values.", "Fetch or save the model again.")
    if unknown := [key for key in content if key not in CONFIG_KEYS]:
        named = ", ".join(f"unknown key '{key}'" for key in unknown)
        near = suggest(unknown[0], CONFIG_KEYS)
        raise ConfigError(f"The {where} does not fit: {named}. {near}".strip(), f"Known keys are: {', '.join(CONFIG_KEYS)}.")
    if "model" in resolved and from_dict(SparseFormerConfig, resolved["model"], where=where) != config:
        raise WeightsError(f"'{path}' and the weights beside it are of two models.", "Fetch or save the model again.")
    figures = content.get("figures")
    return None if figures is None else from_dict(Figures, figures, where=f"figures in '{path}'")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"The file '{path}' cannot be read as JSON ({error}).", "Fetch or save the model again.") from None


def digest_in(path: Path) -> str:
    """The digest that a model file of ours carries."""
    with safe_open(path, "pt") as file:
        return str(file.metadata()["digest"])


def refuse_run(folder: Path) -> None:
    """Raises RunError if saving to a folder would replace the settings of a run, or if it is none."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file.", "Save to a folder.")
    config = folder / CONFIG_FILE
    if config.is_file() and '"settings"' in config.read_text(encoding="utf-8", errors="replace"):
        raise RunError(f"The folder '{folder}' is a run, whose settings would be lost.", "Save to another folder.")
