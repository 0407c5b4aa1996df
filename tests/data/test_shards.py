import gzip
import importlib.util
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from sparseformers.data import UnreadableImageError, read_image, shards
from sparseformers.data.images import decode
from sparseformers.data.shards import expand_shards, is_shards, shard_members
from sparseformers.errors import ConfigError, DataError, MissingExtraError
from tests.embedding.small import giant_png, write_shard
from tests.refusals import refused


def told(shard: Path | str) -> list[tuple[str, str | None]]:
    """Each member with its problem, that of reading it included."""
    found = []
    for member in shard_members(str(shard)):
        problem = member.problem
        if problem is None:
            try:
                decode(BytesIO(member.read()), Path(member.name))
            except UnreadableImageError as error:
                problem = error.reason
        found.append((member.name, problem))
    return found


class TestPatterns:
    def test_braces_are_expanded_in_order(self, tmp_path: Path) -> None:
        for number in range(8, 12):
            write_shard(tmp_path / f"{number:05}.tar", {})
        for pattern, numbers in (("{00008..00011}", range(8, 12)), ("{00011,00009}", (11, 9))):
            assert expand_shards(f"{tmp_path}/{pattern}.tar") == [f"{tmp_path}/{number:05}.tar" for number in numbers]
        assert expand_shards("https://host/{0..1}.tar") == ["https://host/0.tar", "https://host/1.tar"]
        shard = write_shard(tmp_path / "{a,b}.tar", {})  # a file whose name has braces
        assert expand_shards(str(shard)) == [str(shard)]

    def test_missing_shards_are_counted_and_named(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "0.tar", {})
        named = ", ".join(f"'{tmp_path}/{number}.tar'" for number in (1, 2, 3))
        problem = f"Of the 6 shards '{tmp_path}/{{0..5}}.tar', 5 are missing: {named} and 2 more."
        with refused(DataError, problem, "Did you mean '0.tar'? Fetch what is missing, or narrow the pattern."):
            expand_shards(f"{tmp_path}/{{0..5}}.tar")
        with pytest.raises(DataError, match=r"The shard '.*nowhere/0\.tar' is missing\. Fetch what is missing"):
            expand_shards(f"{tmp_path}/nowhere/0.tar")
        with pytest.raises(ConfigError, match=r"cannot be expanded .*\. Write 'shards/\{00000\.\.00127\}\.tar', for example\."):
            expand_shards("shards/{0..2.tar")

    def test_what_counts_as_shards(self, tmp_path: Path) -> None:
        (tmp_path / "folder.tar").mkdir()
        assert not is_shards(str(tmp_path / "folder.tar"))
        assert not is_shards("photos")
        for data in ("a.tar", "{0..9}.tar", "a.tar.gz", "https://host/a", "pipe:cat a"):
            assert is_shards(data), data

    def test_without_webdataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match=r"'webdataset' is not installed\. .*sparseformers\[shards\]"):
            expand_shards(f"{tmp_path}/{{0..5}}.tar")


