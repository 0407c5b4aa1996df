"""What places hold: entries of every kind are read, skipped with a reason, or passed over and counted."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from sparseformers.data import find_images, places, read_image
from sparseformers.data.mixture import open_source
from sparseformers.data.places import find, readable_suffixes
from sparseformers.data.shard_files import ShardFiles
from sparseformers.embedding.inputs import find_inputs
from sparseformers.errors import DataError
from tests.data.photographs import photograph
from tests.embedding.small import contents, write_shard
from tests.refusals import refused


def write(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 9, 9)).save(folder / name)
    return folder


def relative(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def test_bad_links_pipes_and_devices__are_skipped_and_told(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "sub/b.png")
    for name, target in (("gone.jpg", "/nowhere/x.jpg"), ("folder", "/nowhere/y"), ("self.jpg", "self.jpg"), ("sub/up", "..")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "null.png").symlink_to("/dev/null")
    for name in ("pipe.jpg", "pipe"):
        os.mkfifo(tmp_path / name)
    found = find([tmp_path])
    assert relative(found.images, tmp_path) == ["a.png", "sub/b.png"]
    reasons = dict.fromkeys(("folder", "gone.jpg"), "a link that leads nowhere") | {
        "self.jpg": "a link that leads back to itself"
    }
    reasons |= dict.fromkeys(("null.png", "pipe.jpg"), "a pipe, a socket or a device, not a file")
    assert dict(found.faults) == {str(tmp_path / name): reason for name, reason in reasons.items()}
    assert found.passed_over == Counter({"without ending": 1})
    source = open_source([str(tmp_path)], files=ShardFiles(tmp_path / ".cache", most_bytes=1), window=1)
    assert (len(source), source.missing(), len(source.faults())) == (2, 5, 5)
    assert source.only([0]).missing() == 5


def test_where_nothing_is_left__the_error_says_why(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").symlink_to("/nowhere")
    (tmp_path / "notes.txt").touch()
    with refused(DataError, "(3 unreadable entries: a link that leads nowhere; 1 file passed over: .txt 1)."):
        find_images([tmp_path])
    assert find_inputs([str(tmp_path)], tmp_path / ".listing").images == 3  # which are embedded to no rows
    with refused(DataError, "is a link that leads nowhere.", "Mount what it leads to"):
        find([tmp_path / "0.jpg"])


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has to be become")
def test_a_folder_that_may_not_be_read__is_skipped_and_told(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "lost+found/b.png", "closed/c.png")
    (tmp_path / "link").symlink_to(tmp_path / "closed" / "c.png")
    tmp_path.chmod(0o755)
    for name in ("lost+found", "closed"):
        (tmp_path / name).chmod(0o700)
    parents = [path for path in tmp_path.parents if path.stat().st_uid == 0 and path != Path("/")]
    before = [(path, path.stat().st_mode) for path in parents]
    for path in parents:
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        found = find([tmp_path])
    finally:
        os.seteuid(0)
        for path, mode in before:
            path.chmod(mode)
    assert relative(found.images, tmp_path) == ["a.png"]
    faults = {Path(name).name: reason for name, reason in found.faults}
    assert faults == dict.fromkeys(("closed", "link", "lost+found"), "permission denied")


def test_shards_beside_images_and_deeper__are_read_too(tmp_path: Path) -> None:
    write(tmp_path / "mixed", "preview.png")
    x, y, z = contents(sorted(write(tmp_path / "made", "x.png", "y.png", "z.png").iterdir())).items()
    write_shard(tmp_path / "mixed" / "data" / "0.tar", [x, y])
    write_shard(tmp_path / "mixed" / "1.TAR", [z])
    source = open_source([str(tmp_path / "mixed")], files=ShardFiles(tmp_path / "cache", most_bytes=2**20), window=1)
    assert len(source) == 4
    assert list(source.remarks()) == ["1 image and 2 tar shards: both are read."]
    inputs = find_inputs([str(tmp_path / "mixed")], tmp_path / "listing")
    assert [each.shard is None for each in inputs.sources] == [True, False, False]
    with refused(DataError, "holds no images (2 tar shards).", ""):
        (tmp_path / "mixed" / "preview.png").unlink()
        find_images([tmp_path / "mixed"])


def test_beside_shards_alone__what_cannot_be_read_and_what_is_passed_over_is_told(tmp_path: Path) -> None:
    x, y = contents(sorted(write(tmp_path.parent / "made", "x.png", "y.png").iterdir())).items()
    write_shard(tmp_path / "a.tar", [x, y])
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "gone.jpg").symlink_to("/nowhere")
    source = open_source([str(tmp_path)], files=ShardFiles(tmp_path / ".cache", most_bytes=1), window=1)
    assert (len(source), source.missing()) == (2, 1)
    assert list(source.faults()) == [(str(tmp_path / "gone.jpg"), "a link that leads nowhere")]
    assert list(source.remarks()) == ["1 file passed over: .txt 1."]


def test_what_pillow_can_read_is_read__and_the_rest_is_counted_by_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jfif", "b.avif", "c.jp2", "d.ppm", "e.heic"]
    for name in names[:-1]:
        photograph(64, 48).save(tmp_path / name)
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(photograph(64, 48)).save(tmp_path / "e.heic")
    for name in ("notes.txt", "table.CSV", "no_ending"):
        (tmp_path / name).touch()
    found = find([tmp_path])
    assert relative(found.images, tmp_path) == names
    assert all(read_image(path).size == (64, 48) for path in found.images)
    assert found.passed_over == Counter({".txt": 1, ".csv": 1, "without ending": 1})
    readable_suffixes.cache_clear()
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda _: None)
    assert find([tmp_path]).told() == "4 files passed over: .heic 1, without ending 1, .txt 1, .csv 1"
    readable_suffixes.cache_clear()


def test_runs_inside_of_the_data__are_no_images(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "run/rois.png", "run/held_out/x.png", "classes/config/b.png")
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "run" / name).touch()
    assert relative(find([tmp_path]).images, tmp_path) == ["a.png", "classes/config/b.png"]
