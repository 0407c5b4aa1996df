"""The order of samples: a function of the seed and the position, whatever the number of workers, processes and stops."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import NamedTuple, TypeAlias

import numpy as np

CHUNK = 1024  # samples of several sources that are shuffled together


class ViewKey(NamedTuple):
    """One view of one image."""

    epoch: int  # the pass over its source, from 0
    index: int  # type: ignore[assignment]  # its place in ImageViews; a tuple's own `index` is of no use here


@dataclass(frozen=True)
class FullShuffle:
    """Each pass is one permutation of all images; it takes 8 bytes of memory for each of them."""

    length: int

    def indices(self, seed: int, number: int, start: int) -> Iterator[int]:
        """The images of the pass of this number, from 0, in its own order and without the first ``start``."""
        yield from _permuted(self.length, seed, number)[start:].tolist()


@dataclass(frozen=True, eq=False)
class WindowShuffle:
    """Shards in a random order, and the images of a few shards in a random order, so that only a few are read at a time."""

    bounds: np.ndarray  # G + 1 increasing integers from 0: shard g has the images from bounds[g] up to bounds[g + 1]
    window: int  # the number of shards that are shuffled together

    @property
    def length(self) -> int:
        return int(self.bounds[-1])

    def indices(self, seed: int, number: int, start: int) -> Iterator[int]:
        sizes = np.diff(self.bounds)
        groups = np.flatnonzero(sizes)  # a shard of which nothing is left does not change the order of the others
        groups = groups[_permuted(len(groups), seed, number)]
        sizes = sizes[groups]
        before = np.concatenate([[0], np.cumsum(sizes)])
        for first in range(0, len(groups), self.window):
            end = min(first + self.window, len(groups))
            passed = max(0, start - int(before[first]))
            together = int(before[end] - before[first])
            if passed >= together:
                continue
            members = [np.arange(self.bounds[group], self.bounds[group + 1]) for group in groups[first:end]]
            yield from np.concatenate(members)[_permuted(together, seed, number, first)][passed:].tolist()


PassOrder: TypeAlias = FullShuffle | WindowShuffle  # the order of the passes over one source


@dataclass(frozen=True)
class Interleaved:
    """Sources with passes of their own, shuffled by chunks: of the first t samples a source of share s has s * t, rounded."""

    parts: tuple[PassOrder, ...]  # one for each source; its indices begin where those of the source before end
    weights: tuple[int, ...]  # shares of the samples, above 0, in any unit

    @property
    def length(self) -> int:
        return sum(part.length for part in self.parts)

    def counts(self, samples: int) -> list[int]:
        """The number of samples of each source among the first ``samples``."""
        total = sum(self.weights)
        greatest = self.weights.index(max(self.weights))
        counts = [(2 * samples * weight + total) // (2 * total) for weight in self.weights]
        counts[greatest] = samples - (sum(counts) - counts[greatest])
        return counts

    def keys(self, seed: int, start: int) -> Iterator[ViewKey]:
        """The endless stream of samples, without its first ``start``."""
        first, passed = divmod(start, self._chunk)
        begun, sources = self._sources(seed, first)
        taken = np.bincount(sources[:passed], minlength=len(self.parts))
        offsets = np.concatenate([[0], np.cumsum([part.length for part in self.parts])]).tolist()
        streams = [
            # The first one has the seed itself, so that a source alone has the order that it always had.
            _passes(part, derived_seed(seed, "source", number) if number else seed, begun[number] + int(taken[number]))
            for number, part in enumerate(self.parts)
        ]
        for chunk in count(first):
            for source in (sources[passed:] if chunk == first else self._sources(seed, chunk)[1]).tolist():
                number, index = next(streams[source])
                yield ViewKey(number, offsets[source] + index)

    @property
    def _chunk(self) -> int:
        """Large enough for the greatest share to get some of each chunk, however many sources there are."""
        return max(CHUNK, len(self.parts) ** 2)

    def _sources(self, seed: int, chunk: int) -> tuple[list[int], np.ndarray]:
        """The samples of each source before a chunk, and the source of each sample in it."""
        begun, end = self.counts(chunk * self._chunk), self.counts((chunk + 1) * self._chunk)
        sources = np.repeat(np.arange(len(self.parts)), np.subtract(end, begun))
        if len(self.parts) > 1:
            sources = sources[_permuted(self._chunk, seed, "chunk", chunk)]
        return begun, sources


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in the same proportions, for exact arithmetic."""
    parts = [Fraction(weight).limit_denominator(10**6) for weight in weights]
    scale = math.lcm(*(part.denominator for part in parts))
    return tuple(max(1, int(part * scale)) for part in parts)


def derived_seed(*parts: int | str) -> int:
    """A seed of 63 bits that belongs to these parts; similar parts give unrelated seeds."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _passes(part: PassOrder, seed: int, start: int) -> Iterator[tuple[int, int]]:
    """(pass, index) of one source, pass after pass, without the first ``start``."""
    number, passed = divmod(start, part.length)
    while True:
        for index in part.indices(seed, number, passed):
            yield number, index
        number, passed = number + 1, 0


def _permuted(length: int, *seed: int | str) -> np.ndarray:
    import torch

    return torch.randperm(length, generator=torch.Generator().manual_seed(derived_seed(*seed))).numpy()
