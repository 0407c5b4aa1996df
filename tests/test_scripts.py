"""What scripts and odd surroundings do to the commands: umask, homes, encodings, launchers' variables, Ctrl-C."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

from sparseformers import files
from sparseformers.cli.help import parse
from sparseformers.cli.main import main
from sparseformers.cli.output import print_whole
from sparseformers.cli.status import Status
from sparseformers.errors import DataError, WeightsError
from sparseformers.progress import PlainConsole, say
from sparseformers.teachers import absolute_name
from sparseformers.train import RunFolder, bootstrap, resume
from tests.refusals import refused
from tests.train.runs import tiny_settings

ODD = os.fsdecode(b"caf\xe9 [wip] [/] \xe2\x82\xac")  # a name that is no UTF-8, with what would be markup


def command(*words: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    given = [sys.executable, "-m", "sparseformers", *map(str, words)]
    return subprocess.run(given, check=False, capture_output=True, timeout=400, **options)  # type: ignore[call-overload]


@pytest.mark.draws
def test_all_that_is_written__is_open_to_whom_the_umask_lets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(tmp_path, photographs=8).with_(samples=4, evaluations=1)
    for umask in (0o077, 0o002):
        read = [sys.executable, "-c", "from sparseformers.files import UMASK; print(UMASK)"]
        assert int(subprocess.run(read, capture_output=True, check=True, umask=umask).stdout) == umask
        monkeypatch.setattr(files, "UMASK", umask)
        run, before = tmp_path / f"run-{umask}", os.umask(umask)
        try:
            bootstrap(settings, run)
        finally:
            os.umask(before)
        found = [run, *run.rglob("*")]
        assert len([path for path in found if path.suffix == ".safetensors"]) > 3
        wanted = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in found}
        assert [path for path in found if stat.S_IMODE(path.stat().st_mode) != wanted[path]] == []


def test_a_tilde_behind_an_equals_sign__is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["~/runs/first"], ["--watch", "~/runs/first"]):
        assert parse(Status, "sparseformers status", words).run_path == tmp_path / "runs" / "first"
    assert absolute_name("timm:vit@~/a@b.pth#ema") == f"timm:vit@{tmp_path}/a@b.pth#ema"
    (tmp_path / "m@1").mkdir()
    assert absolute_name("hf:~/m@1") == f"hf:{tmp_path}/m@1"
    assert absolute_name("open_clip:/a@b/c.json@/d@e.pt") == "open_clip:/a@b/c.json@/d@e.pt"


def test_odd_names__are_printed_as_they_are_whatever_the_encoding(tmp_path: Path) -> None:
    for encoding in ("ascii:strict", "utf-8:strict"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        ended = command("plan", "--recipe", tmp_path / f"no {ODD}", env=environment)
        assert (ended.returncode, b"Traceback" in ended.stderr) == (2, False), ended.stderr
        assert b"caf\\udce9 [wip] [/]" in ended.stderr


def test_tables_and_sentences__keep_what_is_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="Run [wip]")
    table.add_column("[/] name")
    table.add_row("a [bold] b")
    print_whole(table, PlainConsole())
    say(PlainConsole(), "resume runs/[wip]\nline [red]")
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Run [wip]", "[/] name", "a [bold] b", "resume runs/[wip]\nline [red]\n"))


def test_variables_of_a_launcher_that_is_not_there__are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    ended = command("profile", "sf_v1_tiny", env=alone)
    assert ended.returncode == 2
    assert b"WORLD_SIZE is 2, but this is not one of several processes" in ended.stderr
    assert b"env -u WORLD_SIZE -u RANK" in ended.stderr


@pytest.mark.slow
def test_a_process_that_waits_for_others__says_so() -> None:
    script = "from sparseformers import processes as p; p.PATIENCE = 0.5; p.process_state()"
    given = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    with subprocess.Popen([sys.executable, "-c", script], env=given, stderr=subprocess.PIPE, text=True) as process:
        told = next(line for line in process.stderr if line.startswith("waiting"))
        process.kill()
    assert told.startswith("waiting for the other processes: WORLD_SIZE is 2, so 2 have to meet at 127.0.0.1:29517.")


@pytest.mark.slow
def test_a_script_without_a_main_guard__ends_in_one_sentence(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path).with_(workers=1)
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
multiprocessing.set_start_method("spawn", force=True)
import sparseformers
sparseformers.bootstrap(sparseformers.BootstrapConfig.of(**{settings.flat()!r}), {str(tmp_path / "run")!r})
""")
    ended = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1, ended.stderr
    assert "LoadingError: The processes that read images ended as they started." in ended.stderr
    assert 'if __name__ == "__main__":' in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0, 2.5])
def test_ctrl_c_while_a_command_is_imported__prints_no_traceback(delay: float) -> None:
    script = (
        "import sys; from sparseformers.cli.main import main; print(1, flush=True); sys.exit(main(['profile', 'sf_v1_tiny']))"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert (process.returncode, err.strip().splitlines()[-1:], "Traceback" in err) == (130, ["interrupted"], False)


def test_a_run_goes_on_after_data_and_teacher_were_moved(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path).with_(samples=8, evaluations=1)
    run = tmp_path / "run"
    bootstrap(settings, run)
    (RunFolder(run).card).unlink()  # as if it had been killed before its end
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    (tmp_path / "teacher.safetensors").rename(tmp_path / "moved.safetensors")
    teacher = str(settings.network.teacher).replace("teacher.safetensors", "moved.safetensors")
    with refused(DataError, "does not exist", f"If it was moved: sparseformers resume {run} --data DATA"):
        resume(run)
    with refused(WeightsError, "There is no weight file", f"If it was moved: sparseformers resume {run} --teacher TEACHER"):
        resume(run, data=[str(tmp_path / "elsewhere")])
    assert main(["resume", str(run), "--data", str(tmp_path / "elsewhere"), "--teacher", teacher]) == 0
    now = RunFolder(run).settings()
    assert (now.network.teacher, now.data.data) == (teacher, (str(tmp_path / "elsewhere"),))
