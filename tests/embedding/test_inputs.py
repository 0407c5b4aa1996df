"""Which images there are, in which order, under which names."""

from pathlib import Path

import pytest

from sparseformers.data import evaluation_view, find_images
from sparseformers.embedding.inputs import Inputs, InputStream, Listing, Position, find_inputs, input_batches
from sparseformers.errors import DataError
from tests.embedding.small import contents, student, write_shard
from tests.tiny import write_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos" / "b", 3)
    write_images(tmp_path / "photos" / "a", 2, seed=1)
    write_images(tmp_path / "photos" / "a" / "deep", 2, seed=2)
    (tmp_path / "photos" / "a.txt").write_text("no image")
    (tmp_path / "photos" / ".hidden.jpg").write_bytes(b"")
    return tmp_path / "photos"


def listed(inputs: Inputs) -> list[Path]:
    return [path for path, _, _ in inputs.listing.images()]


def test_files_are_those_of_find_images_in_its_order_and_count_once(tmp_path: Path, photos: Path) -> None:
    assert listed(find_inputs([str(photos)], tmp_path / "alone")) == find_images([photos])
    (photos / "a" / "alias.jpg").symlink_to(photos / "b" / "photograph_000.jpg")
    (photos / "a" / "round").symlink_to(photos)
    paths = listed(find_inputs([str(photos), str(photos / "b"), str(photos / "b" / "photograph_001.jpg")], tmp_path / "listing"))
    assert sorted(paths) == find_images([photos])
    assert len({path.resolve() for path in paths}) == len(paths) == 7


def test_two_listings_differ_by_the_first_image_that_is_not_the_same(tmp_path: Path, photos: Path) -> None:
    before = find_inputs([str(photos)], tmp_path / "before").listing
    find_inputs([str(photos)], tmp_path / "same")
    assert before.difference(Listing(tmp_path / "same")) is None
    (photos / "a" / "photograph_001.jpg").unlink()
    (photos / "b" / "photograph_002.jpg").write_bytes(b"other")
    find_inputs([str(photos)], tmp_path / "after")
    assert before.difference(Listing(tmp_path / "after")) == "a/photograph_001.jpg"


def test_shards_after_folders_each_once(tmp_path: Path, photos: Path) -> None:
    first, second = (write_shard(tmp_path / folder / "0.tar", {}) for folder in "xy")
    inputs = find_inputs([str(second), str(photos), str(first), str(second)], tmp_path / "listing")
    assert [source.name for source in inputs.sources] == ["", "y/0.tar", "x/0.tar"]
    assert inputs.images is None
    assert inputs.size == sum(path.stat().st_size for path in [*find_images([photos]), first, second])


def test_addresses_and_files_together_keep_their_whole_names(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", {})
    inputs = find_inputs([str(shard), "https://host/data/{0..1}.tar"], tmp_path / "listing")
    addresses = ["https://host/data/0.tar", "https://host/data/1.tar"]
    assert [source.name for source in inputs.sources] == [shard.as_posix().lstrip("/"), *addresses]
    alone = find_inputs(["https://host/data/{0..1}.tar"], tmp_path / "listing")
    assert [source.name for source in alone.sources] == ["0.tar", "1.tar"]


class TestStream:
    @pytest.fixture
    def inputs(self, tmp_path: Path, photos: Path) -> Inputs:
        shard = write_shard(tmp_path / "0.tar", contents(write_images(tmp_path / "more", 5, seed=5)))
        return find_inputs([str(photos), str(shard)], tmp_path / "listing")

    def stream(self, inputs: Inputs, start: Position | None = None) -> InputStream:
        view = evaluation_view(student().config.preprocessing)
        return InputStream(inputs, view, 3, Position(0, 0) if start is None else start)

    def test_batches_end_with_their_source_and_go_on_anywhere(self, inputs: Inputs) -> None:
        batches = list(input_batches(self.stream(inputs), workers=0))
        assert [len(batch.images) for batch in batches] == [3, 3, 1, 3, 2]
        assert [batch.end for batch in batches] == [(0, 3), (0, 6), (0, 7), (1, 3), (1, 5)]
        reached = [batch.reached for batch in batches]
        assert reached == sorted(reached)
        assert reached[-1] == inputs.size
        for place, batch in enumerate(batches):
            rest = list(input_batches(self.stream(inputs, batch.end), workers=2 * (place % 2)))
            assert [each.names for each in rest] == [each.names for each in batches[place + 1 :]]
            assert all(one.images.equal(other.images) for one, other in zip(rest, batches[place + 1 :], strict=True))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_shard_that_vanishes_stops_it_with_what_to_do(self, tmp_path: Path, inputs: Inputs, workers: int) -> None:
        (tmp_path / "0.tar").unlink()
        batches = input_batches(self.stream(inputs), workers=workers)
        assert [len(next(batches).images) for _ in range(3)] == [3, 3, 1]
        with pytest.raises(DataError, match=r"0\.tar' cannot be read \(No such file or directory\)\. See to it that it can be"):
            next(batches)
