"""Images in shards by their places: what an index says, where shards are read, and what happens when they are not there."""

import gzip
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import webdataset

from sparseformers.data import UnreadableImageError, read_image
from sparseformers.data.places import find
from sparseformers.data.shard_files import SIDECAR, ShardFiles, parse_index, read_index, write_index
from sparseformers.data.shard_source import ShardSource
from sparseformers.data.shards import find_shards, scan
from sparseformers.errors import DataError
from tests.embedding.small import write_shard
from tests.refusals import refused


def written(tmp_path: Path, pictures: list[bytes]) -> list[str]:
    """Two shards of three images each."""
    members = list({f"{n}.jpg": picture for n, picture in enumerate(pictures)}.items())
    return [str(write_shard(tmp_path / f"{shard}.tar", members[3 * shard : 3 * shard + 3])) for shard in range(2)]


@pytest.fixture
def addresses(tmp_path: Path, pictures: list[bytes]) -> list[str]:
    return written(tmp_path, pictures)


def source(addresses: list[str], files: ShardFiles) -> ShardSource:
    return ShardSource(addresses, files, window=8)


def pixels_of(images: ShardSource) -> list[bytes]:
    return [images.read(index).tobytes() for index in range(len(images))]


class TestIndex:
    def test_names_and_places_are_those_of_the_archive(self, tmp_path: Path, pictures: list[bytes]) -> None:
        long = f"{'folder/' * 30}a.jpg"
        members = {"a.jpg": pictures[0], "a.txt": b"a caption", "b/c.PNG": pictures[1], long: pictures[2]}
        shard = write_shard(tmp_path / "s.tar", members)
        index = scan(shard)
        assert index.names == ("a.jpg", "b/c.PNG", long)
        whole = shard.read_bytes()
        for name, start, size in zip(index.names, index.starts, index.sizes, strict=True):
            assert whole[start : start + size] == members[name]
        assert (index.problems, index.bytes, len(index)) == ((), len(whole), 3)

    def test_samples_without_an_image_are_told_and_captions_are_not(self, tmp_path: Path, pictures: list[bytes]) -> None:
        # The last is of another key than a.
        others = ("a.txt", "a.json", "film.mp4", "film.txt", ".hidden", "__meta__.json", "b/a.txt")
        members = {"a.jpg": pictures[0], **dict.fromkeys(others, b"")}
        index = scan(write_shard(tmp_path / "s.tar", members))
        assert index.names == ("a.jpg",)
        assert index.problems == (("film.mp4", "not an image, by its name"), ("b/a.txt", "not an image, by its name"))

    def test_is_written_and_read_again(self, tmp_path: Path, pictures: list[bytes]) -> None:
        members = {"a.jpg": pictures[0], "../b.jpg": b"", "\udcff.jpg": pictures[1]}
        index = scan(write_shard(tmp_path / "s.tar", members))
        write_index(tmp_path / "index.json", index)
        again = read_index(tmp_path / "index.json")
        assert (again.digest, again.names, again.problems) == (index.digest, index.names, index.problems)

    def test_what_is_no_index_counts_as_none(self) -> None:
        members = ('["a.jpg",0,10]', '["a.jpg",-5,2]', '["a.jpg",1e300,2]', '["a.jpg",9223372036854775807,2]')
        wrong = [f'{{"format":1,"bytes":9,"members":[{member}],"problems":[]}}' for member in members]
        for text in ("", "[]", "null", '{"format":1}', '{"format":2,"bytes":9,"members":[],"problems":[]}', *wrong):
            assert parse_index(text) is None, text


