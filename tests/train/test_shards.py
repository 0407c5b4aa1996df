"""Whole runs on tar shards: with all their faults, from an address, mixed, and stopped in the middle of a shard."""

import tarfile
from pathlib import Path

import pytest

from sparseformers.data.pack import PackConfig, pack
from sparseformers.data.sources import BadShare
from sparseformers.errors import DataError
from sparseformers.train import BootstrapConfig, bootstrap, resume
from sparseformers.train.held_out import HeldOut
from sparseformers.train.loop import Trainer
from tests.embedding.small import giant_png, write_shard
from tests.refusals import refused
from tests.tiny import write_images
from tests.train.runs import tiny_settings, weights


@pytest.fixture
def settings(tmp_path: Path) -> BootstrapConfig:
    return tiny_settings(tmp_path, photographs=2).with_(
        shard_cache=tmp_path / "cache", evaluations=1, shuffle_shards=2, max_pixels=10**6
    )


def photographs(tmp_path: Path, count: int) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in write_images(tmp_path / "pictures", count, seed=3)]


def header_faults(tmp_path: Path, good: list[tuple[str, bytes]]) -> dict[str, str]:
    """Three shards with these images and with all that can be told from headers; what is to be said of each fault."""
    content = good[0][1]
    first = [*good[:4], ("../up.jpg", content), ("/root.jpg", content), (good[1][0], content), ("film.mp4", b""), ("a.txt", b"")]
    first += [(good[0][0].replace(".jpg", ".json"), b"{}")]
    write_shard(tmp_path / "bad" / "0.tar", first)
    with tarfile.open(tmp_path / "bad" / "0.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, good[0][0]
        archive.addfile(link)
    cut = write_shard(tmp_path / "bad" / "1.tar", [*good[4:8], ("cut.jpg", content * 20)])
    with tarfile.open(cut) as archive:
        cut.write_bytes(cut.read_bytes()[: archive.getmember("cut.jpg").offset_data + 1500])
    write_shard(tmp_path / "bad" / "2.tar", good[8:])
    (tmp_path / "bad" / "3.tar").write_bytes(b"not an archive " * 100)
    return {
        "0.tar:../up.jpg": "its name points out of the shard",
        "0.tar:/root.jpg": "its name points out of the shard",
        f"0.tar:{good[1][0]}": "another member has the same name",
        "0.tar:film.mp4": "not an image, by its name",
        "0.tar:a.txt": "not an image, by its name",
        "0.tar:link.jpg": "a link or device, not a file",
        "1.tar:cut.jpg": "cut short, or damaged",
        "1.tar": "cut short, or damaged, after 5 images",
        "3.tar": "not a tar file, or damaged from the beginning",
    }


def listed(run: Path) -> dict[str, str]:
    """What a run says of skipped images, by the last parts of their names."""
    lines = (run / "skipped_images.txt").read_text().splitlines()
    pairs = dict(line.split("\t") for line in lines[1:])
    assert lines[0] == f"# {len(pairs)} images could not be read"
    return {name.partition("/bad/")[2]: reason for name, reason in pairs.items()}


def test_faults_that_headers_tell__the_run_is_that_of_the_clean_images(settings: BootstrapConfig, tmp_path: Path) -> None:
    good = photographs(tmp_path, 12)
    for number in range(3):
        write_shard(tmp_path / "clean" / f"{number}.tar", good[4 * number : 4 * number + 4])
    expected = header_faults(tmp_path, good)
    for name in ("clean", "bad"):
        bootstrap(settings.with_(data=(tmp_path / name,), max_bad=0.9), tmp_path / f"run_{name}")
    assert listed(tmp_path / "run_bad") == expected
    assert weights(tmp_path / "run_bad") == weights(tmp_path / "run_clean")
    with refused(
        DataError, "of the images are bad, more than --max-bad 0.05 allows", "0.tar:../up.jpg: its name points out of the shard"
    ):
        bootstrap(settings.with_(data=(tmp_path / "bad",)), tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()  # told before anything is written


def test_faults_that_decoding_tells__are_listed_until_they_are_too_many(settings: BootstrapConfig, tmp_path: Path) -> None:
    good = photographs(tmp_path, 8)
    faults = {
        "text.jpg": (b"no picture", "not an image of a known format"),
        "empty.png": (b"", "the file is empty"),
        "half.jpg": (good[0][1][:700], "image file is truncated"),
        "bomb.png": (giant_png(), "too large: 13000 x 13000 pixels, at most 1 million"),
    }
    bad = [(name, content) for name, (content, _) in faults.items()]
    write_shard(tmp_path / "bad" / "0.tar", [*bad[:2], *good[:4]])
    write_shard(tmp_path / "bad" / "1.tar", [*good[4:], *bad[2:]])
    write_shard(tmp_path / "held_out.tar", photographs(tmp_path, 3))
    settings = settings.with_(data=(tmp_path / "bad",), eval_data=(tmp_path / "held_out.tar",), batch_size=12)
    bootstrap(settings.with_(samples=24, max_bad=0.4), tmp_path / "run")
    found = listed(tmp_path / "run")
    assert {name.partition(":")[2]: name.partition(":")[0] for name in found} == {
        name: f"{number // 2}.tar" for number, name in enumerate(faults)
    }
    assert all(reason.startswith(faults[name.partition(":")[2]][1]) for name, reason in found.items())
    with pytest.raises(DataError, match=r"33\.3% of the images are bad, more than --max-bad 0\.3 allows .* 36 of 108 ") as caught:
        bootstrap(settings.with_(samples=240, max_bad=0.3), tmp_path / "stopped")
    assert f"see '{tmp_path / 'stopped' / 'skipped_images.txt'}'" in caught.value.remedy
    assert listed(tmp_path / "stopped") == found


def test_a_run_goes_on_amid_a_shard(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(tmp_path, 12)
    pack(PackConfig(tmp_path / "pictures", tmp_path / "packed", shard_size="11KB"))
    assert len(list((tmp_path / "packed").glob("*.tar"))) >= 3
    settings = settings.with_(data=(f"{tmp_path}/packed/{{000000..000002}}.tar", tmp_path / "photos"), weight=(3, 1))
    settings = settings.with_(samples=40, checkpoint_every="5steps")
    bootstrap(settings, tmp_path / "whole")

    save, stopped = Trainer._checkpoint, KeyboardInterrupt

    def save_and_stop(trainer: Trainer) -> None:
        save(trainer)
        if trainer.state.samples == 20:
            raise stopped

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_checkpoint", save_and_stop)
        with pytest.raises(stopped):
            bootstrap(settings, tmp_path / "parted")
    resume(tmp_path / "parted")
    assert weights(tmp_path / "parted") == weights(tmp_path / "whole")


def test_a_shard_that_is_lost_is_told(settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Trainer._make_step

    def make_and_lose(trainer: Trainer, held_out: HeldOut) -> object:
        (tmp_path / "0.tar").unlink()
        return make(trainer, held_out)

    monkeypatch.setattr(Trainer, "_make_step", make_and_lose)
    for workers in (0, 1):
        write_shard(tmp_path / "0.tar", photographs(tmp_path, 6))
        with pytest.raises(DataError, match=r"The shard '.*0\.tar' cannot be read \(No such file or directory\)\."):
            bootstrap(settings.with_(data=(tmp_path / "0.tar",), workers=workers), tmp_path / f"run_{workers}")


@pytest.mark.slow
def test_a_cache_of_views_works_with_shards(settings: BootstrapConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [*photographs(tmp_path, 8), ("broken.jpg", b"")])
    settings = settings.with_(data=(tmp_path / "0.tar",), cache_teacher=tmp_path / "views", cached_views=1, max_bad=1.0)
    first, second = (bootstrap(settings, tmp_path / name) for name in ("first", "second"))
    assert first.view_cache == second.view_cache
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes())  # nobody can tell that they are the same
    assert bootstrap(settings, tmp_path / "third").view_cache != first.view_cache


def test_bad_share__a_few_samples_say_nothing_yet_and_what_is_known_counts_at_once() -> None:
    share = BadShare(missing=0, images=1000, most=0.05)
    share.count(met=99, bad=99)
    assert not share.is_too_great
    share.count(met=1, bad=0)
    assert share.share == pytest.approx(0.99)
    with pytest.raises(DataError, match=r"99\.0% of the images are bad, more than --max-bad 0\.05 allows"):
        share.refuse("see there")
    assert BadShare(missing=51, images=949, most=0.05).is_too_great
    share = BadShare(missing=40, images=960, most=0.05)
    share.refuse("")
    share.count(met=200, bad=4)
    assert share.share == pytest.approx((40 + 960 * 0.02) / 1000)
    assert share.is_too_great
    share = BadShare(missing=0, images=100, most=0.05)
    share.count(met=200, bad=10)
    share.refuse("")  # just as many as are allowed
