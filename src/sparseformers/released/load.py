"""The files that the authors released: which there are, fetching them, and loading them strictly into our network."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseformers.config import FocusingConfig, SparseFormerConfig
from sparseformers.errors import WeightsError
from sparseformers.model import SparseFormer
from sparseformers.named import named_config
from sparseformers.released import form
from sparseformers.teachers.base import check_fit
from sparseformers.teachers.checkpoints import find_weights, read_weights

RELEASE_URL = "https://github.com/showlab/sparseformer/releases/download/v2.0.0-refactor"
CACHE_VARIABLE = "SPARSEFORMERS_CACHE"  # environment variable that names another cache folder
RELEASES: Mapping[str, str] = {  # files by the names of their sizes in :data:`sparseformers.named.NAMED_CONFIGS`
    "sf_v1_tiny": "sparseformer_v1_tiny_converted.pth",
    "sf_v1_small": "sparseformer_v1_small_converted.pth",
    "sf_v1_base": "sparseformer_v1_base_converted.pth",
    "sf_base_augreg": "sparseformer_btsp_augreg_base_converted.pth",
    "sf_large_augreg": "sparseformer_btsp_augreg_large_converted.pth",
    "sf_base_clip": "sparseformer_btsp_openai_clip_base_converted.pth",
    "sf_large_clip": "sparseformer_btsp_openai_clip_large_converted.pth",
}


def released_file(name: str) -> str:
    """The released file of a named size; raises ConfigError for an unknown name, with the nearest ones."""
    named_config(name)
    return RELEASES[name]


def released_config(name: str) -> SparseFormerConfig:
    """A named size as the authors trained it: the bootstrapped ones with their position encoding, and 1e-5 in all LayerNorms."""
    config = named_config(name)
    if not isinstance(config.focusing, FocusingConfig):
        return config
    focusing = dataclasses.replace(config.focusing, position_encoding="released")
    cortex = dataclasses.replace(config.cortex, block=dataclasses.replace(config.cortex.block, norm_eps=1e-5))
    return dataclasses.replace(config, focusing=focusing, cortex=cortex)


def cache_folder() -> Path:
    """The folder for fetched files: the one in ``SPARSEFORMERS_CACHE``, or ``sparseformers`` in PyTorch Hub's folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(torch.hub.get_dir()) / "sparseformers"


def fetch_official(name: str, cache: str | Path | None = None, *, base_url: str = RELEASE_URL) -> dict[str, Tensor]:
    """The authors' weights of a named size, fetched once and cached; raises ConfigError or WeightsError if there are none."""
    file, folder = released_file(name), cache_folder() if cache is None else Path(cache)
    url, path = f"{base_url}/{file}", folder / file
    try:
        options: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "progress": sys.stderr.isatty()}
        content = torch.hub.load_state_dict_from_url(url, str(folder), **options)
    except Exception as error:  # torch.hub raises what the network, the disk or the bytes of the file lead it to
        if path.is_file():
            problem = f"The file '{path}' cannot be read as weights ({type(error).__name__})."
            remedy = f"It may be cut short: delete it and run this again, or fetch {url} by hand and put it there."
            raise WeightsError(problem, remedy) from None
        reason = f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
        problem = f"The released weights of '{name}' could not be fetched from {url} ({reason})."
        remedy = f"Check the network; or fetch that file by hand and put it at '{path}', or give it as --from FILE (source=FILE)."
        raise WeightsError(problem, remedy) from error
    return find_weights(content, f"the file '{path}'").state


def create_model(
    name: str, *, pretrained: bool = False, source: str | Path | None = None, cache: str | Path | None = None
) -> SparseFormer:
    """Creates a named SparseFormer, with random or, in evaluation mode, with the authors' released weights.

    A bootstrapped one has the released weights' position encoding and LayerNorm epsilon then, and otherwise the appendix's and
    the teacher's. ``name`` is one of :data:`sparseformers.named.NAMED_CONFIGS`. Released weights (``pretrained``) are those in
    the file ``source``, or else fetched once and kept in the folder ``cache``: by default that in ``SPARSEFORMERS_CACHE``, or
    PyTorch Hub's.
    Raises ConfigError for an unknown name, and WeightsError if the file cannot be had, is damaged, or is another model's.
    """
    if source is None and not pretrained:
        return SparseFormer(named_config(name))
    path = Path(source or released_file(name))
    state = fetch_official(name, cache) if source is None else read_official(path)
    config = form.config_from_state(state, activation_of(state))
    _check_is(name, config, path)
    return build(config, state, what=f"'{path}'")


def load_official(source: str | Path | Mapping[str, Any], *, activation: form.OfficialActivation = "gelu") -> SparseFormer:
    """Loads weights that the authors released, in evaluation mode; names and shapes tell which network they belong to.

    ``source`` is a .pth file (read without running code) or .safetensors file, or a state dict; plain, or under ``model``. The
    ``activation`` is that of the cortex: ``quick_gelu`` for the models bootstrapped from OpenAI's CLIP, else ``gelu``. Raises
    WeightsError if the file is missing, damaged or carries code, if the weights are not those of one of the authors' networks, if
    any is missing, unexpected or of another shape, or if the activation is not that of the network.
    """
    state = read_official(source)
    what = "the given state dict" if isinstance(source, Mapping) else f"'{source}'"
    return build(form.config_from_state(state, activation), state, what=what)


def read_official(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads a state dict under the authors' names from a file or mapping, which may have it under ``model``."""
    if isinstance(source, Mapping):
        return find_weights(source, "the given state dict").state
    path = Path(source)
    if not path.is_file():
        problem = f"There is no weight file '{path}'."
        raise WeightsError(problem, "Check the path; sparseformers convert NAME OUT fetches by name.")
    return read_weights(path).state


def activation_of(state: Mapping[str, Tensor]) -> form.OfficialActivation:
    """The activation that goes with released weights: OpenAI's CLIP, which ends in a projection, has quick GELU."""
    return "quick_gelu" if form.head_of(state) == "projection" else "gelu"


def build(config: SparseFormerConfig, state: Mapping[str, Tensor], *, what: str) -> SparseFormer:
    """The network of a configuration with the authors' weights; raises WeightsError if they do not fit."""
    table = form.name_table(form.variant_of_config(config), depth=config.cortex.depth, head=form.head_of(state))
    with torch.device("meta"):
        expected = form.rename(SparseFormer(config).state_dict(), form.reverse(table))
    check_fit(expected, state, what=what)
    student = SparseFormer(config)
    student.load_state_dict(form.rename(state, table))
    return student.eval()


def _check_is(name: str, config: SparseFormerConfig, path: Path) -> None:
    asked = released_config(name)
    if config == asked:
        return
    other = next((other for other in RELEASES if released_config(other) == config), None)
    if other is not None:
        problem = f"The file '{path}' is the one of '{other}', not of '{name}'."
        raise WeightsError(problem, f"Give {released_file(name)}, or ask for '{other}'.")
    found, wanted = form.TITLES[form.variant_of_config(config)], form.TITLES[form.variant_of_config(asked)]
    network = f"its network is the {found}, not the {wanted}" if found != wanted else "it has the sizes of no released model"
    problem = f"The file '{path}' is not the one of '{name}': {network}."
    raise WeightsError(problem, f"Give {released_file(name)}; sparseformers convert FILE OUT takes a file for what it is.")
