"""The weights that the authors of SparseFormer released: fetching, reading and converting them.

Facts about their files are from https://github.com/showlab/sparseformer (MIT licence).
"""

from sparseformers.released.load import (
    RELEASES,
    activation_of,
    cache_folder,
    create_model,
    fetch_official,
    load_official,
    read_official,
    released_config,
    released_file,
)
from sparseformers.released.shapes import OfficialActivation, config_from_state, head_of, is_official

__all__ = [
    "RELEASES",
    "OfficialActivation",
    "activation_of",
    "cache_folder",
    "config_from_state",
    "create_model",
    "fetch_official",
    "head_of",
    "is_official",
    "load_official",
    "read_official",
    "released_config",
    "released_file",
]
