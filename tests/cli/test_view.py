import _thread
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from sparseformers.cli import view
from sparseformers.viewer.server import free_port
from tests.cli.command import Command
from tests.tiny import write_images
from tests.viewer.small import Small, make_small

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("view"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was told to open. The page's state is read, and then Ctrl-C pressed."""
    states: list[str] = []

    def read_and_interrupt(url: str) -> bool:
        with urllib.request.urlopen(f"{url}api/state", timeout=20) as response:
            states.append(response.read().decode())
        threading.Timer(0.2, _thread.interrupt_main).start()
        return True

    monkeypatch.setattr(view, "has_display", lambda: True)
    monkeypatch.setattr(view.webbrowser, "open", read_and_interrupt)
    return states


def test_serves_until_ctrl_c(small: Small, opened: list[str], command: Command) -> None:
    printed = command("view", small.model, small.photos, "--beside", small.other, "--neighbours", small.photos, "--port", 0)
    state = json.loads(opened[0])
    assert [model["tokens"] for model in state["models"]] == [6, 4]
    assert state["neighbours"]["images"] == 13
    url = re.search(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)", printed)
    assert printed.endswith("closed")
    free_port(int(url[1]), tried=1).close()


def test_says_which_port_it_took(small: Small, opened: list[str], command: Command) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} is in use, so it is " in command("view", small.model, "--port", port)


def test_names_what_it_does_without(small: Small, opened: list[str], command: Command, tmp_path: Path) -> None:
    (good,) = write_images(tmp_path, 1)
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    printed = command("view", small.orphan, good, tmp_path / "bad.jpg", "--port", 0)
    assert "Without the teacher: The model" in printed
    assert "'bad.jpg' cannot be read: not an image of a known format." in printed


def test_no_browser(small: Small, opened: list[str], command: Command) -> None:
    threading.Timer(1.5, _thread.interrupt_main).start()
    command("view", small.model, "--port", 0, "--no-browser")
    assert opened == []


def test_bad_input(small: Small, tmp_path: Path, command: Command) -> None:
    empty, bad = tmp_path / "empty", tmp_path / "bad.jpg"
    empty.mkdir()
    bad.write_bytes(b"nothing")
    for words, message in (
        (["nothing"], "There is no run folder, model file or released model 'nothing'"),
        (["timm:vit_base_patch16_224"], "is a teacher, and has no regions of interest"),
        ([small.model, empty], "holds no images"),
        ([small.model, bad], "None of the 1 images can be read. 'bad.jpg' cannot be read: not an image of a known format."),
        ([small.model, "--neighbours", empty], "holds no images"),
        ([small.model, "--beside", "nothing"], "There is no run folder, model file or released model 'nothing'"),
        ([small.model, "--teacher", "timm:test_vit@nothing.safetensors"], "nothing.safetensors"),
        ([small.model, "--port", 70000], "--port must be in [0, 65535], not 70000"),
        ([small.model, "--upload-megabytes", 0], "--upload-megabytes must be above 0"),
    ):
        assert message in command.refused("view", *words, "--no-browser")


def test_without_a_display_no_browser_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not view.has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert view.has_display()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_ends_the_process_cleanly(small: Small) -> None:
    words = ["view", str(small.model), str(small.photos), "--port", "0", "--no-browser"]
    command_line = [sys.executable, "-m", "sparseformers", *words]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[0]
    with urllib.request.urlopen(url, timeout=20) as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.splitlines()[-1] == "closed"  # a signal amid the first line has rich print that again
    assert err.strip() == ""
