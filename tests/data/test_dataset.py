"""The order of training and what its views depend on: (seed, epoch, index) and nothing else."""

from itertools import chain, product
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparseformers.config import PreprocessingConfig
from sparseformers.data import (
    ImageViews,
    LoadedView,
    SampleStream,
    ViewKey,
    batch_loader,
    collate,
    derived_seed,
    evaluation_batches,
    evaluation_view,
    fixed_views,
    images_on,
    read_image,
    training_view,
)


@pytest.fixture
def with_broken(photographs: list[Path], tmp_path: Path) -> list[Path]:
    """The first four, then an empty file and a file of text in between."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    return [photographs[0], tmp_path / "empty.jpg", photographs[1], photographs[2], tmp_path / "text.jpg", photographs[3]]


def training_views(paths: list[Path], seed: int = 0) -> ImageViews:
    return ImageViews(paths, training_view((16, 16), "default"), seed=seed)


def image_of(views: ImageViews, epoch: int, index: int) -> torch.Tensor:
    return views[ViewKey(epoch, index)].image


class TestImageViews:
    def test_a_view_is_a_function_of_seed_epoch_and_index_alone(self, photographs: list[Path]) -> None:
        first = image_of(training_views(photographs), 3, 2)
        torch.manual_seed(123)
        torch.rand(7)
        assert torch.equal(image_of(training_views(photographs), 3, 2), first)
        assert not torch.equal(image_of(training_views(photographs), 4, 2), first)
        assert not torch.equal(image_of(training_views(photographs, seed=1), 3, 2), first)
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        image_of(training_views(photographs), 0, 0)
        list(batch_loader(training_views(photographs), SampleStream(7, batch_size=4, seed=0, total=7), workers=0))
        assert torch.equal(torch.rand(3), expected)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_views_are_bytes_until_they_are_used_then_floats(self, photographs: list[Path], workers: int) -> None:
        views = training_views(photographs)
        assert image_of(views, 0, 1).dtype == torch.uint8
        keys = list(SampleStream(len(views), batch_size=2, seed=0, total=4))
        batches = list(batch_loader(views, SampleStream(len(views), batch_size=2, seed=0, total=4), workers=workers))
        for key, image in zip(chain(*keys), chain(*(images_on("cpu", batch.images) for batch in batches)), strict=True):
            with Image.open(photographs[key.index]) as opened, torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(0, key.epoch, key.index))
                expected = views.view(opened.convert("RGB"))
            assert image.dtype == torch.float32
            assert torch.equal(image, expected)

    def test_several_views_of_an_image(self, photographs: list[Path]) -> None:
        views = ImageViews(photographs, training_view((16, 16), "default"), seed=0, views_per_image=3)
        assert len(views) == 21
        assert [views.name(index) for index in (0, 2, 3, 20)] == [str(photographs[i]) for i in (0, 0, 1, 6)]
        assert not torch.equal(image_of(views, 0, 0), image_of(views, 0, 1))

    def test_large_jpegs_are_decoded_at_the_size_that_the_view_needs(self, tmp_path: Path) -> None:
        Image.new("RGB", (1600, 1600)).save(tmp_path / "a.jpg")

        class SizeView:
            at_least = 100

            def __call__(self, image: Image.Image) -> torch.Tensor:
                return torch.tensor(image.size)

        assert image_of(ImageViews([tmp_path / "a.jpg"], SizeView(), seed=0), 0, 0).tolist() == [200, 200]


def test_collate__readable_unreadable_and_nothing_readable() -> None:
    images = torch.rand(2, 3, 4, 5)
    batch = collate([LoadedView(images[0], 8, None), LoadedView(None, 3, "empty"), LoadedView(images[1], 5, None)])
    assert torch.equal(batch.images, images)
    assert (batch.indices.tolist(), batch.indices.dtype, batch.unreadable) == ([8, 5], torch.int64, ((3, "empty"),))
    for views in ([], [LoadedView(None, 3, "empty")]):
        batch = collate(views)
        assert (batch.images.shape, batch.indices.shape, len(batch.unreadable)) == ((0, 3, 0, 0), (0,), len(views))


class TestSampleStream:
    @pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 25])
    def test_every_epoch_has_every_sample_once(self, batch_size: int) -> None:
        keys = list(chain.from_iterable(SampleStream(10, batch_size=batch_size, seed=0, total=30)))
        assert [key.epoch for key in keys] == [0] * 10 + [1] * 10 + [2] * 10
        orders = [[key.index for key in keys[i : i + 10]] for i in (0, 10, 20)]
        assert all(sorted(order) == list(range(10)) for order in orders)
        assert orders[0] != orders[1] != orders[2]
        assert keys != list(chain.from_iterable(SampleStream(10, batch_size=batch_size, seed=1, total=30)))

    def test_ends_after_the_total(self) -> None:
        for total, start, sizes in ((10, 0, [4, 4, 2]), (8, 0, [4, 4]), (3, 0, [3]), (0, 0, []), (8, 12, [])):
            stream = SampleStream(5, batch_size=4, seed=0, total=total, start=start)
            assert [len(batch) for batch in stream] == sizes
            assert len(stream) == len(sizes)
        stream = SampleStream(3, batch_size=2, seed=0, total=None)
        assert len([batch for batch, _ in zip(stream, range(1000), strict=False)]) == 1000
        with pytest.raises(TypeError, match="no length"):
            len(stream)

    def test_goes_on_where_it_stopped(self) -> None:
        for done, (process, processes) in product((1, 2, 3, 5), [(0, 1), (0, 2), (1, 2), (3, 4)]):
            whole = SampleStream(7, batch_size=4, seed=0, total=30, process=process, processes=processes)
            rest = SampleStream(7, batch_size=4, seed=0, total=30, start=done * 4, process=process, processes=processes)
            assert list(rest) == list(whole)[done:]
            assert len(rest) == len(whole) - done

    @pytest.mark.parametrize("wrong", [{"length": 0}, {"batch_size": 0}, {"start": -1}, {"process": 2}])
    def test_impossible_streams(self, wrong: dict[str, int]) -> None:
        settings = {"length": 5, "batch_size": 2, "start": 0, "process": 0} | wrong
        length = settings.pop("length")
        with pytest.raises(ValueError, match="no stream"):
            SampleStream(length, seed=0, total=None, processes=2, **settings)


class TestBatchLoader:
    def load(self, paths: list[Path], *, workers: int, **place: int) -> dict[ViewKey, torch.Tensor]:
        stream = SampleStream(len(paths), batch_size=4, seed=0, total=24, **place)
        batches = batch_loader(training_views(paths), stream, workers=workers)
        return dict(zip(chain(*stream), chain(*(batch.images for batch in batches)), strict=True))

    def test_views_do_not_depend_on_workers_processes_or_restarts(self, photographs: list[Path]) -> None:
        expected = self.load(photographs, workers=0)
        assert len(expected) == 24
        one, other = (self.load(photographs, workers=1 - process, process=process, processes=2) for process in (0, 1))
        for loaded in (self.load(photographs, workers=2), one | other):
            assert loaded.keys() == expected.keys()
            assert all(torch.equal(loaded[key], expected[key]) for key in expected)
        restarted = self.load(photographs, workers=2, start=12)
        assert len(restarted) == 12
        assert all(torch.equal(restarted[key], expected[key]) for key in restarted)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_unreadable_images_are_dropped_and_reported(self, with_broken: list[Path], workers: int) -> None:
        stream = SampleStream(6, batch_size=3, seed=0, total=6)
        batches = list(batch_loader(training_views(with_broken), stream, workers=workers))
        assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == [0, 2, 3, 5]
        unreadable = dict(pair for batch in batches for pair in batch.unreadable)
        assert unreadable == {1: "the file is empty", 4: "not an image of a known format"}


def test_evaluation_batches__have_every_image_in_order(photographs: list[Path]) -> None:
    preprocessing = PreprocessingConfig(size=(16, 16))
    expected = torch.stack([evaluation_view(preprocessing)(read_image(path)) for path in photographs])
    for workers in (0, 2):
        loader = evaluation_batches(photographs, preprocessing, batch_size=3, workers=workers)
        batches = list(loader)
        assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
        assert len(loader) == 3
        assert all(batch.images.dtype == torch.uint8 for batch in batches)
        assert torch.equal(torch.cat([images_on("cpu", batch.images) for batch in batches]), expected)


def test_fixed_views__are_the_same_every_time_and_counted_image_by_image(
    photographs: list[Path], with_broken: list[Path]
) -> None:
    loaders = (fixed_views(photographs, size=(16, 24), views_per_image=3, seed=seed) for seed in (0, 0, 1))
    first, again, others = (torch.cat([batch.images for batch in loader]) for loader in loaders)
    assert first.shape == (21, 3, 16, 24)
    assert torch.equal(first, again)
    assert not torch.equal(first, others)
    assert len({image.numpy().tobytes() for image in first}) == 21
    batches = list(fixed_views(with_broken, size=(8, 8), views_per_image=2, seed=0, batch_size=6, workers=2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 4, 5], [6, 7, 10, 11]]
    assert [index for batch in batches for index, _ in batch.unreadable] == [2, 3, 8, 9]
