"""Tar shards in the format of WebDataset: the shards of a pattern, and their images one after the other.

The webdataset library expands patterns and opens addresses. The standard library's tarfile reads the members: webdataset's own
iterator reads a member whole whatever its size, and ends without a word at a damaged header.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import posixpath
import re
import shlex
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np

from sparseformers.data.images import UnreadableImageError
from sparseformers.data.places import SHARD_ENDINGS, is_image_name
from sparseformers.errors import ConfigError, DataError, MissingExtraError, shorten, suggest

MOST_BYTES = 512 * 2**20  # of a member: an archive can announce, and a compressed one can hold, more than the memory
NO_IMAGE = "not an image, by its name"  # the problem of a member that is something else
FORMAT = 1  # of an index; a change to what it holds raises it
CUT_SHORT = "cut short, or damaged"  # the problem of an image that the end of its shard is in the middle of
_DAMAGES = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True)
class ShardMember:
    """An image in a shard, or damage of the shard itself."""

    name: str  # its path in the shard, without a leading ``./``; empty for damage of the shard itself
    problem: str | None  # the reason why it cannot be read; None for one that can be tried
    start: int  # bytes of the unpacked shard before its content
    size: int
    read: Callable[[], bytes]
    """Its content, only before the next member is asked for; raises UnreadableImageError if cut short, DataError if gone."""


def is_shards(data: str) -> bool:
    """Whether ``data`` means shards: a pattern or name of tar files, or an address, but not a folder that is there."""
    return not Path(data).is_dir() and ("://" in data or data.startswith("pipe:") or data.endswith(SHARD_ENDINGS))


def is_local(shard: str) -> bool:
    """Whether a shard is a file on this machine, and not an address."""
    return "://" not in shard and not shard.startswith("pipe:")


def find_shards(data: str) -> list[str]:
    """The shards of a pattern or an address; files by absolute paths. Raises as :func:`expand_shards`."""
    shards = expand_shards(url2pathname(urlparse(data).path) if data.startswith("file://") else data)
    return [str(Path(shard).absolute()) if is_local(shard) else shard for shard in shards]


def expand_shards(pattern: str) -> list[str]:
    """The files or addresses of a brace pattern, in its order; ConfigError for no pattern, DataError if a file is missing."""
    if Path(pattern).is_file():
        return [pattern]
    MissingExtraError.require("webdataset", "shards")
    from webdataset.shardlists import expand_urls

    try:
        shards: list[str] = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        problem = f"The pattern '{pattern}' cannot be expanded ({error})."
        raise ConfigError(problem, "Write 'shards/{00000..00127}.tar', for example.") from None
    if missing := [shard for shard in shards if is_local(shard) and not Path(shard).is_file()]:
        places, are = shorten((f"'{shard}'" for shard in missing), limit=3), "is" if len(missing) == 1 else "are"
        of_all = f"Of the {len(shards)} shards '{pattern}', {len(missing)} {are} missing: {places}."
        problem = f"The shard {places} is missing." if len(shards) == 1 else of_all
        folder = Path(missing[0]).parent
        siblings = [path.name for path in folder.iterdir() if path.name.endswith(SHARD_ENDINGS)] if folder.is_dir() else []
        near = suggest(Path(missing[0]).name, siblings)
        raise DataError(problem, f"{near} Fetch what is missing, or narrow the pattern.".strip())
    return shards


def shard_members(shard: str, *, others: bool = False) -> Iterator[ShardMember]:
    """The images of a shard in their order, those with a problem included; damage of the archive is the last member.

    With ``others``, files that are no images come, too, with the problem ``NO_IMAGE``; hidden ones never. Raises DataError if the
    shard cannot be opened, or its address breaks off.
    """
    damage, members = None, 0
    try:
        file = opened(shard)
        try:
            for member in _members(file, shard, others):
                yield member
                members += member.problem != NO_IMAGE
        except _DAMAGES as error:
            damage = f"{CUT_SHORT}, after {members:,} image{'' if members == 1 else 's'}"
            if members == 0 and isinstance(error, tarfile.ReadError):
                damage = "not a tar file, or damaged from the beginning"
        except GeneratorExit:  # nobody wants to know any more how it ends
            with contextlib.suppress(OSError):
                file.close()
            raise
        file.close()  # before the damage is told: an address may say only here that it broke off
    except OSError as error:
        raise unreachable(shard, error) from error
    if damage is not None:
        yield ShardMember("", damage, 0, 0, bytes)


def opened(shard: str) -> IO[bytes]:
    """A file or address, opened to be read (OSError may come only then, or on closing); raises ConfigError or DataError."""
    if is_local(shard):
        return Path(shard).open("rb")
    with _address(shard) as address:
        from webdataset.gopen import gopen

        stream: IO[bytes] = gopen(address, "rb")
    return stream


def fetch(shard: str, path: Path) -> None:
    """Fetches a shard from its address into a file; raises as :func:`opened` does, and OSError if the file cannot be written."""
    with _address(shard) as address:
        from webdataset.cache import download

        download(address, str(path))


@contextmanager
def _address(shard: str) -> Iterator[str]:
    """The address of a shard as webdataset opens it; errors of opening it become those of :func:`opened`."""
    MissingExtraError.require("webdataset", "shards")
    address = shard
    if shard.startswith("s3://"):  # the one of the usual kinds that webdataset leaves to a pipe
        _require_command("aws", shard)
        address = f"pipe:aws s3 cp {shlex.quote(shard)} -"
    try:
        yield address
    except ValueError as error:
        raise ConfigError(f"The address '{shard}' cannot be opened ({error}).", "Use https:// or pipe:COMMAND.") from None
    except FileNotFoundError as error:
        if "/" not in str(error.filename):  # not a file, but the command that fetches
            _require_command(str(error.filename), shard)
        raise


def _require_command(command: str, shard: str) -> None:
    if shutil.which(command) is None:
        problem = f"The shard '{shard}' cannot be read without the command '{command}', which is not installed."
        raise DataError(problem, "Install it, or fetch the shards to this machine first.")


def unreachable(shard: str, error: OSError) -> DataError:
    """The error for a shard that cannot be read, or not to its end."""
    code = re.search(r"exit (\d+)", str(error))  # of the command that webdataset fetches it with
    reason = error.strerror or (f"fetching it ended with code {code[1]}" if code else str(error))
    return DataError(f"The shard '{shard}' cannot be read ({reason}).", "See to it that it can be, then start again.")


def _members(file: IO[bytes], shard: str, others: bool) -> Iterator[ShardMember]:
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="r:*" if is_local(shard) else "r|*", tarinfo=_StrictTarInfo) as archive:
        while (info := _next(archive)) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
            name = info.name.removeprefix("./")
            base = posixpath.basename(name)
            is_image = is_image_name(base)
            if info.isdir() or not (is_image or (others and not base.startswith("."))):
                continue
            problem = _problem(info, name, seen) if is_image else NO_IMAGE
            yield ShardMember(name, problem, info.offset_data, info.size, partial(_content, archive, info, shard))
            seen.add(name)


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next header; where there is none at all, Python 3.10 looks for one before the beginning."""
    try:
        return archive.next()
    except OSError as error:
        if error.errno == errno.EINVAL and archive.offset == 0:
            return None
        raise


