import gc
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sparseformers.embedding import embed
from sparseformers.embedding.inputs import find_inputs
from tests.embedding.small import settings, student, write_shard

FEW, MANY = 30, 240
TOKENS = 24
ROW = 4 * 32 * (1 + 1 + TOKENS)
"""Bytes of a row: embedding, class token and latent tokens."""


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy hold at once while working, beside what they held before."""
    gc.collect()
    gc.freeze()  # else a process that holds much is slow to collect what is garbage, and it counts as held
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def picture() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(content, "PNG")
    return content.getvalue()


def copies(folder: Path, count: int, content: bytes) -> str:
    """Folders of thirty files each with this content."""
    for number in range(count):
        place = folder / f"{number // 30:04}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06}.png").write_bytes(content)
    return str(folder)


def growth(data: dict[int, str], folder: Path, name: str) -> float:
    """How much more memory many images take than few."""
    model = student(tokens=TOKENS)

    def work(count: int, run: str) -> Callable[[], object]:
        config = settings(data[count], batch_size=5, part_images=15, tokens=True)
        return lambda: embed(config, folder / run / str(count) / name, model=model)

    work(FEW, "warm")()  # what Python keeps for later use is there then
    few, many = (peak(work(count, "measured")) for count in (FEW, MANY))
    return many - few


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", ["index.npy", pytest.param("index.parquet", marks=SLOW), pytest.param("index", marks=SLOW)])
def test_embedding_many_times_as_many_images__takes_no_more_memory(tmp_path: Path, name: str) -> None:
    data = {count: copies(tmp_path / f"photos{count}", count, picture()) for count in (FEW, MANY)}
    assert growth(data, tmp_path, name) < (MANY - FEW) * ROW / 3


@pytest.mark.slow
def test_a_shard_of_many_times_as_many_images__takes_no_more_memory(tmp_path: Path) -> None:
    content = picture()
    data = {n: str(write_shard(tmp_path / f"{n}.tar", {f"{i:06}.png": content for i in range(n)})) for n in (FEW, MANY)}
    assert growth(data, tmp_path, "index.npy") < (MANY - FEW) * ROW / 3


def test_listing_ten_times_as_many_images__takes_no_more_memory(tmp_path: Path) -> None:
    data = {count: copies(tmp_path / f"photos{count}", count, b"") for count in (100, 1000)}
    assert find_inputs([data[1000]], tmp_path / "first.sqlite").images == 1000  # what is imported and kept is there then
    few, many = (peak(lambda count=count: find_inputs([data[count]], tmp_path / f"{count}.sqlite")) for count in data)  # type: ignore[misc]
    assert many < few + 900 * 50
