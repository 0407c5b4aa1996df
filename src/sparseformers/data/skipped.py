"""The images that a run could not read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sparseformers.files import replacing


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
