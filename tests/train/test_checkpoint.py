"""Checkpoints: whole, or not there; of whole runs how many there are, what happens when some are damaged, and writing beside."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sparseformers
from sparseformers.errors import DataError, RunError
from sparseformers.processes import make_accelerator
from sparseformers.saving import save
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, checkpoint, resume
from sparseformers.train.checkpoint import Checkpointer, HostMemory, Snapshot, fault_of, read_checkpoint, write_checkpoint
from sparseformers.train.lengths import Place
from tests.refusals import refused
from tests.train.runs import entries, flip


def snapshot(value: float = 1.0) -> Snapshot:
    return Snapshot({"training": {"samples": 12}}, {"student": {"weight": torch.full((50,), value)}, "optimiser": {}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "step-00000003"
    write_checkpoint(folder, snapshot())
    return folder


def test_read_checkpoint__gives_back_what_was_written_last(folder: Path) -> None:
    state, tensors = read_checkpoint(folder)
    assert state == {"training": {"samples": 12}}
    assert tensors["student"]["weight"].tolist() == [1.0] * 50
    assert fault_of(folder) is None
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}
    flip(folder / "state.json", 3)
    write_checkpoint(folder, snapshot(2.0))
    assert read_checkpoint(folder).tensors["student"]["weight"].tolist() == [2.0] * 50
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: flip(folder / "student.safetensors", -7), "student.safetensors holds other bytes than were written"),
        (lambda folder: flip(folder / "state.json", 3), "state.json holds other bytes"),
        (lambda folder: (folder / "state.json").write_text("{}"), "state.json has 2 bytes instead of"),
        (lambda folder: (folder / "optimiser.safetensors").unlink(), "optimiser.safetensors is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 1, "fil'), "its manifest.json cannot be used"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "its manifest.json cannot be used"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 1, "files": {}}'), "its manifest.json is incomplete"),
    ],
)
def test_fault_of__names_the_damage(folder: Path, damage: Callable[[Path], object], fault: str) -> None:
    damage(folder)
    assert fault in (fault_of(folder) or "")


def test_fault_of__any_flipped_byte_is_found(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "manifest.json":
            for place in range(0, path.stat().st_size, 37):
                flip(path, place)
                assert fault_of(folder) is not None, (path.name, place)
                flip(path, place)
    assert fault_of(folder) is None


def test_write_checkpoint__that_fails_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sha256_of", fail)
    for name in ("step-00000003", "step-00000004"):
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(folder.with_name(name), snapshot(2.0))
    monkeypatch.undo()
    assert {path.name for path in folder.parent.iterdir()} == {"step-00000003"}
    assert fault_of(folder) is None


def test_read_checkpoint__of_a_later_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with refused(RunError, "has format 2, and this version reads format 1", "version of sparseformers"):
        read_checkpoint(folder)


def test_copy__outlives_changes_and_uses_its_memory_again() -> None:
    memory, weight = HostMemory(), torch.arange(6.0).reshape(2, 3).t()
    first = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    weight.add_(1)
    assert first.is_contiguous()
    assert first.tolist() == [[0, 3], [1, 4], [2, 5]]
    second = memory.copy({"student": {"weight": weight}})["student"]["weight"]
    assert second.data_ptr() == first.data_ptr()
    assert second.tolist() == weight.tolist()


def names(run: Path) -> list[str]:
    return [folder.name for folder in RunFolder(run).checkpoint_folders()]


def same_end(stepwise_run: Path, run: Path) -> None:
    for name in ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/step-00000006/optimiser.safetensors"):
        assert (stepwise_run / name).read_bytes() == (run / name).read_bytes(), name
    for kind, keys in (("train", ("loss", "gradient_norm")), ("held_out", ("centred_cosine", "cosine_p05"))):
        figures = [[[entry[key] for key in ("samples", *keys)] for entry in entries(out, kind)] for out in (stepwise_run, run)]
        assert figures[0] == figures[1]


def test_bootstrap__keeps_the_newest_checkpoints_all_whole(stepwise_run: Path) -> None:
    assert names(stepwise_run) == ["step-00000004", "step-00000005", "step-00000006"]
    assert [fault_of(folder) for folder in RunFolder(stepwise_run).checkpoint_folders()] == [None] * len(names(stepwise_run))
    assert (stepwise_run / "checkpoints" / "best.safetensors").is_file()


def checkpointer_of(run: RunFolder, settings: BootstrapConfig) -> Checkpointer:
    return Checkpointer(run, settings, images=10, accelerator=make_accelerator(), start=Place(0, 0.0))


def test_save__keeps_so_many_and_removes_what_is_after_them(shared_settings: BootstrapConfig, tmp_path: Path) -> None:
    for keep, kept in ((1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])):
        run = RunFolder(tmp_path / str(keep))
        write_checkpoint(run.checkpoints / "step-00000007", Snapshot({}, {}))  # one that was found damaged
        checkpointer = checkpointer_of(run, shared_settings.with_(keep=keep))
        for samples in (4, 8, 12, 14):  # a short last step
            checkpointer.save(Snapshot({}, {}), Place(samples, 0.0))
        checkpointer.wait()
        assert names(run.path) == [f"step-{step:08}" for step in kept]


def test_is_due__not_amid_writing(shared_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    go_on = threading.Event()

    def write(folder: Path, _snapshot: Snapshot) -> int:
        go_on.wait(30)
        folder.mkdir(parents=True)
        return 0

    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    checkpointer = checkpointer_of(run, shared_settings.with_(checkpoint_every="1step"))
    assert checkpointer.is_due(Place(4, 0.0))
    checkpointer.save(Snapshot({}, {}), Place(4, 0.0))  # comes back at once
    assert not checkpointer.is_due(Place(8, 0.0))
    go_on.set()
    checkpointer.wait()
    assert checkpointer.is_due(Place(12, 0.0))
    assert names(run.path) == ["step-00000001"]


def test_wait__raises_a_failure(shared_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_folder: Path, _snapshot: Snapshot) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint, "write_checkpoint", fail)
    run = RunFolder(tmp_path / "run")
    checkpointer = checkpointer_of(run, shared_settings)
    checkpointer.save(Snapshot({}, {}), Place(4, 0.0))
    with refused(RunError, "cannot be written (Input/output error)", f"sparseformers resume {run.path}"):
        checkpointer.wait()
    assert checkpointer.has_failed


def test_resume__newest_checkpoint_damaged_falls_back_and_ends_at_the_same_bytes(stepwise_run: Path, stopped_run: Path) -> None:
    best = max(entry["centred_cosine"] for entry in entries(stepwise_run, "held_out"))
    assert best_score(stopped_run) <= best
    before, newest = names(stopped_run)
    flip(stopped_run / "checkpoints" / newest / "student.safetensors", -7)
    console = Console(record=True, width=400)
    resume(stopped_run, console=console)
    sentence = f"The checkpoint {newest} is damaged (student.safetensors holds other bytes than were written"
    assert sentence in console.export_text()
    log = (stopped_run / "train.log").read_text()
    assert sentence in log
    assert f"going on from {before}" in log
    assert best_score(stepwise_run) == best_score(stopped_run) == best
    same_end(stepwise_run, stopped_run)


def test_resume__all_checkpoints_damaged_is_one_sentence_and_changes_nothing(stopped_run: Path) -> None:
    for folder in RunFolder(stopped_run).checkpoint_folders():
        flip(folder / "optimiser.safetensors", -7)
    before = (stopped_run / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"None of the checkpoints in '.*' is whole \(step-\d+: optimiser") as caught:
        resume(stopped_run)
    assert "--overwrite" in caught.value.remedy
    assert (stopped_run / "metrics.jsonl").read_bytes() == before


def test_resume__before_the_first_checkpoint_starts_at_the_beginning(stepwise_run: Path, stopped_run: Path) -> None:
    shutil.rmtree(stopped_run / "checkpoints")
    (stopped_run / "checkpoints" / ".step-00000001.part").mkdir(parents=True)
    (stopped_run / ".tmpaD5RIe").write_bytes(b"as safetensors writes")
    resume(stopped_run)
    assert (stopped_run / "checkpoints" / "best.safetensors").is_file()
    assert "removed what was left unfinished: .step-00000001.part" in (stopped_run / "train.log").read_text()
    assert not list(stopped_run.rglob(".*"))
    same_end(stepwise_run, stopped_run)


def best_score(run: Path) -> float:
    return float(json.loads((RunFolder(run).checkpoint_folders()[-1] / "state.json").read_text())["training"]["best"])


def test_resume__a_best_model_from_after_the_checkpoint_is_not_replaced_by_a_lesser_one(stopped_run: Path) -> None:
    best = stopped_run / "checkpoints" / "best.safetensors"
    save(sparseformers.load(best), best, score=0.99)  # another run of the same steps may have come that far
    before = best.read_bytes()
    resume(stopped_run)
    assert best.read_bytes() == before
    assert best_score(stopped_run) == 0.99


def test_resume__other_images_are_refused(settings: BootstrapConfig, tmp_path: Path) -> None:
    bootstrap(settings.with_(samples=4), tmp_path / "run")
    (tmp_path / "run" / "README.md").unlink()
    first = min((tmp_path / "photos").iterdir())
    first.rename(first.with_name("photograph_000b.jpg"))
    with refused(DataError, "no longer those that the run has learnt from", "Put them back"):
        resume(tmp_path / "run")


def test_resume__of_a_run_from_before_there_were_such_checkpoints(stopped_run: Path) -> None:
    shutil.rmtree(stopped_run / "checkpoints")
    (stopped_run / "checkpoints").mkdir()
    (stopped_run / "checkpoints" / "last.pt").write_bytes(b"old")
    config = json.loads((stopped_run / "config.json").read_text())
    flat = {name: value for group in config["settings"].values() for name, value in group.items()}
    del flat["checkpoint_every"], flat["keep"]
    config["settings"] = {**flat, "checkpoint_minutes": 2.5}
    (stopped_run / "config.json").write_text(json.dumps(config))
    settings: BootstrapConfig = RunFolder(stopped_run).settings()
    assert settings.run.checkpoint_every == "150s"
    with refused(RunError, "earlier version", "--overwrite"):
        resume(stopped_run)


def test_resume__of_a_run_that_is_being_trained_is_refused(shared_settings: BootstrapConfig, copied_run: Path) -> None:
    run = copied_run
    with RunFolder(run).held():
        for begin in (lambda: resume(run), lambda: bootstrap(shared_settings, run, overwrite=True)):
            with pytest.raises(RunError, match="is being trained by another process") as refused:
                begin()
            assert refused.value.remedy.endswith(f"sparseformers status {run}")
    assert resume(run).samples == 24
    assert not (run / ".lock").exists()