class TestReading:
    def test_images_are_those_of_the_files(self, addresses: list[str], picture_files: list[Path], files: ShardFiles) -> None:
        images = source(addresses, files)
        assert [images.name(index) for index in (0, 3)] == [f"{addresses[0]}:0.jpg", f"{addresses[1]}:3.jpg"]
        expected = [read_image(path).tobytes() for path in picture_files]
        assert pixels_of(images) == expected
        assert pixels_of(pickle.loads(pickle.dumps(images))) == expected

    def test_limits_on_pixels_and_size(self, addresses: list[str], files: ShardFiles) -> None:
        images = ShardSource(addresses, files, window=1, most_pixels=72 * 96 - 1)
        with pytest.raises(UnreadableImageError, match="too large: 96 x 72 pixels"):
            images.read(0)
        assert source(addresses, files).read(0, at_least=20).size == (48, 36)

    def test_compressed_and_remote_shards_are_copied(self, tmp_path: Path, addresses: list[str], files: ShardFiles) -> None:
        expected = pixels_of(source(addresses, files))
        for address in addresses:
            Path(f"{address}.gz").write_bytes(gzip.compress(Path(address).read_bytes()))
        assert pixels_of(source([f"{address}.gz" for address in addresses], files)) == expected
        piped = source([f"pipe:cat {address}" for address in addresses], files)
        assert pixels_of(piped) == expected
        for address in addresses:
            Path(address).unlink()
        assert pixels_of(piped) == expected  # each was fetched once
        assert len(list((tmp_path / "cache").glob("*.tar"))) == 4

    def test_an_index_beside_a_shard_counts_as_long_as_it_fits(self, tmp_path: Path, pictures: list[bytes]) -> None:
        address, files = written(tmp_path, pictures)[0], ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=())
        write_index(Path(f"{address}{SIDECAR}"), scan(Path(address)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sparseformers.data.shard_files.scan", lambda _: pytest.fail("looked"))
            assert len(source([address], files)) == 3
        write_shard(Path(address), {"other.jpg": pictures[0], "other.txt": bytes(20_000)})  # of another size than the index says
        assert len(source([address], ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=()))) == 1
        # Something was added within the padding at its end.
        padded = write_shard(tmp_path / "padded.tar", {"a.jpg": pictures[0]})
        write_index(Path(f"{padded}{SIDECAR}"), scan(padded))
        size, earlier = padded.stat().st_size, padded.stat().st_mtime - 60
        os.utime(f"{padded}{SIDECAR}", (earlier, earlier))
        with tarfile.open(padded, "a") as archive:
            archive.addfile(tarfile.TarInfo("b.jpg"))
        assert padded.stat().st_size == size
        assert len(source([str(padded)], files)) == 2

    def test_a_shard_is_looked_at_once_wherever_it_lies(self, tmp_path: Path, pictures: list[bytes], files: ShardFiles) -> None:
        addresses = written(tmp_path, pictures)
        before = source(addresses, files).digest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sparseformers.data.shard_files.scan", lambda _: pytest.fail("looked again"))
            assert source(addresses, ShardFiles(tmp_path / "cache", most_bytes=2**30)).digest() == before
        (tmp_path / "moved").mkdir()
        assert source(written(tmp_path / "moved", pictures), files).digest() == before
        write_shard(Path(addresses[1]), {"3.jpg": pictures[3]})
        assert source(addresses, ShardFiles(tmp_path / "cache", most_bytes=2**30)).digest() != before

    def test_a_folder_of_shards(self, tmp_path: Path, addresses: list[str]) -> None:
        (tmp_path / ".hidden.tar").touch()
        assert list(map(str, find([tmp_path]).shards)) == addresses
        assert find_shards(f"file://{tmp_path}/{{0..1}}.tar") == addresses

    def test_webdatasets_own_shards(self, tmp_path: Path, picture_files: list[Path], files: ShardFiles) -> None:
        with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
            for number, path in enumerate(picture_files):
                writer.write({"__key__": f"{number:04}", "jpg": path.read_bytes(), "json": {"n": number}})
        images = source([str(tmp_path / "s.tar")], files)
        assert (len(images), images.faults()) == (6, [])
        assert images.read(5).tobytes() == read_image(picture_files[5]).tobytes()


class TestFaults:
    def test_a_damaged_shard_lacks_what_others_have(self, tmp_path: Path, pictures: list[bytes], files: ShardFiles) -> None:
        write_shard(tmp_path / "2.tar", {"2.jpg": pictures[0], "../up.jpg": b"", "3.jpg": pictures[1], "4.jpg": pictures[2]})
        (tmp_path / "3.tar").write_bytes(b"no archive" * 200)
        images = source([*written(tmp_path, pictures), f"{tmp_path}/2.tar", f"{tmp_path}/3.tar"], files)
        assert images.faults() == [
            (f"{tmp_path}/2.tar:../up.jpg", "its name points out of the shard"),
            (f"{tmp_path}/3.tar", "not a tar file, or damaged from the beginning"),
        ]
        assert images.missing() == 1 + 3

    def test_a_compressed_shard_breaks_off_or_is_too_large(self, tmp_path: Path, addresses: list[str], files: ShardFiles) -> None:
        packed = gzip.compress(Path(addresses[0]).read_bytes())
        (tmp_path / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
        images = source([str(tmp_path / "cut.tar.gz")], files)
        assert 1 <= len(images) < 3
        assert images.faults()[-1] == (f"{tmp_path}/cut.tar.gz", f"cut short, or damaged, after {len(images) + 1} images")
        (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(3 * 2**20)))
        with pytest.raises(DataError, match=r"bomb.tar.gz' has more than .* Raise --shard-cache-gb"):
            source([str(tmp_path / "bomb.tar.gz")], ShardFiles(tmp_path / "small", most_bytes=2**20, waits=()))
        assert not list((tmp_path / "small").rglob("*.part"))


class TestUnreachable:
    def test_a_shard_that_is_removed_or_exchanged(self, tmp_path: Path, pictures: list[bytes], files: ShardFiles) -> None:
        images = source(written(tmp_path, pictures), files)
        (tmp_path / "0.tar").unlink()
        with pytest.raises(DataError, match=r"The shard '.*0\.tar' cannot be read \(No such file or directory\)\."):
            images.read(0)
        images = source(written(tmp_path, pictures), ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=()))
        write_shard(tmp_path / "0.tar", {"x.jpg": pictures[0]})
        with pytest.raises(DataError, match=r"0\.tar' was changed after the start"):
            pickle.loads(pickle.dumps(images)).read(0)  # as a worker does, which remembers nothing

    def test_is_tried_again_before_it_counts_as_lost(self, tmp_path: Path, addresses: list[str]) -> None:
        tries = tmp_path / "tries"
        command = f"pipe:echo >> {tries}; test $(wc -l < {tries}) -gt 2 && cat {addresses[0]}"
        assert len(source([command], ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=(0, 0)))) == 3
        assert tries.read_text() == "\n" * 3
        tries.unlink()
        with pytest.raises(DataError, match=r"cannot be read \(fetching it ended with code 1\)"):
            source([f"{command} "], ShardFiles(tmp_path / "cache", most_bytes=2**30, waits=(0,)))
        assert tries.read_text() == "\n" * 2

    def test_one_that_breaks_off_while_it_is_fetched(self, tmp_path: Path, addresses: list[str], files: ShardFiles) -> None:
        with pytest.raises(DataError, match="fetching it ended with code 3"):
            source([f"pipe:head -c 20000 {addresses[0]}; exit 3"], files)
        assert {path.name for path in (tmp_path / "cache").iterdir()} == {"locks"}

    def test_a_command_that_is_not_installed(self, files: ShardFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        for address, command in (("s3://bucket/a.tar", "aws"), ("gs://bucket/a.tar", "gsutil"), ("https://host/a.tar", "curl")):
            with pytest.raises(DataError, match=f"'{address}.*without the command '{command}', which is not installed") as caught:
                source([address], files)
            assert "fetch the shards" in caught.value.remedy

    @pytest.mark.usefixtures("addresses")
    def test_s3_is_read_by_its_command_line(self, tmp_path: Path, files: ShardFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        command = tmp_path / "aws"
        command.write_text(f'#!/bin/sh\ntest "$1 $2 $4" = "s3 cp -" && cat {tmp_path}/"${{3#s3://}}" 2>&-\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        assert len(source(["s3://0.tar", "s3://1.tar"], files)) == 6

    def test_copies_are_kept_within_their_bound(self, tmp_path: Path, pictures: list[bytes]) -> None:
        members = [{f"{n}.jpg": picture, f"{n}.txt": bytes(20_000)} for n, picture in enumerate(pictures)]
        addresses = [str(write_shard(tmp_path / f"{n}.tar", each)) for n, each in enumerate(members)]
        size = Path(addresses[0]).stat().st_size
        files = ShardFiles(tmp_path / "cache", most_bytes=3 * size, waits=())
        images = ShardSource([f"pipe:cat {address}" for address in addresses], files, window=1)
        assert [images.files.read(shard.address, 0, size) for shard in images.shards] == [
            Path(address).read_bytes() for address in addresses
        ]
        assert len(list((tmp_path / "cache").glob("*.tar"))) <= 3
        with refused(DataError, "Copies of up to 4 shards are needed at a time", "--shuffle-shards"):
            ShardSource([f"pipe:cat {address}" for address in addresses], files, window=2)
