"""Stops at any moment, and going on after them."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseformers
from sparseformers.embedding import EmbedConfig, embed, parts, run
from sparseformers.errors import RunError
from tests.embedding.small import OUTPUTS, contents, files_of, settings, student, write_shard
from tests.refusals import refused
from tests.tiny import write_images

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"}
"""What Python tells of before it changes something on the disk."""


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """A folder and a shard, each with something unreadable."""
    write_images(tmp_path / "photos", 7)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"nothing")
    more = contents(write_images(tmp_path / "more", 5, seed=1))
    return tmp_path / "photos", write_shard(tmp_path / "shard.tar", {**more, "photograph_001b.jpg": b"nothing"})


def run_until(config: EmbedConfig, out: Path, stop: int | None, **options: Any) -> int:
    """Embeds in another process, which kills itself before the change to the disk number ``stop``; gives its exit code."""

    def child() -> None:
        changes = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal changes
            if event in CHANGES and str(out.parent) in str(arguments[0]):
                if changes == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                changes += 1

        sys.addaudithook(count)
        torch.set_num_threads(1)
        embed(config, out, model=student(), **options)
        os._exit(changes if stop is None else 0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode or 0


def finish(config: EmbedConfig, out: Path) -> None:
    """Gives the same command again; it may have come to its end before the stop."""
    complete = out.exists() and not (out.with_name(f"{out.name}.partial") / "manifest.json").exists()
    with pytest.raises(RunError, match="is there already") if complete else nullcontext():
        embed(config, out, model=student())
    assert not list(out.parent.glob("*.partial"))


def killed_and_resumed(config: EmbedConfig, folder: Path, name: str, stops: Callable[[int], list[int]]) -> None:
    """Compares the files of embeddings that were stopped at these changes with those of one that was not."""
    changes = run_until(config, folder / "whole" / name, None)
    assert changes > 20
    for stop in stops(changes):
        out = folder / f"killed{stop}" / name
        assert run_until(config, out, stop) == -signal.SIGKILL
        finish(config, out)
        assert files_of(out) == files_of(folder / "whole" / name), (name, stop)


@pytest.mark.parametrize("name", OUTPUTS)
def test_killed_at_some_changes_of_the_disk__and_resumed(tmp_path: Path, data: tuple[Path, Path], name: str) -> None:
    draw = random.Random(name)
    killed_and_resumed(settings(*data), tmp_path, name, lambda changes: draw.sample(range(changes), 2))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(3))
def test_killed_at_each_third_change_of_the_disk__and_resumed(tmp_path: Path, data: tuple[Path, Path], first: int) -> None:
    everything = settings(*data, tokens=True, rois=True)
    killed_and_resumed(everything, tmp_path, OUTPUTS[first], lambda changes: list(range(first, changes, 3)))


def test_killed_many_times_over__and_resumed_gives_the_same_bytes(tmp_path: Path, data: tuple[Path, Path]) -> None:
    config, draw, stops = settings(*data), random.Random(0), 0
    run_until(config, tmp_path / "whole" / "index.npy", None)
    out = tmp_path / "killed" / "index.npy"
    while run_until(config, out, draw.randrange(20, 60)) == -signal.SIGKILL:
        stops += 1
        assert stops < 30, "it does not get on"
    assert stops >= 2
    assert files_of(out) == files_of(tmp_path / "whole" / "index.npy")


@pytest.mark.slow
def test_the_command_killed_at_random_moments__with_workers(tmp_path: Path) -> None:
    name, draw = "index.parquet", random.Random(0)
    sparseformers.save(student(), tmp_path / "model.safetensors")
    write_images(tmp_path / "photos", 150)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"nothing")

    def started(out: Path) -> subprocess.Popen[bytes]:
        options = ["--batch-size", "2", "--part-images", "4", "--precision", "fp32", "--workers", "2"]
        command = ["embed", str(tmp_path / "model.safetensors"), str(tmp_path / "photos"), "--out", str(out), *options]
        return subprocess.Popen([sys.executable, "-m", "sparseformers", *command], stdout=subprocess.DEVNULL)

    assert started(tmp_path / "whole" / name).wait() == 0
    out = tmp_path / "killed" / name
    records = out.with_name(f"{out.name}.partial") / "records"
    kills = 0
    for share in (0.1, 0.5, 0.9):
        process = started(out)
        while process.poll() is None and (not records.is_dir() or len(list(records.iterdir())) < 38 * share):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    assert started(out).wait() == 0
    assert files_of(out) == files_of(tmp_path / "whole" / name)


def stopped(config: EmbedConfig, out: Path) -> None:
    """Leaves an embedding under way."""
    assert run_until(config, out, 45) == -signal.SIGKILL
    assert list((out.with_name(f"{out.name}.partial") / "records").glob("record-*.json"))


def test_another_command__is_refused_by_name_and_other_workers_are_not(tmp_path: Path, data: tuple[Path, Path]) -> None:
    out = tmp_path / "out" / "index.parquet"
    stopped(settings(*data), out)
    others: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "float16"}, "--dtype (float32 then, float16 now)"),
        ({"tokens": True}, "--tokens (False then, True now)"),
        ({"batch_size": 3}, "--batch-size (2 then, 3 now)"),
        ({"part_images": 5, "rois": True}, "--part-images (4 then, 5 now), --rois (False then, True now)"),
    ]
    for changes, said in others:
        remedy = "Give the same command as then to go on with it, or add --overwrite to begin anew."
        with refused(RunError, f"differs from this command in: {said}.", remedy):
            embed(dataclasses.replace(settings(*data), **changes), out, model=student())
    with refused(RunError, "differs from this command in: the model"):
        embed(settings(*data), out, model=student(1))
    anew = tmp_path / "anew" / "index.parquet"
    shutil.copytree(out.with_name("index.parquet.partial"), anew.with_name("index.parquet.partial"))
    summary = embed(dataclasses.replace(settings(*data), workers=1), out, model=student())
    assert summary.went_on_from >= 4
    assert summary.rows + summary.skipped == 14
    assert embed(settings(*data), anew, model=student(1), overwrite=True).went_on_from == 0
    embed(settings(*data), tmp_path / "whole" / "index.parquet", model=student(1))
    assert files_of(anew) == files_of(tmp_path / "whole" / "index.parquet")


def test_other_data__are_refused_by_name(tmp_path: Path, data: tuple[Path, Path]) -> None:
    out = tmp_path / "out" / "index.parquet"
    stopped(settings(*data), out)

    def refuse(said: str, *given: Path) -> None:
        with refused(RunError, said):
            embed(settings(*given), out, model=student())

    refuse("the folders", data[1])
    image = data[0] / "photograph_003.jpg"
    content, other = image.read_bytes(), image.with_name("photograph_003_too.jpg")
    other.write_bytes(content)
    refuse("photograph_003_too.jpg' was added, removed or changed", *data)
    image.rename(other)
    refuse("photograph_003.jpg' was added, removed or changed", *data)
    other.rename(image)
    image.write_bytes(content + b" ")
    refuse("photograph_003.jpg' was added, removed or changed", *data)
    write_shard(data[1], {"one.jpg": content})
    refuse("the shards", *data)


def test_the_precision_that_was_chosen__stays(tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = settings(*data, precision="auto"), tmp_path / "out" / "index.parquet"
    monkeypatch.setattr(run, "resolve_precision", lambda asked, device: "bf16")
    stopped(config, out)
    monkeypatch.setattr(run, "resolve_precision", lambda asked, device: "fp32")
    assert embed(config, out, model=student()).precision == "bf16"


def test_a_damaged_part__is_made_again(tmp_path: Path, data: tuple[Path, Path]) -> None:
    out = tmp_path / "out" / "index.parquet"
    embed(settings(*data), tmp_path / "whole" / "index.parquet", model=student())
    stopped(settings(*data), out)
    part = out.with_name("index.parquet.partial") / "parts" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-7])
    assert embed(settings(*data), out, model=student()).went_on_from == 0
    assert files_of(out) == files_of(tmp_path / "whole" / "index.parquet")


def test_an_output_that_another_process_writes__is_in_use(tmp_path: Path, data: tuple[Path, Path]) -> None:
    out = tmp_path / "out" / "index.parquet"
    context = multiprocessing.get_context("fork")
    holds, finished = context.Event(), context.Event()

    class Waiting(type(student().cortex)):  # type: ignore[misc]
        def forward(self, *arguments: Any) -> Any:
            holds.set()
            finished.wait(30)
            return super().forward(*arguments)

    model = student()
    model.cortex.__class__ = Waiting
    process = context.Process(target=embed, args=(settings(*data), out), kwargs={"model": model})
    process.start()
    assert holds.wait(30)
    with refused(RunError, f"The output '{out}' is in use by another process."):
        embed(settings(*data), out, model=student(), overwrite=True)
    finished.set()
    process.join()
    assert process.exitcode == 0
    assert embed(settings(*data), out, model=student(), overwrite=True).rows == 12


def test_a_full_disk__keeps_what_is_there(tmp_path: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out, written = tmp_path / "out" / "index.npy", 0

    def full(*_: object) -> None:
        nonlocal written
        written += 1
        if written > 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "synchronise", full)
    with pytest.raises(RunError, match=r"no room left to write the output .* \(No space left on device\).*Free some space"):
        embed(settings(*data), out, model=student())
    monkeypatch.undo()
    assert embed(settings(*data), out, model=student()).went_on_from == 8
