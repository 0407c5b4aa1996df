"""Images that cannot be read: the list of them, and the share of them that is too great to go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sparseformers.errors import DataError
from sparseformers.files import replacing

FEWEST_SAMPLES = 100
"""Samples that have to be met before their share counts; what shards lack by their headers counts from the start."""


class SkippedImages:
    """Collects unreadable images, each once, however often it was met."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> SkippedImages:
        """A collection that begins with these (name, reason)."""
        skipped = cls()
        for name, reason in pairs:
            skipped.add(name, reason)
        return skipped

    def add(self, name: str | Path, reason: str) -> None:
        """Notes that an image was skipped; the first reason stands.

        Args:
            name: its path; in a shard, SHARD:MEMBER.
            reason: why, in a few words.
        """
        self._reasons.setdefault(str(name), reason)

    def update(self, others: Iterable[SkippedImages]) -> None:
        """Takes over what others have collected, such as those of other processes."""
        for other in others:
            for path, reason in other._reasons.items():
                self.add(path, reason)

    def __len__(self) -> int:
        return len(self._reasons)

    def state_dict(self) -> list[list[str]]:
        """Path and reason of each image."""
        return [[str(path), reason] for path, reason in self._reasons.items()]

    def load_state_dict(self, state: Iterable[Sequence[str]]) -> None:
        """Adds the images of a :meth:`state_dict`."""
        for path, reason in state:
            self.add(path, reason)

    def share(self, of: int) -> float:
        """The share of ``of`` images that was skipped, in [0, 1]."""
        return len(self) / of if of else 0.0

    def lines(self) -> list[str]:
        """A line ``name TAB reason`` for each image, sorted by name."""
        return [f"{_one_field(name)}\t{_one_field(self._reasons[name])}" for name in sorted(self._reasons)]

    def write(self, file: Path) -> None:
        """Writes a line with the count, then :meth:`lines`."""
        count = f"# {len(self)} image{'' if len(self) == 1 else 's'} could not be read"
        with replacing(file) as unfinished:
            # Names on disk may be no valid UTF-8; they are written as they are.
            unfinished.write_text("\n".join([count, *self.lines()]) + "\n", encoding="utf-8", errors="surrogateescape")


def _one_field(text: str) -> str:
    """``text`` without the characters that part fields and lines."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


class BadShare:
    """The share of images that cannot be learnt from: those known to be bad, and what the samples so far tell of the rest.

    Args:
        missing: images that were found bad before anything was decoded.
        images: all others.
        most: the share that is put up with, in [0, 1].
    """

    def __init__(self, *, missing: int, images: int, most: float) -> None:
        self.missing = missing
        self.images = images
        self.most = most
        self.met = 0
        self.bad = 0

    def count(self, *, met: int, bad: int) -> None:
        """Adds samples, and how many of them could not be read."""
        self.met += met
        self.bad += bad

    @property
    def share(self) -> float:
        """In [0, 1]."""
        of_the_rest = self.bad / self.met if self.met >= FEWEST_SAMPLES else 0.0
        return (self.missing + self.images * of_the_rest) / max(1, self.missing + self.images)

    @property
    def is_too_great(self) -> bool:
        """Whether to stop."""
        return self.share > self.most

    def refuse(self, listed_in: str) -> None:
        """Raises DataError if the share is too great.

        Args:
            listed_in: where to read which images are bad.
        """
        if self.is_too_great:
            raise DataError(
                f"{self.share:.1%} of the images are bad, more than --max-bad {self.most:g} allows ({self.missing:,} by what "
                f"their shards hold, {self.bad:,} of {self.met:,} that were to be read).",
                f"Mend the data ({listed_in}), or start again with a greater --max-bad.",
            )
