"""What --data names: folders, shards, datasets, and mixtures of them, as one source."""

import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import datasets
import pytest

from sparseformers.data import UnreadableImageError, read_image
from sparseformers.data.mixture import MixedSource, absolute_source, open_source, split_source, without_images_of
from sparseformers.data.shard_files import ShardFiles
from sparseformers.data.sources import FolderSource, ImageSource, Selection
from sparseformers.errors import ConfigError, DataError, MissingExtraError
from tests.embedding.small import contents, write_shard
from tests.refusals import refused
from tests.tiny import write_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs in a folder, six in two shards, four in a saved dataset."""
    folder = tmp_path_factory.mktemp("places")
    write_images(folder / "photos", 10)
    paths = write_images(folder / "others", 6, seed=1)
    for number in range(2):
        write_shard(folder / "shards" / f"{number}.tar", contents(paths[3 * number : 3 * number + 3]))
    files = [str(path) for path in write_images(folder / "more", 4, seed=2)]
    rows = datasets.Dataset.from_dict({"picture": files, "label": [0, 1, 2, 3]})
    embedded = rows.cast_column("picture", datasets.Image()).map(lambda row: row, writer_batch_size=2)
    embedded.save_to_disk(folder / "saved")
    return folder


@pytest.fixture
def places(made: Path, tmp_path: Path) -> dict[str, str]:
    """The same in a folder that a test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return {name: str(tmp_path / name) for name in ("photos", "shards", "others")} | {"saved": f"hf:{tmp_path / 'saved'}"}


def opened(tmp_path: Path, *data: str, weights: list[float] | None = None) -> ImageSource:
    return open_source(data, weights=weights, files=ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=()), window=8)


def names(source: ImageSource) -> list[str]:
    return [source.name(index) for index in range(len(source))]


class TestOpening:
    def test_each_kind_reads_its_images(self, tmp_path: Path, places: dict[str, str]) -> None:
        for name, folder in (("photos", "photos"), ("shards", "others"), ("saved", "more")):
            images = opened(tmp_path, places[name])
            expected = [read_image(path).tobytes() for path in sorted((tmp_path / folder).iterdir())]
            assert [images.read(index).tobytes() for index in range(len(images))] == expected, name

    def test_folders_together_are_one_source_and_a_mixture_has_one_after_the_other(
        self, tmp_path: Path, places: dict[str, str]
    ) -> None:
        images = opened(tmp_path, places["photos"], places["others"], places["photos"])
        assert isinstance(images, FolderSource)
        assert len(images) == 16  # each file counts once
        parts = [places["photos"], places["shards"], places["saved"]]
        images = opened(tmp_path, *parts)
        assert names(images) == [name for part in parts for name in names(opened(tmp_path, part))]
        assert names(images)[16] == f"{places['saved']}@train[0]"
        assert len({images.read(index).tobytes() for index in range(len(images))}) == 20

    def test_weights_are_shares_of_the_samples_and_by_default_sizes(self, tmp_path: Path, places: dict[str, str]) -> None:
        images = opened(tmp_path, places["photos"], places["shards"], weights=[1, 3])
        keys = list(islice(images.sample_order().keys(0, 0), 1024))
        assert sum(key.index >= 10 for key in keys) == 768
        images = opened(tmp_path, places["photos"], places["shards"], places["saved"])
        seen = Counter(key.index for key in islice(images.sample_order().keys(0, 0), 10 * 1024))
        assert max(seen.values()) - min(seen.values()) <= 2

    def test_archives_of_something_else(self, tmp_path: Path, places: dict[str, str]) -> None:
        write_shard(tmp_path / "photos" / "all.tar", {})
        assert isinstance(opened(tmp_path, places["photos"]), FolderSource)
        write_shard(tmp_path / "a.tar", {"a.txt": b""})
        with pytest.raises(DataError, match=r"There are no images in '.*a\.tar' \(.*a\.tar:a\.txt: not an image, by its name\)"):
            opened(tmp_path, str(tmp_path / "a.tar"))

    def test_tells_what_is_missing(self, tmp_path: Path) -> None:
        for data, error, problem in (
            ("nowhere", DataError, "The folder 'nowhere' does not exist"),
            ("nowhere.tar", DataError, "The shard 'nowhere.tar' is missing"),
            ("nowhere/{0..3}.tar", DataError, "Of the 4 shards 'nowhere/{0..3}.tar', 4 are missing"),
            ("hf:", ConfigError, "The name 'hf:' is of no dataset"),
        ):
            with refused(error, problem, "."):
                opened(tmp_path, data)

    def test_absolute_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "saved").mkdir()
        for data, expected in (
            ("photos", f"{tmp_path}/photos"),
            ("shards/{0..3}.tar", f"{tmp_path}/shards/{{0..3}}.tar"),
            ("hf:saved#image", f"hf:{tmp_path}/saved@train#image"),
            ("hf:owner/name@test", "hf:owner/name@test"),
            ("https://host/{0..3}.tar", "https://host/{0..3}.tar"),
            ("pipe:cat a.tar", "pipe:cat a.tar"),
        ):
            assert absolute_source(data) == expected


