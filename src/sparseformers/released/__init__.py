"""The weights that the authors of SparseFormer released: fetching, reading and converting them.

Facts about their files are from https://github.com/showlab/sparseformer (MIT licence).
"""

from sparseformers.released.create import create_model
from sparseformers.released.download import cache_folder, download_official
from sparseformers.released.load import load_official, read_official
from sparseformers.released.releases import RELEASES, Release, release, released_config
from sparseformers.released.shapes import OfficialActivation, config_from_state, head_of, is_official

__all__ = [
    "RELEASES",
    "OfficialActivation",
    "Release",
    "cache_folder",
    "config_from_state",
    "create_model",
    "download_official",
    "head_of",
    "is_official",
    "load_official",
    "read_official",
    "release",
    "released_config",
]
