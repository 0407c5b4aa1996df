"""An embedding under way: a folder beside the output, from which the same command goes on after a stop."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseformers.embedding.listing import Listing
from sparseformers.embedding.parts import Progress
from sparseformers.errors import RunError, shorten
from sparseformers.files import write_json
from sparseformers.lock import locked
from sparseformers.settings import from_dict, to_dict

FORMAT = 1
"""Of the files in the folder; a change to what they hold raises it."""


@dataclass(frozen=True)
class Partial:
    """The folder of one embedding under way."""

    out: Path
    """The output."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def parts(self) -> Path:
        """The files of the parts."""
        return self.path / "parts"

    @property
    def records(self) -> Path:
        """Their records."""
        return self.path / "records"

    @property
    def listing(self) -> Path:
        """The images of the folders."""
        return self.path / "images.sqlite"

    @property
    def listing_now(self) -> Path:
        """The same as they are now, to be compared."""
        return self.path / "images_now.sqlite"

    @property
    def workplace(self) -> Path:
        """Where the output is put together."""
        return self.path / "workplace"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def _complete(self) -> Path:
        return self.path / "complete.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it; removes it at the end if nothing worth keeping came into it.

        Raises:
            RunError: if another process is at the same output.
        """
        with ExitStack() as stack:
            with refusing(self.out):
                self.path.mkdir(parents=True, exist_ok=True)
                free = stack.enter_context(locked(self._lock))
            if not free:
                raise RunError(
                    f"The output '{self.out}' is in use by another process.", "Wait for its end, or choose another --out."
                )
            try:
                yield
            finally:
                if not self.is_begun:
                    self.remove()

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return self._manifest.is_file()

    @property
    def is_complete(self) -> bool:
        """Whether all parts were made; the output may be in its place already, or on its way there."""
        return self._complete.is_file()

    def begin(self, content: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Notes what is embedded how, and what became of open choices."""
        for folder in (self.parts, self.records):
            folder.mkdir(exist_ok=True)
        write_json(self._manifest, {"format": FORMAT, "content": dict(content), "resolved": dict(resolved)})

    def resolved(self, content: Mapping[str, Any], listing: Listing | None) -> dict[str, Any]:
        """What became of open choices, if this is the embedding of ``content`` and of the images in ``listing``.

        Raises:
            RunError: that names what is different.
        """
        manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        before = manifest["content"] if manifest["format"] == FORMAT else {}
        now = json.loads(json.dumps(dict(content)))
        differences = [_difference(name, before.get(name), now.get(name)) for name in now if before.get(name) != now.get(name)]
        if (listing is not None) != self.listing.is_file():
            differences.append("the folders")
        elif not differences and listing is not None and (changed := Listing(self.listing).difference(listing)) is not None:
            differences.append(f"the images ('{changed}' was added, removed or changed)")
        if differences:
            raise RunError(
                f"What was begun in '{self.path}' differs from this command in: {shorten(differences)}.",
                "Give the same command as then to go on with it, or add --overwrite to begin anew.",
            )
        return dict(manifest["resolved"])

    def complete(self, progress: Progress) -> None:
        """Notes that all parts are there."""
        write_json(self._complete, to_dict(progress))

    def completed(self) -> Progress:
        """The progress that :meth:`complete` noted."""
        return from_dict(Progress, json.loads(self._complete.read_text(encoding="utf-8")), where=f"file '{self._complete}'")

    def fresh_workplace(self) -> Path:
        """An empty folder to put the output together in."""
        shutil.rmtree(self.workplace, ignore_errors=True)
        self.workplace.mkdir()
        return self.workplace

    def empty(self) -> None:
        """Removes all but the lock; what has begun is as if it had not."""
        self._manifest.unlink(missing_ok=True)  # first: without it, the rest counts for nothing
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._lock:
                path.unlink()

    def remove(self) -> None:
        """Removes the folder, lock and all."""
        self.empty()
        with suppress(PermissionError):  # Windows keeps what is open
            self._lock.unlink()
            self.path.rmdir()


@contextmanager
def refusing(out: Path) -> Iterator[None]:
    """Turns what the file system complains of into an error with a remedy."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"The output '{out}' cannot be written ({reason}).",
            "Free some space there if it is full, or choose another --out; the same command goes on where it stopped.",
        ) from error


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(now, (str, int, float, bool, type(None))) and len(str(now)) <= 20:
        return f"{name} ({before} then, {now} now)"
    return name