class TestMembers:
    def test_images_come_in_order_and_the_rest_is_passed_over(self, tmp_path: Path, pictures: list[bytes]) -> None:
        members = {"b.jpg": pictures[0], "b.json": b"{}", "./a/c.JPEG": pictures[1], ".hidden.jpg": b"", "a.cls": b"3"}
        shard = write_shard(tmp_path / "s.tar", members)
        assert told(shard) == [("b.jpg", None), ("a/c.JPEG", None)]
        content = {member.name: member.read() for member in shard_members(str(shard))}
        assert content == {"b.jpg": pictures[0], "a/c.JPEG": pictures[1]}
        (tmp_path / "s.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
        assert told(tmp_path / "s.tar.gz") == told(shard)

    def test_bad_members_are_told(self, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shards, "MOST_BYTES", 2**20)
        members = [
            ("text.jpg", b"no picture"),
            ("empty.png", b""),
            ("cut.jpg", pictures[0][:700]),
            ("giant.png", giant_png()),
            ("../up.jpg", pictures[0]),
            ("/etc/root.jpg", pictures[0]),
            ("a\\..\\b.jpg", pictures[0]),
            ("twice.jpg", pictures[1]),
            ("twice.jpg", pictures[2]),
            ("huge.png", b"\0" * (2**20 + 1)),
            ("good.jpg", pictures[3]),
        ]
        before = sorted(tmp_path.rglob("*"))
        shard = write_shard(tmp_path / "s.tar", members)
        found = told(shard)
        assert [name for name, _ in found] == [name for name, _ in members]
        first, second, truncated, *others = [problem for _, problem in found]
        assert [first, second] == ["not an image of a known format", "the file is empty"]
        assert "truncated" in truncated
        outside, large = ["its name points out of the shard"] * 3, "too large: 13000 x 13000 pixels, at most 150 million"
        assert others == [large, *outside, None, "another member has the same name", "too large: 1 MiB, at most 1", None]
        assert sorted(tmp_path.rglob("*")) == [*before, shard]


class TestDamagedShards:
    """What lies before the damage is read, and the damage is told; nothing ends without a word."""

    @pytest.fixture
    def whole(self, tmp_path: Path, pictures: list[bytes]) -> bytes:
        return write_shard(tmp_path / "whole.tar", {f"{n}.jpg": picture for n, picture in enumerate(pictures[:4])}).read_bytes()

    def offsets(self, whole: bytes) -> list[int]:
        with tarfile.open(fileobj=BytesIO(whole)) as archive:
            return [info.offset for info in archive]

    def test_cut_short_inside_of_an_image_between_images_or_with_a_damaged_header(self, tmp_path: Path, whole: bytes) -> None:
        (tmp_path / "s.tar").write_bytes(whole[: self.offsets(whole)[2] + 1000])
        damaged = [("2.jpg", "cut short, or damaged"), ("", "cut short, or damaged, after 3 images")]
        assert told(tmp_path / "s.tar") == [("0.jpg", None), ("1.jpg", None), *damaged]
        second = self.offsets(whole)[1]
        for content in (whole[:second], whole[: second + 100], whole[:second] + b"x" * 512 + whole[second + 512 :]):
            (tmp_path / "s.tar").write_bytes(content)
            assert told(tmp_path / "s.tar") == [("0.jpg", None), ("", "cut short, or damaged, after 1 image")]

    def test_a_compressed_one_that_is_cut_short_and_no_archive_at_all(self, tmp_path: Path, whole: bytes) -> None:
        compressed = gzip.compress(whole)
        (tmp_path / "s.tar.gz").write_bytes(compressed[: len(compressed) // 2])
        first, *_, (name, problem) = told(tmp_path / "s.tar.gz")
        assert (first, name) == (("0.jpg", None), "")
        assert "cut short, or damaged, after" in str(problem)
        for content in (b"", b"no archive" * 100):
            (tmp_path / "s.tar").write_bytes(content)
            assert told(tmp_path / "s.tar") == [("", "not a tar file, or damaged from the beginning")]

    def test_passing_over_images_finds_the_same(self, tmp_path: Path, whole: bytes) -> None:
        """Workers that do not read an image count as those that do."""
        for end in range(0, len(whole), 997):
            (tmp_path / "s.tar").write_bytes(whole[:end])
            passed = [member.name for member in shard_members(str(tmp_path / "s.tar"))]
            assert passed == [name for name, _ in told(tmp_path / "s.tar")], end


class TestAddresses:
    def test_one_that_fails_or_breaks_off_is_no_damaged_shard(self, tmp_path: Path, pictures: list[bytes]) -> None:
        shard = write_shard(tmp_path / "s.tar", {f"{n}.jpg": picture for n, picture in enumerate(pictures)})
        assert told(f"pipe:cat {shard}") == told(shard)
        with pytest.raises(DataError, match=r"The shard 'pipe:cat .*nowhere\.tar.* cannot be read .* start again\."):
            told(f"pipe:cat {tmp_path}/nowhere.tar 2>&-")
        with pytest.raises(DataError, match=r"cannot be read \(fetching it ended with code 1\)\."):
            told(f"pipe:head -c 4000 {shard}; exit 1")
        with pytest.raises(ConfigError, match=r"The address 'gopher://host/a\.tar' cannot be opened .* Use https://"):
            told("gopher://host/a.tar")


def test_a_member_is_decoded_as_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.effect_noise((300, 200), 40).convert("RGB").save(path, exif=exif)
    for at_least in (None, 64):
        one, other = decode(BytesIO(path.read_bytes()), path, at_least=at_least), read_image(path, at_least=at_least)
        assert one.size == other.size
        assert one.tobytes() == other.tobytes()
