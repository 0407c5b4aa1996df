"""A full disk ends a run in one sentence, and the checkpoints before are whole."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.errors import RunError
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.checkpoint import fault_of
from tests.refusals import refused
from tests.train.runs import FOCUSING, at_each_step, command_line, each_checkpoint_awaited

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Restores how large files may become, and the training step."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        yield patch
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit_files_at(samples_seen: int, size: int, patch: pytest.MonkeyPatch) -> None:
    """From the step after so many images on no file of this process may have more than ``size`` bytes."""

    def before(_step: object, _batch: object, samples: int) -> None:
        if samples == samples_seen:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    at_each_step(patch, before)


@pytest.mark.parametrize("size", [10, 600_000, 1_500_000], ids=["metrics", "model", "checkpoint"])
def test_bootstrap__no_room_is_a_sentence_and_the_run_goes_on_later(
    shared_settings: BootstrapConfig, whole_run: Path, tmp_path: Path, quota: pytest.MonkeyPatch, size: int
) -> None:
    sizes = {path.name: path.stat().st_size for path in whole_run.rglob("*.safetensors")}
    assert 600_000 < sizes["model.safetensors"] < 1_500_000 < sizes["optimiser.safetensors"]
    run = tmp_path / "run"
    limit_files_at(12, size, quota)
    problem = f"There is no room left to write the run '{run}' (File too large)"
    remedy = f"Free some space, then go on by: sparseformers resume {run}"
    with refused(RunError, problem, remedy), each_checkpoint_awaited():
        bootstrap(shared_settings.with_(checkpoint_every="1step", log_every=1), run)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    quota.undo()
    folders = RunFolder(run).checkpoint_folders()
    assert folders
    assert [fault_of(folder) for folder in folders] == [None] * len(folders)
    resume(run)
    assert (run / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


INSIDE = """
mount -t tmpfs -o size={size}k tmpfs {disk} || exit 77
cd {root}
"{python}" -m sparseformers {arguments} --out {disk}/run > {out}/printed 2>&1
echo $? > {out}/code
df --output=avail {disk} | tail -1 > {out}/left
cp -r {disk}/run {out}/run
"""


@pytest.mark.slow
def test_bootstrap__on_a_small_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this kernel lets nobody mount a small disk in a namespace of his own")
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir(), out.mkdir()
    given = command_line(tmp_path, *FOCUSING, "--batch-size", "4", "--samples", "60", "--evaluations", "1", "--workers", "0")
    given += ["--checkpoint-every", "2steps", "--keep", "9"]
    script = INSIDE.format(size=8_000, disk=disk, root=ROOT, python=sys.executable, arguments=" ".join(given), out=out)
    subprocess.run(["unshare", "-rm", "sh", "-c", script], check=True, capture_output=True)
    printed = " ".join((out / "printed").read_text().split())
    assert (out / "code").read_text().strip() == "2", printed
    assert "There is no room left to write the run" in printed
    assert "(No space left on device); what was finished before is kept." in printed
    assert f"Free some space, then go on by: sparseformers resume {disk}/run" in printed
    assert "Traceback" not in printed
    folders = RunFolder(out / "run").checkpoint_folders()
    assert folders
    assert [fault_of(folder) for folder in folders] == [None] * len(folders)
    assert not list((out / "run").rglob(".*"))
    assert main(["resume", str(out / "run"), "--set", "keep=1"]) == 0  # where there is room
    last = RunFolder(out / "run").checkpoint_folders()[-1]
    assert json.loads((last / "state.json").read_text())["training"]["samples"] == 60
    shutil.rmtree(out / "run")
