"""Errors that a user can mend: one sentence on what is wrong, one on what to do."""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path


class SparseFormersError(Exception):
    """A problem that the user can mend, in a sentence, and what to do about it in another.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem, self.remedy = problem, remedy

    def __reduce__(self) -> tuple[type[SparseFormersError], tuple[str, str]]:
        """Data workers raise in another process, so the error has to survive pickling."""
        return type(self), (self.problem, self.remedy)


class ConfigError(SparseFormersError):
    """A setting is unknown, out of range, or at odds with another one."""


class TeacherError(SparseFormersError):
    """A teacher is unknown, cannot be fetched, or cannot be inherited from."""


class WeightsError(SparseFormersError):
    """A weight file is damaged, or does not fit the network."""


class DataError(SparseFormersError):
    """A data folder is missing, empty, or holds nothing that can be read."""


class LoadingError(SparseFormersError):
    """The processes that read images failed: no shared memory, no open files, or killed."""


class RunError(SparseFormersError):
    """A run folder is in use, or is not one."""


class NonFiniteLossError(SparseFormersError):
    """The loss became NaN or infinite; no optimiser step was made from it."""


class MissingExtraError(SparseFormersError):
    """An optional library is not installed."""

    @classmethod
    def for_package(cls, package: str, extra: str) -> MissingExtraError:
        """The error for ``package``, which comes with the extra of the name ``extra``."""
        return cls(f"The package '{package}' is not installed.", f"Install it with: pip install 'sparseformers[{extra}]'.")

    @classmethod
    def require(cls, package: str, extra: str) -> None:
        """Raises the error unless ``package`` is installed; it is not imported for that."""
        if importlib.util.find_spec(package) is None:
            raise cls.for_package(package, extra)


def as_path(value: object, what: str) -> Path:
    """A path that was given to a public call as ``what``; raises ConfigError for anything else."""
    if not isinstance(value, str | Path):
        raise ConfigError(f"{what} is a path, not {type(value).__name__}.", "Give a str or a Path.")
    return Path(value)


def suggest(word: str, known: Iterable[str], *, limit: int = 3) -> str:
    """A phrase such as ``Did you mean 'lr'?`` with the names nearest to ``word``, or an empty string."""
    names = list(known)
    # A name that the word begins with (lr_rate -> lr) is nearer than the letters tell.
    begun = [name for name in names if word.startswith((f"{name}_", f"{name}-", f"{name}."))]
    near = list(dict.fromkeys([*begun, *difflib.get_close_matches(word, names, n=limit, cutoff=0.55)]))[:limit]
    return f"Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def shorten(names: Iterable[str], *, limit: int = 10) -> str:
    """Names joined by commas, at most ``limit`` of them, with a count of the rest."""
    listed = sorted(names)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")


class RunStopped(KeyboardInterrupt):
    """A run (in the folder ``path``) was asked by a signal to stop, and did after so many images, with its state saved."""

    def __init__(self, path: Path, *, samples: int, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name} after {samples:,} images")
        self.path, self.samples, self.by = path, samples, by

    @property
    def exit_code(self) -> int:
        """Exit code of the program: 130 after Ctrl-C, as shells have it, and 0 after SIGTERM, for all is well."""
        return 130 if self.by == signal.SIGINT else 0

    @property
    def resume_command(self) -> str:
        return f"sparseformers resume {shlex.quote(str(self.path))}"
