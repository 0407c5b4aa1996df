"""Orders of samples: each is a function of the seed and the position, and loses and doubles nothing."""

import functools
from collections import Counter
from itertools import chain, islice, product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseformers.data import SampleStream, ViewKey, derived_seed
from sparseformers.data.order import CHUNK, FullShuffle, Interleaved, WindowShuffle, whole_weights


def window_shuffle(sizes: list[int], window: int) -> WindowShuffle:
    return WindowShuffle(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), window)


def taken(order: Interleaved, count: int, *, seed: int = 0, start: int = 0) -> list[ViewKey]:
    return list(islice(order.keys(seed, start), count))


SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any)
PARTS = st.one_of(st.integers(1, 40).map(FullShuffle), st.builds(window_shuffle, SIZES, st.integers(1, 4)))
MIXTURES = st.lists(st.tuples(PARTS, st.integers(1, 50)), min_size=1, max_size=4).map(
    lambda pairs: Interleaved(tuple(part for part, _ in pairs), tuple(weight for _, weight in pairs))
)


class TestWindowShuffle:
    @settings(max_examples=25)
    @given(sizes=SIZES, window=st.integers(1, 12), data=st.data())
    def test_a_pass_has_every_image_once_and_ends_with_its_tail(self, sizes: list[int], window: int, data: st.DataObject) -> None:
        order, number = window_shuffle(sizes, window), data.draw(st.integers(0, 2))
        seed, start = data.draw(st.integers(0, 3)), data.draw(st.integers(0, order.length))
        whole = list(order.indices(seed, number, 0))
        assert sorted(whole) == list(range(order.length))
        assert list(order.indices(seed, number, start)) == whole[start:]

    def test_only_the_shards_of_a_window_are_read_at_a_time(self) -> None:
        order = window_shuffle([10] * 20, 4)
        indices = list(order.indices(0, 0, 0))
        for first in range(0, 200, 40):
            assert len({index // 10 for index in indices[first : first + 40]}) == 4
        assert len({index // 10 for index in indices[:20]}) > 2  # shuffled together, not one shard after the other

    def test_passes_and_seeds_have_orders_of_their_own_which_a_lost_shard_does_not_change(self) -> None:
        one, other = (window_shuffle(sizes, 2).indices(5, 1, 0) for sizes in ([4, 7, 3], [0, 4, 7, 0, 3]))
        assert list(one) == list(other)
        order = window_shuffle([10] * 6, 2)
        orders = [list(order.indices(seed, number, 0)) for seed in (0, 1) for number in (0, 1)]
        assert len(set(map(tuple, orders))) == 4
        assert len({tuple(dict.fromkeys(index // 10 for index in order)) for order in orders}) > 1  # of the shards as well


class TestInterleaved:
    @given(order=MIXTURES, start=st.integers(0, 3 * CHUNK), count=st.integers(1, 60))
    def test_any_position_is_the_tail_of_the_whole(self, order: Interleaved, start: int, count: int) -> None:
        assert taken(order, count, start=start) == taken(order, start + count)[start:]

    @given(order=MIXTURES, samples=st.integers(0, 5 * CHUNK))
    def test_shares_are_right_to_a_sample(self, order: Interleaved, samples: int) -> None:
        counts = order.counts(samples)
        assert sum(counts) == samples
        greatest = order.weights.index(max(order.weights))
        for number, weight in enumerate(order.weights):
            off = abs(counts[number] - samples * weight / sum(order.weights))
            assert off <= (0.5 if number != greatest else len(order.parts) / 2)

    @settings(max_examples=15)
    @given(order=MIXTURES)
    def test_what_comes_has_these_shares_at_the_end_of_each_chunk_and_every_image_once_a_pass(self, order: Interleaved) -> None:
        keys = taken(order, 3 * CHUNK)
        begins = np.cumsum([0, *(part.length for part in order.parts)])
        for samples in (CHUNK, 2 * CHUNK):
            found = Counter(int(np.searchsorted(begins, key.index, side="right")) - 1 for key in keys[:samples])
            assert [found[number] for number in range(len(order.parts))] == order.counts(samples)
        assert len(set(keys)) == len(keys)  # no image twice in a pass
        for begin, part in zip(begins, order.parts, strict=False):
            passes = Counter(key.epoch for key in keys if begin <= key.index < begin + part.length)
            assert all(passes[number] == part.length for number in range(max(passes)))  # those that are over

    def test_a_source_alone_has_the_order_of_torchs_permutations(self) -> None:
        """Which runs from before there were mixtures have: they are resumed with it."""
        orders = [torch.randperm(10, generator=torch.Generator().manual_seed(derived_seed(7, epoch))) for epoch in (0, 1)]
        keys = taken(Interleaved((FullShuffle(10),), (1,)), 20, seed=7)
        assert keys == [ViewKey(epoch, index) for epoch in (0, 1) for index in orders[epoch].tolist()]

    def test_sources_are_mixed_within_a_chunk_and_do_not_go_in_step(self) -> None:
        keys = taken(Interleaved((FullShuffle(50), FullShuffle(50)), (1, 1)), 80)
        first, second = ([key.index % 50 for key in keys if (key.index >= 50) == later] for later in (False, True))
        assert len(first) > 20 < len(second)
        assert first[:20] != second[:20]


def test_processes_part_each_batch_and_lose_nothing() -> None:
    for part, start, processes in product((FullShuffle(23), window_shuffle([5, 0, 9, 4], 2)), (0, 12, 13), (1, 2, 4)):
        order = Interleaved((part, FullShuffle(7)), (3, 1))
        stream = functools.partial(SampleStream, order, batch_size=6, seed=3, total=60, start=start)
        for batch, *shares in zip(stream(), *(stream(process=own, processes=processes) for own in range(processes)), strict=True):
            assert sorted(chain.from_iterable(shares)) == sorted(batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_whole_weights__keep_proportions() -> None:
    assert whole_weights([3, 1]) == (3, 1)
    assert whole_weights([0.5, 0.25, 2]) == (2, 1, 8)
    assert whole_weights([0.1, 0.3]) == (1, 3)
