"""Packing images into shards: the same bytes however often it is stopped, verified, and readable by others."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from sparseformers.data.pack import PackConfig, pack
from sparseformers.data.pack.shard import OpenShard
from sparseformers.data.shard_files import SIDECAR, read_index
from sparseformers.data.shards import scan
from sparseformers.errors import ConfigError, DataError, RunError
from sparseformers.files import replacing
from tests.cli.command import Command
from tests.refusals import refused
from tests.tiny import write_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Fourteen photographs in two folders, and three files that are none."""
    for seed, name in enumerate(("cats", "dogs")):
        write_images(tmp_path / "photos" / name, 7, seed=seed)
    (tmp_path / "photos" / "empty.jpg").touch()
    (tmp_path / "photos" / "text.png").write_text("no picture")
    (tmp_path / "photos" / "cut.jpg").write_bytes((tmp_path / "photos" / "cats" / "photograph_000.jpg").read_bytes()[:1500])
    return tmp_path / "photos"


def config(photos: Path, out: Path, **options: object) -> PackConfig:
    return PackConfig(photos, out, **{"shard_size": "11KB", "workers": 2, **options})  # type: ignore[arg-type]


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def members(out: Path) -> dict[str, bytes]:
    """All members of all shards; no two may have the same name."""
    found: dict[str, bytes] = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for info in archive:
                assert info.name not in found
                found[info.name] = archive.extractfile(info).read()
    return found


