"""The command ``sparseformers``: finds the command that is asked for, and imports its module alone."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sparseformers import __version__
from sparseformers.errors import ConfigError, RunStopped, SparseFormersError, suggest

COMMANDS: Mapping[str, Mapping[str, str]] = {  # lines on them, by group; ``sparseformers.cli.NAME`` has a class ``Name``
    "make": {
        "bootstrap": "make a SparseFormer of a teacher and align it on plain images",
        "resume": "go on with a run that was stopped or killed",
        "plan": "tell time, memory and bytes to read before a training starts",
        "status": "tell how a run is doing, from its folder",
        "report": "put a run on one page: curves, cost, images, settings",
        "demo": "bootstrap from the bundled teacher on fifteen photographs, offline",
    },
    "measure": {
        "evaluate": "measure how near a student is to its teacher on a folder of images",
        "profile": "measure what a student costs beside its teacher, and how fast both are",
        "teachers": "list what can be inherited from",
    },
    "see": {
        "visualize": "draw regions of interest and sampling points on photographs",
        "view": "see where a student looks, in a page on this machine",
    },
    "use": {
        "embed": "embed images into an index",
        "export": "write a student as ONNX, OpenVINO, torch.export or safetensors",
        "convert": "make a model file from weights that the authors released",
        "pack": "put a folder of images into tar shards",
    },
}
# Commands of earlier versions, and where they went.
MOVED = {"bench-recipe": "make bench-recipes", "ablate": "make bench-table1", "benchmark": "make bench-speed"}
BAD_USAGE = 2  # exit code for what the user can mend
INTERRUPTED = 130  # exit code after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the command; ``arguments`` are those after the program's name.

    Returns the exit code: 0, also for a training that SIGTERM stopped, 2 for bad usage or input, 130 after Ctrl-C.
    """
    name, *options = (sys.argv[1:] if arguments is None else arguments) or [""]
    speaks = os.environ.get("RANK", "0") == "0"  # of several processes one prints
    for stream in (sys.stdout, sys.stderr):  # a letter that they have no bytes for must not cost the result
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if name in ("", "-h", "--help"):
            print(overview(), flush=True)
            return 0 if name else BAD_USAGE
        if name == "--version":
            print(f"sparseformers {__version__}", flush=True)
            return 0
        _run(name, options, speaks=speaks)
        _leave_processes()
    except SparseFormersError as error:
        if speaks:
            print_error(error)
        return BAD_USAGE
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RunStopped as stopped:
        _leave_processes()
        if speaks:
            print(f"{stopped}; go on with it by: {stopped.resume_command}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:  # also while the command is being imported
        if speaks:
            print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def overview() -> str:
    """One line for each command."""
    lines = ["usage: sparseformers COMMAND [OPTIONS]", ""]
    lines += ["Turn a pre-trained vision transformer into a SparseFormer: same space, a quarter of the tokens, no labels."]
    for group, commands in COMMANDS.items():
        lines += ["", group, *(f"  {name:<11}{line}" for name, line in commands.items())]
    lines += ["", "Options of one: sparseformers COMMAND --help", "Start with: sparseformers demo --out runs/demo"]
    return "\n".join(lines)


def print_error(error: SparseFormersError) -> None:
    """Says what is wrong and what to do about it, on standard error."""
    from rich.text import Text

    from sparseformers.files import printable
    from sparseformers.progress import PlainConsole

    text = Text.assemble(("error:", "bold red"), f" {printable(error.problem)}\n       {printable(error.remedy)}")
    PlainConsole(stderr=True).print(text, soft_wrap=True)


def _run(name: str, options: Sequence[str], *, speaks: bool) -> None:
    """Imports a command and runs it with these options; raises ConfigError if there is none of that name."""
    known = [each for commands in COMMANDS.values() for each in commands]
    if name not in known:
        if name in MOVED:
            raise ConfigError(f"There is no command '{name}' any more.", f"From a clone of the repository: {MOVED[name]}.")
        raise ConfigError(f"There is no command '{name}'.", suggest(name, known) or f"Commands are: {', '.join(known)}.")
    from sparseformers.cli.help import parse

    module: Any = importlib.import_module(f"sparseformers.cli.{name}")
    expanded = module.expand_recipe(options) if hasattr(module, "expand_recipe") else options
    command = parse(getattr(module, name.capitalize()), f"sparseformers {name}", expanded, speaks=speaks)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        command.run()
        return
    from torch.distributed.elastic.multiprocessing.errors import record

    record(command.run)()  # leaves its error to torchrun, which ends the other processes and tells which was the first to fail


def _leave_processes() -> None:
    """Takes leave of the other processes, if there can be any: a command that never imported PyTorch has joined none."""
    if "torch" in sys.modules:
        from sparseformers.processes import leave_processes

        leave_processes()


if __name__ == "__main__":
    sys.exit(main())
