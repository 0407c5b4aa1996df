"""The folder that shards are packed into: what lies where, and how far a packing is that was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sparseformers.data.pack.shard import PackedShard
from sparseformers.data.shard_index import SIDECAR
from sparseformers.data.skipped import SkippedImages
from sparseformers.errors import ConfigError, RunError, shorten
from sparseformers.files import write_json
from sparseformers.settings import from_dict, to_dict

FORMAT = 1
"""Of the JSON files; a change to what they hold raises it."""
UNFINISHED = ".*.part"
"""Files that a killed process leaves behind."""


@dataclass(frozen=True)
class Packing:
    """How far a packing is: after a whole shard."""

    content: Mapping[str, Any]
    """What is packed how."""
    shards: tuple[PackedShard, ...] = ()
    """Those that are finished."""
    done: int = 0
    """Images that are in them or were left out, in the order of packing."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of those that were left out."""

    @property
    def images(self) -> int:
        """In all shards."""
        return sum(shard.images for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class PackFolder:
    """The files of a packing."""

    path: Path
    """The folder."""

    @property
    def manifest(self) -> Path:
        """The shards with their images, sizes and SHA-256; it is there when all of them are."""
        return self.path / "manifest.json"

    @property
    def skipped(self) -> Path:
        """The images that were left out, with reasons."""
        return self.path / "skipped_images.txt"

    @property
    def _state(self) -> Path:
        return self.path / "packing.json"

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def shard(self, number: int) -> Path:
        """The shard of a number from 0."""
        return self.path / f"{number:06}.tar"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it; turns what the file system complains of into an error.

        Raises:
            RunError: with a remedy.
        """
        try:
            if self.path.is_dir() and not self._is_ours():
                raise RunError(f"The folder '{self.path}' is in use, and not by shards that were packed.", "Choose another OUT.")
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, timeout=0):
                yield
        except Timeout:
            raise RunError(
                f"The folder '{self.path}' is in use by another process.", "Wait for its end, or choose another OUT."
            ) from None
        except OSError as error:
            raise RunError(
                f"Shards cannot be written to '{self.path}' ({error.strerror or error}).",
                "Free some space there if it is full, or choose another OUT; the same command goes on where it stopped.",
            ) from error

    def begin(self, content: Mapping[str, Any], *, overwrite: bool) -> Packing:
        """Where to go on with a packing of ``content``: at its beginning, or after the shards that are finished.

        Raises:
            RunError: if the folder holds other shards, or all of them, and may not be overwritten.
        """
        content = json.loads(json.dumps({"format": FORMAT, **content}))
        if overwrite and (self.manifest.is_file() or self._read(self._state).content != content):
            self._clear()
        if self.manifest.is_file():
            raise RunError(f"The folder '{self.path}' holds shards already.", "Choose another OUT, or add --overwrite.")
        packing = self._read(self._state) if self._state.is_file() else Packing(content)
        if differences := [name for name in content if packing.content.get(name) != content[name]]:
            raise RunError(
                f"What was begun in '{self.path}' differs from this command in: {shorten(differences)}.",
                "Give the same command as then to go on with it, or add --overwrite to begin anew.",
            )
        for left_over in self.path.glob(UNFINISHED):
            left_over.unlink()
        self.keep(packing)  # so that the folder is known for what it is from now on
        return packing

    def keep(self, packing: Packing) -> None:
        """Notes how far a packing is."""
        shards = [to_dict(shard) for shard in packing.shards]
        content = {"content": dict(packing.content), "shards": shards, "done": packing.done, "skipped": packing.skipped}
        write_json(self._state, content)

    def finish(self, packing: Packing) -> None:
        """Writes the manifest and the list of what was left out."""
        SkippedImages.of(packing.skipped).write(self.skipped)
        write_json(
            self.manifest,
            {
                "settings": dict(packing.content),
                "images": packing.images,
                "bytes": packing.bytes,
                "skipped": len(packing.skipped),
                "shards": [to_dict(shard) for shard in packing.shards],
            },
        )
        self._state.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        if self.manifest.is_file() or self._state.is_file():
            return True
        return all(path == self._lock or path.match(UNFINISHED) for path in self.path.iterdir())

    def _read(self, state: Path) -> Packing:
        try:
            values = json.loads(state.read_text(encoding="utf-8"))
            return Packing(
                content=dict(values["content"]),
                shards=tuple(from_dict(PackedShard, shard) for shard in values["shards"]),
                done=int(values["done"]),
                skipped=tuple((str(path), str(reason)) for path, reason in values["skipped"]),
            )
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            return Packing({})

    def _clear(self) -> None:
        """Removes what a packing writes, and nothing else."""
        self._state.unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)
        self.skipped.unlink(missing_ok=True)
        for shard in self.path.glob("[0-9]" * 6 + ".tar"):
            shard.unlink()
            Path(f"{shard}{SIDECAR}").unlink(missing_ok=True)
