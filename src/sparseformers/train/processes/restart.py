"""A launcher that starts its processes again after one has died (torchrun --max-restarts) gives them the same command."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sparseformers.errors import SparseFormersError
from sparseformers.train.run_folder import RunFolder
from sparseformers.train.settings import BootstrapConfig


def launch() -> str | None:
    """What tells the launcher of this process from others, the same after it has restarted it; None without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None or name != "none":
        return name
    # A launcher that was given no name is known by its process, which is this one's parent.
    return f"{socket.gethostname()}/{os.getppid()}"


def is_restart(path: Path, settings: BootstrapConfig) -> bool:
    """Whether the launcher has restarted this process, and the run at ``path`` is the one that it was at before.

    Args:
        path: of the run folder.
        settings: that are asked for, with absolute paths; a run with other ones is another run.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or not RunFolder(path).config.is_file():
        return False
    try:
        run = RunFolder(path)
        return run.read_config()["resolved"].get("launch") == launch() and run.settings() == settings
    except SparseFormersError:
        return False
