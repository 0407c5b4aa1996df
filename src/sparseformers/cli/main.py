"""The command ``sparseformers``: one file per command, composed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Union

import tyro
from rich.console import Console
from rich.markup import escape

from sparseformers import __version__
from sparseformers.cli.bootstrap import Bootstrap, expand_recipe
from sparseformers.cli.convert import Convert
from sparseformers.cli.demo import Demo
from sparseformers.cli.embed import Embed
from sparseformers.cli.evaluate import Evaluate
from sparseformers.cli.export import Export
from sparseformers.cli.pack import Pack
from sparseformers.cli.plan import Plan
from sparseformers.cli.profile import Profile
from sparseformers.cli.report import Report
from sparseformers.cli.resume import Resume
from sparseformers.cli.status import Status
from sparseformers.cli.view import View
from sparseformers.cli.visualize import Visualize
from sparseformers.errors import RunStopped, SparseFormersError
from sparseformers.processes import leave_processes, process_number, recorded

DESCRIPTION = """Turn a pre-trained vision transformer into a SparseFormer: same space, a quarter of the tokens, no labels.

Start with: sparseformers demo --out runs/demo
Which version this is: sparseformers --version
"""

BAD_USAGE = 2
"""Exit code for what the user can mend."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""

Command = Union[  # noqa: UP007  # tyro reads the names off the annotations
    Annotated[Bootstrap, tyro.conf.subcommand("bootstrap")],
    Annotated[Resume, tyro.conf.subcommand("resume")],
    Annotated[Plan, tyro.conf.subcommand("plan")],
    Annotated[Status, tyro.conf.subcommand("status")],
    Annotated[Report, tyro.conf.subcommand("report")],
    Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
    Annotated[Profile, tyro.conf.subcommand("profile")],
    Annotated[Visualize, tyro.conf.subcommand("visualize")],
    Annotated[View, tyro.conf.subcommand("view")],
    Annotated[Convert, tyro.conf.subcommand("convert")],
    Annotated[Embed, tyro.conf.subcommand("embed")],
    Annotated[Export, tyro.conf.subcommand("export")],
    Annotated[Pack, tyro.conf.subcommand("pack")],
    Annotated[Demo, tyro.conf.subcommand("demo")],
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit code: 0, also for a training that SIGTERM stopped, 2 for bad usage or input, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] == "--version":
        print(f"sparseformers {__version__}")
        return 0
    speaks = process_number() == 0  # of several processes one prints
    try:
        command: Command = tyro.cli(
            Command,
            prog="sparseformers",
            description=DESCRIPTION,
            args=expand_recipe(given),
            console_outputs=speaks,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        recorded(command.run)()
        leave_processes()
    except SparseFormersError as error:
        if speaks:
            print_error(error)
        return BAD_USAGE
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RunStopped as stopped:
        leave_processes()
        if speaks:
            text = f"{escape(str(stopped))}; go on with it by: {escape(stopped.resume_command)}"
            Console(stderr=True, soft_wrap=True).print(text, highlight=False)
        return stopped.exit_code
    except KeyboardInterrupt:
        if speaks:
            Console(stderr=True).print("interrupted", highlight=False)
        return INTERRUPTED
    return 0


def print_error(error: SparseFormersError) -> None:
    """Says what is wrong and what to do about it, on standard error."""
    text = f"[bold red]error:[/bold red] {escape(error.problem)}\n       {escape(error.remedy)}"
    Console(stderr=True, soft_wrap=True).print(text, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
