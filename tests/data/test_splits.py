from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from sparseformers.data import labelled_splits
from sparseformers.data.mixture import split_source
from sparseformers.data.sources import FolderSource
from sparseformers.errors import ConfigError, DataError
from tests.refusals import refused


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def split(paths: Sequence[Path], share: float, *, seed: int) -> tuple[list[Path], list[Path]]:
    train, held_out = split_source(FolderSource(paths), share, seed=seed)
    return [Path(train.name(place)) for place in range(len(train))], [Path(held_out.name(n)) for n in range(len(held_out))]


class TestSplitSource:
    paths = tuple(Path("data", "photographs", f"{i // 100:02}", f"{i:04}.jpg") for i in range(2000))

    def test_parts_are_disjoint_complete_in_order_and_of_the_seed(self) -> None:
        train, held_out = split(self.paths, 0.1, seed=0)
        assert sorted(train + held_out) == sorted(self.paths)
        assert not set(train) & set(held_out)
        assert train == sorted(train)
        assert held_out == sorted(held_out)
        assert split(self.paths, 0.1, seed=3) == split(self.paths, 0.1, seed=3)
        assert split(self.paths, 0.1, seed=3) != split(self.paths, 0.1, seed=4)

        for share in (0.05, 0.3, 0.9):
            assert abs(len(split(self.paths, share, seed=1)[1]) / 2000 - share) < 0.03

    def test_more_files_do_not_move_the_others_and_the_split_moves_along_with_the_folder(self) -> None:
        _, before = split(self.paths, 0.1, seed=0)
        more = [Path("data", "photographs", "new", f"{i}.jpg") for i in range(500)]
        _, after = split([*more, *self.paths], 0.1, seed=0)
        assert [path for path in after if path not in more] == before
        _, moved = split([Path("elsewhere", *path.parts[1:]) for path in self.paths], 0.1, seed=0)
        assert [path.parts[1:] for path in moved] == [path.parts[1:] for path in before]

    def test_two_of_few_are_held_out_and_neither_part_is_empty(self) -> None:
        for images, held_out in ((2, 1), (3, 2), (15, 2)):
            assert [len(part) for part in split(self.paths[:images], 0.001, seed=0)] == [images - held_out, held_out]
        for count, share, seed in product((2, 3, 5), (1e-6, 0.5, 0.999999), range(5)):
            assert all(split(self.paths[:count], share, seed=seed))

    def test_no_share_and_impossible_ones(self) -> None:
        assert split(self.paths[:1], 0.5, seed=0) == ([self.paths[0]], [])
        assert split(self.paths, 0.0, seed=0) == (list(self.paths), [])
        for share in (-0.1, 1.0, 5.0, float("nan")):
            with refused(ConfigError, f"The held-out share must be in [0, 1), not {share}.", "Use 0.05, for example."):
                split(self.paths, share, seed=0)


class TestLabelledSplits:
    @pytest.mark.parametrize("test", ["test", "val", "validation"])
    def test_train_and_test(self, tmp_path: Path, test: str) -> None:
        touch(tmp_path, "train/cat/1.jpg", "train/cat/2.jpg", "train/dog/1.jpg", "train/ant/1.jpg", "unlabelled/x.jpg")
        touch(tmp_path, f"{test}/dog/9.jpg", f"{test}/ant/deeper/8.jpg")
        splits = labelled_splits(tmp_path)
        assert set(splits) == {"train", "test"}
        assert splits["train"].class_names == splits["test"].class_names == ("ant", "cat", "dog")
        assert splits["train"].labels == (0, 1, 1, 2)
        assert splits["test"].labels == (0, 2)
        assert splits["test"].paths == (tmp_path / test / "ant" / "deeper" / "8.jpg", tmp_path / test / "dog" / "9.jpg")

    def test_one_level(self, tmp_path: Path) -> None:
        touch(tmp_path, "dog/1.jpg", "cat/1.jpg", "cat/2.png", "empty/notes.txt", ".hidden/1.jpg", "loose.jpg")
        splits = labelled_splits(tmp_path)
        assert set(splits) == {"all"}
        assert splits["all"].class_names == ("cat", "dog")
        assert splits["all"].labels == (0, 0, 1)
        assert splits["all"].paths == (tmp_path / "cat" / "1.jpg", tmp_path / "cat" / "2.png", tmp_path / "dog" / "1.jpg")
        touch(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg")  # train without test
        alone = labelled_splits(tmp_path)
        assert alone["all"].class_names == ("ant", "bee")

    def test_no_classes_and_a_test_class_that_is_not_trained(self, tmp_path: Path) -> None:
        few = ["1.jpg", "2.jpg"], ["only/1.jpg", "other/notes.txt"], ["train/1.jpg", "test/1.jpg"]
        for number, names in enumerate((*few, ["train/only/1.jpg", "test/only/1.jpg"])):
            touch(tmp_path / str(number), *names)
            assert labelled_splits(tmp_path / str(number)) is None
        touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/dog/1.jpg", "test/emu/1.jpg")
        problem = f"The test images of '{tmp_path}' have classes that the training images lack: 'emu'."
        with refused(DataError, problem, "Add training images of them, or remove these folders."):
            labelled_splits(tmp_path)
        with pytest.raises(DataError, match="does not exist"):
            labelled_splits(tmp_path / "nowhere")
