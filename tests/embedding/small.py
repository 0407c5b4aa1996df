"""A student that embeds quickly, photographs, and reading an output whatever its kind."""

import dataclasses
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from sparseformers.config import PreprocessingConfig
from sparseformers.embedding import EmbedConfig
from sparseformers.model import SparseFormer
from tests.model.small import scattered, small_config

SIDE = 32
OUTPUTS = ("index.parquet", "index.npy", "index")


def student(seed: int = 0, *, tokens: int = 6) -> SparseFormer:
    """A SparseFormer of width 32 that sees images of 32 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = dataclasses.replace(small_config(tokens=tokens), preprocessing=PreprocessingConfig(size=(SIDE, SIDE)))
        model = SparseFormer(config).eval()
        scattered(model)
    return model


def settings(*data: Path | str, **changes: Any) -> EmbedConfig:
    """Small batches and parts, float32, no workers."""
    options: dict[str, Any] = {"batch_size": 2, "part_images": 4, "precision": "fp32", "dtype": "float32", "workers": 0}
    return EmbedConfig(model="a student", data=tuple(map(str, data)), **(options | changes))


def write_shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """Writes a tar file with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return path


def contents(paths: Sequence[Path]) -> dict[str, bytes]:
    """Files by their names."""
    return {path.name: path.read_bytes() for path in paths}


def giant_png(side: int = 13_000) -> bytes:
    """A picture of so many pixels squared, of which there are none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def files_of(out: Path) -> dict[str, bytes]:
    """All files of an output, by their paths from its folder; no other may lie beside it."""
    return {path.relative_to(out.parent).as_posix(): path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}


def read(out: Path) -> dict[str, Any]:
    """Names and numbers of an output."""
    if out.suffix == ".npy":
        names = (out.parent / f"{out.stem}.names.txt").read_text(encoding="utf-8").splitlines()
        beside = {column: out.with_suffix(f".{column}.npy") for column in ("tokens", "dense", "rois")}
        arrays = {column: np.load(path) for column, path in beside.items() if path.exists()}
        return {"names": names, "embedding": np.load(out)} | arrays
    table = pq.read_table(out)
    types = {name: str(table.schema.field(name).type) for name in table.column_names[1:]}  # lists, perhaps of lists, of numbers
    dtypes = {name: np.float16 if "halffloat" in kind else np.float32 for name, kind in types.items()}
    columns = {name: np.array(table[name].to_pylist(), dtype=dtype) for name, dtype in dtypes.items()}
    return {"names": table["file_name"].to_pylist(), **columns}


def info_of(out: Path) -> dict[str, Any]:
    """What an output tells of its making."""
    if out.suffix == ".npy":
        return dict(json.loads(out.with_suffix(".json").read_text()))
    return dict(json.loads(pq.read_schema(out).metadata[b"sparseformers"]))