class TestShards:
    def test_hold_every_image_and_are_described_by_the_manifest_and_by_indices(self, photos: Path, tmp_path: Path) -> None:
        summary = pack(config(photos, tmp_path / "out"))
        images = {path.relative_to(photos).as_posix(): path.read_bytes() for path in photos.rglob("photograph*.jpg")}
        assert members(tmp_path / "out") == images
        assert (summary.images, summary.skipped, summary.went_on_from) == (14, 3, 0)
        lines = (tmp_path / "out" / "skipped_images.txt").read_text().splitlines()
        assert lines[0] == "# 3 images could not be read"
        skipped = [f"{photos}/{name}" for name in ("cut.jpg", "empty.jpg", "text.png")]
        assert [line.split("\t")[0] for line in lines[1:]] == skipped
        assert lines[2].endswith("\tthe file is empty")
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert (manifest["images"], manifest["skipped"], manifest["bytes"]) == (14, 3, summary.bytes)
        assert [shard["name"] for shard in manifest["shards"]] == [f"{n:06}.tar" for n in range(summary.shards)]
        for shard in manifest["shards"]:
            path = tmp_path / "out" / shard["name"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
            index = read_index(Path(f"{path}{SIDECAR}"))
            assert (index.digest, len(index), index.bytes) == (scan(path).digest, shard["images"], shard["bytes"])
            assert shard["bytes"] == path.stat().st_size

    def test_are_as_large_as_they_may_be_and_shuffled_unless_told_otherwise(self, photos: Path, tmp_path: Path) -> None:
        shards = pack(config(photos, tmp_path / "shuffled", shard_size="30720")).shards
        sizes = [path.stat().st_size for path in sorted((tmp_path / "shuffled").glob("*.tar"))]
        assert shards == len(sizes) > 1
        assert all(20480 < size <= 30720 for size in sizes[:-1])
        pack(config(photos, tmp_path / "other", seed=1))
        pack(config(photos, tmp_path / "kept", keep_order=True))
        orders = {name: list(members(tmp_path / name)) for name in ("shuffled", "other", "kept")}
        assert orders["kept"] == sorted(orders["kept"])
        assert len(set(map(tuple, orders.values()))) == 3

    def test_webdataset_reads_one_sample_for_each_image(self, tmp_path: Path) -> None:
        paths = write_images(tmp_path / "photos", 4)
        for path, name in zip(paths, ("a.b.jpg", "a_b.jpg", "a.JPG", "a_b_2.jpg"), strict=True):
            path.rename(path.with_name(name))
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
        pack(config(tmp_path / "photos", tmp_path / "out", shard_size="1MB"))
        samples = list(webdataset.WebDataset(str(tmp_path / "out" / "000000.tar"), shardshuffle=False).decode("pil"))
        assert len(samples) == 5
        assert sorted(bool("png" in sample) for sample in samples) == [False] * 4 + [True]

    def test_resize_shrinks_the_shorter_side_and_nothing_that_is_small(self, photos: Path, tmp_path: Path) -> None:
        Image.radial_gradient("L").resize((300, 600)).save(photos / "tall.png")
        Image.radial_gradient("L").resize((40, 30)).save(photos / "small.png")
        pack(config(photos, tmp_path / "out", resize=48))
        found = members(tmp_path / "out")
        (tmp_path / "a").write_bytes(found["cats/photograph_000.jpg"])
        assert Image.open(tmp_path / "a").size == (64, 48)
        (tmp_path / "a").write_bytes(found["tall.jpg"])
        assert (Image.open(tmp_path / "a").size, Image.open(tmp_path / "a").format) == ((48, 96), "JPEG")
        assert found["small.png"] == (photos / "small.png").read_bytes()
        pack(config(photos, tmp_path / "worse", resize=48, quality=20))
        assert len(members(tmp_path / "worse")["tall.jpg"]) < len(found["tall.jpg"])


class TestStops:
    def test_any_shard_may_be_the_last_one(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shards = pack(config(photos, tmp_path / "whole")).shards
        finish = OpenShard.finish
        for last in range(shards):
            out = tmp_path / f"stopped_{last}"

            def stop(self: OpenShard, name: str, last: int = last) -> object:
                if name == f"{last:06}.tar":
                    raise KeyboardInterrupt
                return finish(self, name)

            with monkeypatch.context() as patch:
                patch.setattr(OpenShard, "finish", stop)
                with pytest.raises(KeyboardInterrupt):
                    pack(config(photos, out))
            summary = pack(config(photos, out, workers=1))
            assert (summary.went_on_from > 0) == (last > 0)
            assert files_of(out) == files_of(tmp_path / "whole")

    @pytest.mark.slow
    def test_a_killed_process_is_gone_on_with_to_the_same_bytes(self, photos: Path, tmp_path: Path) -> None:
        pack(config(photos, tmp_path / "whole", resize=60))
        slow = "import sys, time\nfrom pathlib import Path\nfrom sparseformers.data.pack import PackConfig, pack, run\n"
        slow += "add = run.OpenShard.add\nrun.OpenShard.add = lambda self, image: (time.sleep(0.1), add(self, image))\n"
        slow += "pack(PackConfig(Path(sys.argv[1]), Path(sys.argv[2]), shard_size='11KB', resize=60))"
        command = [sys.executable, "-c", slow, str(photos), str(tmp_path / "out")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "000000.tar").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert any(path.name.endswith(".part") for path in (tmp_path / "out").iterdir())
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert pack(config(photos, tmp_path / "out", resize=60)).went_on_from > 0
        assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")

    def test_another_command_is_refused_by_name(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(OpenShard, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                pack(config(photos, tmp_path / "out"))
        with refused(RunError, "in: --quality (None then, 92 now), --resize (None then, 9 now).", "--overwrite"):
            pack(config(photos, tmp_path / "out", resize=9))
        write_images(photos / "birds", 1)
        with pytest.raises(RunError, match=r"differs from this command in: the images\."):
            pack(config(photos, tmp_path / "out"))
        assert pack(config(photos, tmp_path / "out"), overwrite=True).images == 15


class TestRefusals:
    def test_shards_that_are_there_stay_unless_told_otherwise(self, photos: Path, tmp_path: Path) -> None:
        pack(config(photos, tmp_path / "out"))
        (tmp_path / "out" / "mine.txt").write_text("")
        with refused(RunError, "holds shards already", "--overwrite"):
            pack(config(photos, tmp_path / "out"))
        summary = pack(config(photos, tmp_path / "out", shard_size="1MB"), overwrite=True)
        assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["000000.tar"]
        assert summary.shards == 1
        assert (tmp_path / "out" / "mine.txt").exists()

    def test_a_folder_of_something_else_and_nothing_but_bad_images(self, photos: Path, tmp_path: Path) -> None:
        for overwrite in (False, True):
            with refused(RunError, "is not empty and holds no shards"):
                pack(config(photos, photos / "cats"), overwrite=overwrite)
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "a.jpg").touch()
        with refused(DataError, f"None of the 1 images could be read ({tmp_path}/bad/a.jpg: the file is empty)"):
            pack(config(tmp_path / "bad", tmp_path / "out"))

    def test_a_shard_that_was_written_wrongly(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def flip(path: Path) -> object:
            content = bytearray(path.read_bytes())
            content[int(scan(path).starts[0]) + 100] ^= 1
            path.write_bytes(bytes(content))
            return scan(path)

        monkeypatch.setattr("sparseformers.data.pack.shard.scan", flip)
        with pytest.raises(RunError, match=r"'000000\.tar' was not written as it should be: '.*\.jpg' has other bytes"):
            pack(config(photos, tmp_path / "out"))
        assert not list((tmp_path / "out").glob("*.tar"))

    def test_a_full_disk(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path) -> object:
            if path.suffix == ".tar":
                raise OSError(28, "No space left on device")
            return replacing(path)

        monkeypatch.setattr("sparseformers.data.pack.run.replacing", full)
        with pytest.raises(RunError, match=r"no room left to write the folder '.*out' \(No space left on device\)") as caught:
            pack(config(photos, tmp_path / "out"))
        assert "goes on" in caught.value.remedy

    def test_settings_that_do_not_fit_and_sizes_that_do(self) -> None:
        for option, value, problem in (
            ("shard_size", "much", "The size 'much' cannot be understood"),
            ("shard_size", "1KB", "--shard-size must be at least 10000 bytes"),
            ("resize", 0, "--resize must be at least 1"),
            ("quality", 100, "--quality must be in [1, 95]"),
            ("workers", 0, "--workers must be at least 1"),
            ("max_pixels", 10**10, "--max-pixels must be in"),
        ):
            with refused(ConfigError, problem):
                config(Path("photos"), Path("out"), **{option: value})
        for size, expected in (("256MB", 256_000_000), ("1.5 GiB", 3 * 2**29), ("20000", 20_000)):
            assert config(Path("photos"), Path("out"), shard_size=size).shard_bytes == expected


def test_command_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, words = Command(capsys), ["pack", photos, tmp_path / "out", "--shard-size", "1MB"]
    summary = command.json(*words)
    assert (summary["shards"], summary["images"], summary["skipped"]) == (1, 14, 3)
    assert "holds shards already" in command.refused(*words)
    said = command(*words, "--overwrite")
    assert "images 14" in said
    assert "images skipped 3, listed in" in said
