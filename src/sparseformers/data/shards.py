"""Tar shards in the format of WebDataset: the shards of a pattern, and their images one after the other.

Patterns are expanded and addresses opened by the webdataset library. The members are read by the standard library's tarfile,
because webdataset's own iterator reads a member whole whatever its size, and ends without a word at a damaged header.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import lzma
import posixpath
import re
import shlex
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import Image

from sparseformers.data.images import MOST_PIXELS, UnreadableImageError, decode, is_image_name
from sparseformers.errors import ConfigError, DataError, MissingExtraError, shorten, suggest

SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")
MOST_BYTES = 512 * 2**20
"""Larger members are not read: an archive can announce, and a compressed one can hold, more than the memory."""

NO_IMAGE = "not an image, by its name"
"""The problem of a member that is something else."""

_DAMAGES = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True)
class ShardMember:
    """An image in a shard, or something that keeps the shard's images from being read."""

    name: str
    """Its path in the shard, without a leading ``./``; empty where the shard itself is damaged."""
    problem: str | None
    """The reason why it is not to be read; None for one that can be tried."""
    offset: int
    """Bytes of the (unpacked) shard before its header."""
    start: int
    """Bytes of the (unpacked) shard before its content."""
    size: int
    read: Callable[[], bytes]
    """Its content, to be had before the next member is asked for.

    Raises:
        UnreadableImageError: if it is cut short.
        DataError: if the shard cannot be reached any more.
    """


def is_shards(data: str) -> bool:
    """Whether ``data`` means shards: a pattern or name of tar files, or an address; what is there as a folder does not."""
    return not Path(data).is_dir() and ("://" in data or data.startswith("pipe:") or data.endswith(SHARD_ENDINGS))


def is_local(shard: str) -> bool:
    """Whether a shard is a file on this machine, and not an address."""
    return "://" not in shard and not shard.startswith("pipe:")


def expand_shards(pattern: str) -> list[str]:
    """The shards of a brace pattern such as ``shards/{00000..00127}.tar``, in its order.

    Args:
        pattern: of files, or of addresses that webdataset can open (``https://``, ``gs://``, ``pipe:COMMAND`` ...).

    Raises:
        ConfigError: if the pattern cannot be understood.
        DataError: if one of the files is missing.
        MissingExtraError: if webdataset is not installed.
    """
    if Path(pattern).is_file():
        return [pattern]
    _require_webdataset()
    from webdataset.shardlists import expand_urls

    try:
        shards: list[str] = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise ConfigError(
            f"The pattern '{pattern}' cannot be expanded ({error}).", "Write 'shards/{00000..00127}.tar', for example."
        ) from None
    missing = [shard for shard in shards if is_local(shard) and not Path(shard).is_file()]
    if missing:
        places = shorten((f"'{shard}'" for shard in missing), limit=3)
        raise DataError(_are_missing(pattern, places, len(missing), len(shards)), _how_to_find(missing[0]))
    return shards


def _are_missing(pattern: str, places: str, missing: int, shards: int) -> str:
    if shards == 1:
        return f"The shard {places} is missing."
    return f"Of the {shards} shards '{pattern}', {missing} {'is' if missing == 1 else 'are'} missing: {places}."


def _how_to_find(shard: str) -> str:
    folder = Path(shard).parent
    siblings = [path.name for path in folder.iterdir() if path.name.endswith(SHARD_ENDINGS)] if folder.is_dir() else []
    return f"{suggest(Path(shard).name, siblings)} Fetch what is missing, or narrow the pattern.".strip()


