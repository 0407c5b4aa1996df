"""SIGTERM and Ctrl-C: the step is finished, the state saved, and the run goes on from there."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sparseformers.cli.main import main
from sparseformers.errors import RunStopped
from sparseformers.train import BootstrapConfig, RunFolder, bootstrap, resume
from sparseformers.train.checkpoint import read_checkpoint
from sparseformers.train.processes import StopSignals
from tests.train.ranks import start
from tests.train.ranks_work import command
from tests.train.runs import at_each_step, command_line


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def at_third_step(patch: pytest.MonkeyPatch, *numbers: signal.Signals) -> None:
    """Has signals sent in the midst of the third step."""
    at_each_step(patch, lambda _step, _batch, samples: samples == 8 and send(*numbers))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_bootstrap__a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    shared_settings: BootstrapConfig,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    run = tmp_path / "run one"
    at_third_step(monkeypatch, number)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(RunStopped) as stopped:
        bootstrap(shared_settings, run)
    assert handlers == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    assert (stopped.value.exit_code, stopped.value.samples) == (code, 12)
    assert stopped.value.resume_command == f"sparseformers resume '{run}'"
    assert [folder.name for folder in RunFolder(run).checkpoint_folders()] == ["step-00000003"]
    assert "Ctrl-C once more stops at once" in capfd.readouterr().err
    assert f"stopped by {number.name} after 12 images" in (run / "train.log").read_text()
    # The command line says so, too, when it happens again.
    monkeypatch.undo()
    at_each_step(monkeypatch, lambda *_: send(number))
    assert main(["resume", str(run)]) == code
    printed = " ".join(capfd.readouterr().err.split())
    assert f"stopped by {number.name} after 16 images; go on with it by: sparseformers resume '{run}'" in printed
    assert "Traceback" not in printed
    monkeypatch.undo()
    resume(run)
    assert (run / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


def test_two_interrupts__stop_at_once(shared_settings: BootstrapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_third_step(monkeypatch, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        bootstrap(shared_settings, tmp_path / "run")
    assert not isinstance(stopped.value, RunStopped)
    assert RunFolder(tmp_path / "run").checkpoint_folders() == []
    # In the last step a signal changes nothing.
    monkeypatch.undo()
    at_third_step(monkeypatch, signal.SIGTERM)
    assert bootstrap(shared_settings.with_(samples=12), tmp_path / "finished").samples == 12
    assert RunFolder(tmp_path / "finished").is_finished


def test_stop_signals__the_first_one_counts_and_outside_of_the_main_thread_nothing_is_installed() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with StopSignals(speaks=False) as signals:
            seen.append((signal.getsignal(signal.SIGTERM), signals.asked))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]
    with StopSignals(speaks=False) as signals:
        send(signal.SIGTERM, signal.SIGTERM)
        assert signals.asked == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_several_processes__one_of_them_asked_all_stop_after_the_same_step_and_one_goes_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = command_line(tmp_path, "--batch-size", "4", "--samples", "200", "--evaluations", "1", "--workers", "0")
    arguments += ["--checkpoint-every", "2steps", "--out", str(run.path)]
    group = start(2, command, arguments, output=tmp_path / "two")
    patience = time.monotonic() + 60
    while not run.checkpoint_folders() and time.monotonic() < patience:
        time.sleep(0.001)
    os.kill(group.processes[1].pid or 0, signal.SIGTERM)
    assert group.join() == [0, 0], group.said(0) + group.said(1)
    assert group.said(0).count("stopped by SIGTERM after") == 1
    assert f"go on with it by: sparseformers resume {run.path}" in " ".join(group.said(0).split())
    assert group.said(1) == ""
    snapshot = read_checkpoint(run.checkpoint_folders()[-1])
    assert 0 < snapshot.state["training"]["samples"] < 200
    assert len(snapshot.state["random"]) == 2
    alone = start(1, command, ["resume", str(run.path)], output=tmp_path / "one")
    assert alone.join() == [0], alone.said(0)
    assert run.is_finished
    assert run.read_metrics()[-1]["samples"] == 200
