"""An embedding under way: a folder beside the output with finished parts, from which the same command goes on after a stop.

A part counts when its record is there, which is written last. What a stop leaves half done is no part, and is made again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparseformers.data import SkippedImages
from sparseformers.embedding.formats import Info, OutputFormat, Rows
from sparseformers.embedding.inputs import Listing
from sparseformers.files import replacing, synchronise
from sparseformers.settings import from_dict, to_dict
from sparseformers.work_folder import InFolder, WorkFolder, differences

FORMAT = 1  # a change of the files in the folder raises it


@dataclass(frozen=True)
class PartRecord:
    """A note on a finished part, with the place in the stream where it ends."""

    source: int
    item: int  # images of the source up to there
    reached: int  # bytes of the input up to there
    rows: int
    skipped: tuple[tuple[str, str], ...]  # (file name, reason) of the images that it lacks
    bytes: int  # size of its file; 0 where it has no rows


@dataclass(frozen=True)
class EmbeddedParts:
    """Progress of an embedding in whole parts, with the place in the stream where the next one begins."""

    parts: int = 0
    rows: int = 0
    skipped: int = 0
    source: int = 0
    item: int = 0  # images of the source before it
    reached: int = 0  # bytes of the input up to there

    @property
    def images(self) -> int:
        """Images seen, the unreadable ones included."""
        return self.rows + self.skipped

    def after(self, record: PartRecord) -> EmbeddedParts:
        rows, skipped = self.rows + record.rows, self.skipped + len(record.skipped)
        return EmbeddedParts(self.parts + 1, rows, skipped, record.source, record.item, record.reached)


@dataclass(frozen=True)
class EmbeddingFolder(WorkFolder):
    """The folder ``OUT.partial`` of one embedding under way."""

    KIND: ClassVar[str] = "embedding"
    MANIFEST: ClassVar[str] = "manifest.json"

    parts = InFolder("parts")
    records = InFolder("records")
    complete = InFolder("complete.json")  # written when all parts are made; the output may be in its place already
    listing = InFolder("images.sqlite")  # the images of the folders
    listing_now = InFolder("images_now.sqlite")  # the same as they are now, to be compared
    skipped = InFolder("skipped.txt")
    workplace = InFolder("workplace")  # the output is put together here

    @classmethod
    def beside(cls, out: Path) -> EmbeddingFolder:
        return cls(out.with_name(f"{out.name}.partial"))

    @property
    def title(self) -> str:
        return f"the output '{self.path.with_suffix('')}'"

    def is_ours(self) -> bool:
        return True  # by its name

    @contextmanager
    def writing(self, *, room_only: bool = False) -> Iterator[None]:
        with super().writing(room_only=room_only):
            try:
                yield
            except sqlite3.Error as error:
                raise OSError(str(error)) from error

    def begin(self, content: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        for folder in (self.parts, self.records):
            folder.mkdir(exist_ok=True)
        self.write_manifest({"format": FORMAT, "content": dict(content), "resolved": dict(resolved)})

    def resolved(self, content: Mapping[str, Any], listing: Listing | None) -> dict[str, Any]:
        """The choices that were resolved; raises RunError if the content, or the images in ``listing``, are others."""
        manifest = self.read_manifest()
        changes = differences(manifest["content"] if manifest["format"] == FORMAT else {}, content)
        if (listing is not None) != self.listing.is_file():
            changes.append("the folders")
        elif not changes and listing is not None and (changed := Listing(self.listing).difference(listing)) is not None:
            changes.append(f"the images ('{changed}' was added, removed or changed)")
        self.refuse_differences(changes)
        return dict(manifest["resolved"])

    def completed(self) -> EmbeddedParts:
        return from_dict(EmbeddedParts, self.read_json(self.complete), where=f"file '{self.complete}'")

    def fresh_workplace(self) -> Path:
        shutil.rmtree(self.workplace, ignore_errors=True)
        self.workplace.mkdir()
        return self.workplace


@dataclass(frozen=True)
class PartFiles:
    """The files and records of the parts in a folder."""

    folder: EmbeddingFolder
    output: OutputFormat

    def finished(self) -> EmbeddedParts:
        done = EmbeddedParts()
        while (self.folder.records / _record_name(done.parts)).is_file():
            record, path = self._record(done.parts), self._file(done.parts)
            if record.rows and not (path.is_file() and path.stat().st_size == record.bytes):
                break  # the part is not whole
            done = done.after(record)
        return done

    def clear_after(self, parts: int) -> None:
        for folder, name in ((self.folder.parts, self.output.part_name), (self.folder.records, _record_name)):
            for path in folder.iterdir():
                digits = path.stem.rpartition("-")[2]
                if not (digits.isdecimal() and int(digits) < parts and path.name == name(int(digits))):
                    path.unlink()

    def add(self, number: int, rows: Sequence[Rows], record: PartRecord, info: Info) -> PartRecord:
        """Writes a part: its file, and then its record with the size of that, which is returned."""
        if record.rows:
            path = self._file(number)
            with replacing(path) as unfinished:
                self.output.write_part(unfinished, Rows.joined(rows), info)
                synchronise(unfinished)
            record = dataclasses.replace(record, bytes=path.stat().st_size)
        with replacing(self.folder.records / _record_name(number)) as unfinished:
            unfinished.write_text(json.dumps(to_dict(record)), encoding="utf-8")
            synchronise(unfinished)
        return record

    def write_skipped(self, done: EmbeddedParts) -> None:
        """Writes the list of skipped images, as :class:`~sparseformers.data.SkippedImages` does, but part by part."""
        with self.folder.skipped.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"# {done.skipped} image{'' if done.skipped == 1 else 's'} could not be read\n")
            file.writelines(f"{line}\n" for line in self.skipped_lines(done))

    def skipped_lines(self, done: EmbeddedParts) -> Iterator[str]:
        for number in range(done.parts):
            yield from SkippedImages.of(self._record(number).skipped).lines()

    def _file(self, number: int) -> Path:
        return self.folder.parts / self.output.part_name(number)

    def _record(self, number: int) -> PartRecord:
        path = self.folder.records / _record_name(number)
        return from_dict(PartRecord, self.folder.read_json(path), where=f"record '{path}'")


def _record_name(number: int) -> str:
    return f"record-{number:06d}.json"
