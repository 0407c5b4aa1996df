"""The weights that the authors of SparseFormer released: fetching, reading and converting them.

Facts about their files are from https://github.com/showlab/sparseformer (MIT licence).
"""

from sparseformers.official.create import create_model
from sparseformers.official.download import cache_folder, download_official
from sparseformers.official.load import load_official, read_official
from sparseformers.official.releases import RELEASES, Release, release, released_config
from sparseformers.official.shapes import OfficialActivation, config_from_state, head_of, is_official

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