def _problem(info: tarfile.TarInfo, name: str, seen: set[str]) -> str | None:
    if not info.isreg() or info.issparse():
        return "a link or device, not a file"
    if name.startswith("/") or ".." in re.split(r"[/\\]", name):
        return "its name points out of the shard"
    if name in seen:
        return "another member has the same name"
    if info.size > MOST_BYTES:
        return f"too large: {info.size / 2**20:,.0f} MiB, at most {MOST_BYTES / 2**20:,.0f}"
    return None


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo, shard: str) -> bytes:
    try:
        file = archive.extractfile(info)
        return b"" if file is None else file.read()
    except _DAMAGES as error:
        raise UnreadableImageError(Path(info.name), CUT_SHORT) from error
    except OSError as error:
        raise unreachable(shard, error) from error


class _StrictTarInfo(tarfile.TarInfo):
    """Raises an error for a damaged header, or a missing end, which tarfile would take for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError" or tarfile_.offset == 0:
                raise
            raise tarfile.ReadError(str(error)) from error


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The images of a shard in their order, and its problems."""

    names: tuple[str, ...]  # paths in the shard
    starts: np.ndarray  # bytes of the unpacked shard before the content of each, int64
    sizes: np.ndarray  # bytes of each, int64
    problems: tuple[tuple[str, str], ...]  # (path, reason) of the other members; no path for damage of the shard itself
    bytes: int  # of the unpacked shard

    @classmethod
    def of(cls, members: Sequence[tuple[str, int, int]], problems: Iterable[tuple[str, str]], size: int) -> ShardIndex:
        """The index of members (name, start, size); raises ValueError, TypeError or OverflowError for anything else."""
        names = tuple(str(name) for name, _, _ in members)
        starts, sizes = (np.array([member[place] for member in members], dtype=np.int64) for place in (1, 2))
        return cls(names, starts, sizes, tuple((str(name), str(reason)) for name, reason in problems), size)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_damaged(self) -> bool:
        """Whether an unknown number of images is missing."""
        return any(not name for name, _ in self.problems)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, places and sizes, 32 hexadecimal digits of it."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:32]

    def text(self) -> str:
        members = zip(self.names, self.starts.tolist(), self.sizes.tolist(), strict=True)
        content = {"format": FORMAT, "bytes": self.bytes, "members": list(members), "problems": self.problems}
        return json.dumps(content, separators=(",", ":"))


def scan(tar: Path) -> ShardIndex:
    """Makes the index of an uncompressed tar file from its headers; raises DataError if it cannot be read."""
    size = tar.stat().st_size
    good, problems = list[ShardMember](), list[tuple[str, str]]()
    images, others = set[str](), dict[str, str]()  # keys; of the others with a name
    for member in shard_members(str(tar), others=True):
        folder, base = posixpath.split(member.name)
        key = posixpath.join(folder, base.partition(".")[0])
        if member.problem == NO_IMAGE:
            others.setdefault(key, member.name)
            continue
        images.add(key)
        if problem := member.problem or (CUT_SHORT if member.start + member.size > size else None):
            problems.append((member.name, problem))
        else:
            good.append(member)
    # webdataset takes __meta__.json for a remark on the shard and not for a sample.
    remarks = {key for key in others if (base := posixpath.basename(key)).startswith("__") and base.endswith("__")}
    problems += [(name, NO_IMAGE) for key, name in others.items() if key not in images | remarks]
    return ShardIndex.of([(member.name, member.start, member.size) for member in good], problems, size)
