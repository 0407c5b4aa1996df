"""Models by name, with random or with the authors' released weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import WeightsError, shorten
from sparseformers.model import SparseFormer
from sparseformers.named import named_config
from sparseformers.released.download import download_official
from sparseformers.released.load import build, read_official
from sparseformers.released.releases import RELEASES, release, released_config
from sparseformers.released.shapes import TITLES, config_from_state, head_of, variant_of_config
from sparseformers.settings import to_dict


def create_model(
    name: str, *, pretrained: bool = False, source: str | Path | None = None, console: Console | None = None
) -> SparseFormer:
    """A named SparseFormer.

    Args:
        name: ``sf_base_augreg``, ``sf_large_augreg``, ``sf_base_clip``, ``sf_large_clip``, ``sf_v1_tiny``, ``sf_v1_small`` or
            ``sf_v1_base``.
        pretrained: with the weights that the authors released, fetched once and kept in a cache; random ones otherwise.
        source: the released file, where it was fetched by hand; implies ``pretrained``.
        console: for the progress of fetching; standard error by default.

    Returns:
        The model, in evaluation mode if it is pretrained. Bootstrapped ones have the released weights' position encoding
        and LayerNorm epsilon then, and the appendix's and the teacher's otherwise.

    Raises:
        ConfigError: for an unknown name.
        WeightsError: if the file cannot be fetched or read, is damaged, or is another model's.
    """
    config = named_config(name)
    if not pretrained and source is None:
        return SparseFormer(config)
    path = download_official(name, console=console) if source is None else Path(source)
    state = read_official(path)
    config = config_from_state(state, "quick_gelu" if head_of(state) == "projection" else "gelu")
    _check_is(name, config, path)
    return build(config, state, what=f"'{path}'")


def _check_is(name: str, config: SparseFormerConfig, path: Path) -> None:
    """Raises WeightsError, with what the file is instead, unless its configuration is the one of ``name``."""
    asked = released_config(name)
    if config == asked:
        return
    other = next((other for other in RELEASES if released_config(other) == config), None)
    if other is not None:
        raise WeightsError(
            f"The file '{path}' is the one of '{other}', not of '{name}'.", f"Give {release(name).file}, or ask for '{other}'."
        )
    found, wanted = TITLES[variant_of_config(config)], TITLES[variant_of_config(asked)]
    if found != wanted:
        raise WeightsError(
            f"The file '{path}' is not the one of '{name}': its network is the {found}, not the {wanted}.",
            f"Give {release(name).file}; sparseformers.load_official loads a file as what it is.",
        )
    faults = shorten(_differences(to_dict(config), to_dict(asked)), limit=4)
    raise WeightsError(f"The file '{path}' is not the one of '{name}' ({faults}).", f"Give {release(name).file}.")


def _differences(found: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """In words, which settings of a file are not those asked for."""
    faults = []
    for key in asked.keys() | found.keys():
        ours, theirs = asked.get(key), found.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            faults += _differences(theirs, ours, f"{prefix}{key}.")
        elif ours != theirs:
            faults.append(f"{prefix}{key} is {theirs}, not {ours}")
    return faults
