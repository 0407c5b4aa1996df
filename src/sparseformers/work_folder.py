"""A folder in which one process at a time does work that may be stopped: a run, an embedding, a packing, a cache, a bench.

Each kind of folder is a subclass that says what it is called and adds the paths of its files, such as
:class:`~sparseformers.data.pack.run.PackFolder`. Work goes on within ``with folder.held(), folder.writing()``, which refuses a
folder of something else or in use, and tells of a full disk. What lies in the folder is written aside and renamed, by
:func:`~sparseformers.files.replacing` and ``replacing_folder``, so a process that is killed leaves whole files and leftovers,
which the next one removes. A folder counts as begun from the manifest on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparseformers.errors import RunError, shorten
from sparseformers.files import NO_ROOM, is_leftover, locked, remove_leftovers, write_json

LONGEST_VALUE = 20  # characters of a setting that is told in full where it differs


class InFolder:
    """An attribute of a :class:`WorkFolder`: the path of the file of this name in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: WorkFolder, kind: type[WorkFolder]) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class WorkFolder:
    """The folder; subclasses are the kinds of work."""

    path: Path

    KIND: ClassVar[str]  # the content in a word or two, as in: is not empty and holds no ...
    MANIFEST: ClassVar[str]  # the file whose presence makes the folder begun; a JSON object
    OPTION: ClassVar[str] = "--out"  # the option of the command that names the folder
    UNREADABLE: ClassVar[str] = ""  # the remedy for a file of the folder that cannot be read, where it is not to remove it

    lock = InFolder(".lock")  # the file that is locked, and there only as long as it is

    @property
    def title(self) -> str:
        """The folder as a part of a sentence."""
        return f"the folder '{self.path}'"

    @property
    def going_on(self) -> str:
        """The end of a sentence on going on after a stop."""
        return "give the same command again: it goes on where it stopped."

    @property
    def manifest(self) -> Path:
        return self.path / self.MANIFEST

    @property
    def is_begun(self) -> bool:
        return self.manifest.is_file()

    def is_ours(self) -> bool:
        """Whether the folder is empty, or holds this kind of work or what is left of a start that was killed."""
        return self.is_begun or all(path == self.lock or is_leftover(path) for path in self.path.iterdir())

    def require_ours(self) -> None:
        """Raises RunError if there is anything else at the path, before anything is loaded or written."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"The output '{self.path}' is a file.", f"Give a folder to {self.OPTION}.")
        if self.path.is_dir() and not self.is_ours():
            problem = f"The folder '{self.path}' is not empty and holds no {self.KIND}, so it is not overwritten."
            raise RunError(problem, f"Choose another {self.OPTION}.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and holds it alone, removes it if it was not begun; RunError if it is held, not ours, or not made."""
        self.require_ours()
        with ExitStack() as stack:
            with self.writing():
                self.path.mkdir(parents=True, exist_ok=True)
                free = stack.enter_context(locked(self.lock))
            if not free:
                raise self.busy()
            with self.writing():
                remove_leftovers(self.path)
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps what is open, and a folder that is not empty stays
                    if not self.is_begun:
                        self.clear()
                    self.lock.unlink(missing_ok=True)
                    if not self.is_begun:
                        self.path.rmdir()

    def busy(self) -> RunError:
        problem = f"{_capital(self.title)} is in use by another process."
        return RunError(problem, f"Wait for its end, or choose another {self.OPTION}.")

    @contextmanager
    def writing(self, *, room_only: bool = False) -> Iterator[None]:
        """Turns an OSError into a RunError that says what to do; ``room_only`` if others than a full disk may be of elsewhere."""
        try:
            yield
        except OSError as error:
            if room_only and error.errno not in NO_ROOM:
                raise
            raise self.write_error(error) from error

    def write_error(self, error: OSError) -> RunError:
        """The error for a file of the work that cannot be written."""
        reason = error.strerror or error
        if error.errno in NO_ROOM:
            problem = f"There is no room left to write {self.title} ({reason}); what was finished before is kept."
            return RunError(problem, f"Free some space, then {self.going_on}")
        problem = f"{_capital(self.title)} cannot be written ({reason})."
        return RunError(problem, f"Mend that or choose another {self.OPTION}; to go on, {self.going_on}")

    def read_manifest(self) -> dict[str, Any]:
        """The content of the manifest; raises RunError if there is none, or it cannot be read."""
        return self.read_json(self.manifest)

    def read_json(self, file: Path) -> dict[str, Any]:
        """The object in a JSON file of the folder; raises RunError if there is none, or it cannot be read."""
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            remedy = self.UNREADABLE or f"Remove it, or choose another {self.OPTION}."
            raise RunError(f"The file '{file}' cannot be read ({error}).", remedy) from None

    def write_manifest(self, content: Mapping[str, Any]) -> None:
        write_json(self.manifest, content)

    def refuse_differences(self, names: Sequence[str]) -> None:
        """Raises RunError if there are any :func:`differences` between what was begun and what is asked for."""
        if names:
            problem = f"What was begun in '{self.path}' differs from this command in: {shorten(names)}."
            raise RunError(problem, "Give the same command as then to go on with it, or add --overwrite to begin anew.")

    def clear(self) -> None:
        """Removes all but the lock, the manifest first: stopped on the way, it leaves a folder that is not begun."""
        self.manifest.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.lock:
                path.unlink()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of settings that differ between a manifest and what is asked for, as JSON; short values are told with both."""
    plain = json.loads(json.dumps(dict(now)))
    changes = [(name, then.get(name), value) for name, value in plain.items() if then.get(name) != value]
    return [f"{name} ({old} then, {new} now)" if _is_short(old) and _is_short(new) else name for name, old, new in changes]


def _is_short(value: Any) -> bool:
    return not isinstance(value, (list, dict)) and len(str(value)) <= LONGEST_VALUE


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
