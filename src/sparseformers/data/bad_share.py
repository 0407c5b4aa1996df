"""How many of the images are bad, and when that is too many to go on."""

from __future__ import annotations

from sparseformers.errors import DataError

FEWEST_SAMPLES = 100
"""Samples that have to be met before their share counts; what shards lack by their headers counts from the start."""


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