class TestParts:
    def test_every_kind_is_split_by_its_names(self, tmp_path: Path, places: dict[str, str]) -> None:
        parts = [places["photos"], places["shards"], places["saved"]]
        for data in ([parts[0]], [parts[1]], [parts[2]], parts):
            whole = opened(tmp_path, *data)
            train, held_out = split_source(whole, 0.4, seed=0)
            assert len(held_out) >= 2
            assert sorted(names(train) + names(held_out)) == sorted(names(whole))
            again = split_source(opened(tmp_path, *data), 0.4, seed=0)
            assert [names(part) for part in again] == [names(train), names(held_out)]
            assert train.digest() != whole.digest() != held_out.digest()

    def test_more_shards_do_not_move_images_between_the_parts(self, tmp_path: Path, places: dict[str, str]) -> None:
        before = split_source(opened(tmp_path, places["shards"]), 0.6, seed=1)
        write_shard(tmp_path / "shards" / "2.tar", contents(write_images(tmp_path / "new", 3, seed=5)))
        after = split_source(opened(tmp_path, places["shards"]), 0.6, seed=1)
        for one, other in zip(before, after, strict=True):
            assert set(names(one)) <= set(names(other))

    def test_shards_keep_their_windows_and_selections_of_selections(self, tmp_path: Path, places: dict[str, str]) -> None:
        whole = opened(tmp_path, places["shards"])
        for part in (whole.without([0, 4]), whole.only([1, 2, 3, 5])):
            assert [part.name(index).rpartition("_")[2] for index in range(4)] == ["001.jpg", "002.jpg", "003.jpg", "005.jpg"]
            order = part.order()
            assert sorted(order.indices(0, 0, 0)) == [0, 1, 2, 3]
            assert order.bounds.tolist() == [0, 2, 4]  # type: ignore[attr-defined]
        whole = FolderSource(Path(str(number)) for number in range(10))
        for first in (Selection(whole, [1, 4, 5], leave_out=True), Selection(whole, [0, 2, 3, 6, 7, 8, 9], leave_out=False)):
            assert names(first.without([0, 3])) == ["2", "3", "7", "8", "9"]
            assert names(first.only([0, 3])) == ["0", "6"]

    def test_evaluation_images_are_taken_out(self, tmp_path: Path, places: dict[str, str]) -> None:
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "a.jpg").symlink_to(tmp_path / "photos" / "photograph_003.jpg")
        whole = opened(tmp_path, places["photos"], places["shards"], places["saved"])
        left = without_images_of(whole, opened(tmp_path, str(tmp_path / "link"), f"{places['shards']}/1.tar"))
        assert len(left) == 10 - 1 + 6 - 3 + 4
        gone = set(names(whole)) - set(names(left))
        assert gone == {f"{tmp_path}/photos/photograph_003.jpg"} | {
            f"{tmp_path}/shards/1.tar:photograph_{number:03}.jpg" for number in (3, 4, 5)
        }
        left = without_images_of(opened(tmp_path, places["saved"], places["photos"]), opened(tmp_path, places["saved"]))
        assert names(left)[:10] == names(opened(tmp_path, places["photos"]))

        whole = opened(tmp_path, places["photos"], places["saved"])  # of which one is used up
        assert isinstance(whole, MixedSource)
        with pytest.raises(DataError, match="One of the sources of --data has no image left"):
            whole.without(range(10, 14)).sample_order()


class TestDatasets:
    def test_rows_without_an_image_are_unreadable(self, tmp_path: Path) -> None:
        pictures, features = [{"bytes": b"text", "path": None}, None], datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": pictures}, features=features).save_to_disk(tmp_path / "saved")
        images = opened(tmp_path, f"hf:{tmp_path}/saved")
        for index, reason in enumerate(["not an image of a known format", "the row has no image"]):
            with pytest.raises(UnreadableImageError) as caught:
                images.read(index)
            assert caught.value.reason == reason

    def test_names_that_mean_no_images(self, tmp_path: Path, places: dict[str, str]) -> None:
        datasets.DatasetDict({"train": datasets.load_from_disk(places["saved"][3:])}).save_to_disk(tmp_path / "dict")
        assert len(opened(tmp_path, f"hf:{tmp_path}/dict@train#picture")) == 4
        with pytest.raises(ConfigError, match=r"no split 'tran'\. Did you mean 'train'\?"):
            opened(tmp_path, f"hf:{tmp_path}/dict@tran")
        with pytest.raises(ConfigError, match=r"no column of images 'label'\. Name one after a #: picture\."):
            opened(tmp_path, f"{places['saved']}#label")
        datasets.Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "text")
        with pytest.raises(DataError, match=r"has no column of images\. Its columns are: a\."):
            opened(tmp_path, f"hf:{tmp_path}/text")

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match=r"'datasets' is not installed\. .*sparseformers\[datasets\]"):
            opened(tmp_path, "hf:owner/name")