def shard_members(shard: str, *, others: bool = False) -> Iterator[ShardMember]:
    """The images of a shard in their order, those not to be read among them; other members are passed over.

    Nothing is ever written: names are names, whatever they point to.

    Args:
        shard: a file, or an address.
        others: whether to give the other files too, with the problem ``NO_IMAGE``; hidden ones never.

    Raises:
        DataError: if the shard cannot be opened, or breaks off because its address does. A damaged archive is no error: its
            damage is the last of the members.
    """
    damage, members = None, 0
    try:
        file = opened(shard)
        try:
            for member in _members(file, shard, others):
                yield member
                members += member.problem != NO_IMAGE
        except _DAMAGES as error:
            damage = _damage(error, members)
        except GeneratorExit:  # nobody wants to know any more how it ends
            with contextlib.suppress(OSError):
                file.close()
            raise
        file.close()  # before the damage is told: an address may say only here that it broke off
    except OSError as error:
        raise unreachable(shard, error) from error
    if damage is not None:
        yield ShardMember("", damage, 0, 0, 0, bytes)


def opened(shard: str) -> IO[bytes]:
    """A file or an address to read from.

    Raises:
        OSError: if it cannot be opened; an address may say so only when it is read from, or closed.
        ConfigError: for an address of a kind that nothing opens.
        DataError: if the command that reads such addresses is not installed.
    """
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
    """The address of a shard as webdataset opens it; tells what to do where it cannot, as :func:`opened` does."""
    _require_webdataset()
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
        raise DataError(
            f"The shard '{shard}' cannot be read without the command '{command}', which is not installed.",
            "Install it, or fetch the shards to this machine first.",
        )


def unreachable(shard: str, error: OSError) -> DataError:
    """The error for a shard that cannot be read, or not to its end."""
    code = re.search(r"exit (\d+)", str(error))  # of the command that webdataset fetches it with
    reason = error.strerror or (f"fetching it ended with code {code[1]}" if code else str(error))
    return DataError(f"The shard '{shard}' cannot be read ({reason}).", "See to it that it can be, then start again.")


def _members(file: IO[bytes], shard: str, others: bool) -> Iterator[ShardMember]:
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="r:*" if is_local(shard) else "r|*", tarinfo=_StrictTarInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
            name = info.name.removeprefix("./")
            base = posixpath.basename(name)
            is_image = is_image_name(base)
            if info.isdir() or not (is_image or (others and not base.startswith("."))):
                continue
            problem = _problem(info, name, seen) if is_image else NO_IMAGE
            yield ShardMember(name, problem, info.offset, info.offset_data, info.size, _reader(archive, info, shard))
            seen.add(name)


def _problem(info: tarfile.TarInfo, name: str, seen: set[str]) -> str | None:
    """The reason against reading a member that its header gives."""
    if not info.isreg() or info.issparse():
        return "a link or device, not a file"
    if name.startswith("/") or ".." in re.split(r"[/\\]", name):
        return "its name points out of the shard"
    if name in seen:
        return "another member has the same name"
    if info.size > MOST_BYTES:
        return f"too large: {info.size / 2**20:,.0f} MiB, at most {MOST_BYTES / 2**20:,.0f}"
    return None


def _reader(archive: tarfile.TarFile, info: tarfile.TarInfo, shard: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            file = archive.extractfile(info)
            return b"" if file is None else file.read()
        except _DAMAGES as error:
            raise UnreadableImageError(Path(info.name), "cut short, or damaged") from error
        except OSError as error:
            raise unreachable(shard, error) from error

    return read


class _StrictTarInfo(tarfile.TarInfo):
    """Raises where tarfile would take a damaged header, or a missing end, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            ended = type(error).__name__ == "EOFHeaderError"
            if ended or tarfile_.offset == 0:
                raise
            raise tarfile.ReadError(str(error)) from error


def _damage(error: BaseException, members: int) -> str:
    if members == 0 and isinstance(error, tarfile.ReadError):
        return "not a tar file, or damaged from the beginning"
    return f"cut short, or damaged, after {members:,} image{'' if members == 1 else 's'}"


def decode_member(content: bytes, path: Path, *, at_least: int | None = None, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decodes an image in memory, as :func:`~sparseformers.data.read_image` does a file; ``path`` names it in errors."""
    return decode(BytesIO(content), path, at_least=at_least, most_pixels=most_pixels)


def _require_webdataset() -> None:
    if importlib.util.find_spec("webdataset") is None:  # not imported here: it takes its time
        raise MissingExtraError.for_package("webdataset", "shards")
