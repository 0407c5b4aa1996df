"""The command ``sparseformers``: one file per command, composed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Union

import tyro
from rich.console import Console
from rich.markup import escape

from sparseformers.cli.ablate import Ablate
from sparseformers.cli.bench_recipe import BenchRecipe
from sparseformers.cli.bootstrap import Bootstrap, expand_recipe
from sparseformers.cli.convert import Convert
from sparseformers.cli.demo import Demo
from sparseformers.cli.embed import Embed
from sparseformers.cli.evaluate import Evaluate
from sparseformers.cli.profile import Profile
from sparseformers.cli.resume import Resume
from sparseformers.cli.visualize import Visualize
from sparseformers.errors import SparseFormersError

DESCRIPTION = """Turn a pre-trained vision transformer into a SparseFormer: same space, a quarter of the tokens, no labels.

Start with: sparseformers demo --out runs/demo
"""

BAD_USAGE = 2
"""Exit code for what the user can mend."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""

Command = Union[  # noqa: UP007  # tyro reads the names off the annotations
    Annotated[Bootstrap, tyro.conf.subcommand("bootstrap")],
    Annotated[Resume, tyro.conf.subcommand("resume")],
    Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
    Annotated[Profile, tyro.conf.subcommand("profile")],
    Annotated[Visualize, tyro.conf.subcommand("visualize")],
    Annotated[Convert, tyro.conf.subcommand("convert")],
    Annotated[Embed, tyro.conf.subcommand("embed")],
    Annotated[BenchRecipe, tyro.conf.subcommand("bench-recipe")],
    Annotated[Ablate, tyro.conf.subcommand("ablate")],
    Annotated[Demo, tyro.conf.subcommand("demo")],
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the command.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        The exit code: 0, 2 for bad usage or input, 130 after Ctrl-C.
    """
    errors = Console(stderr=True, soft_wrap=True)
    try:
        command: Command = tyro.cli(
            Command,
            prog="sparseformers",
            description=DESCRIPTION,
            args=expand_recipe(sys.argv[1:] if arguments is None else arguments),
        )
        command.run()
    except SparseFormersError as error:
        errors.print(f"[bold red]error:[/bold red] {escape(error.problem)}\n       {escape(error.remedy)}", highlight=False)
        return BAD_USAGE
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        errors.print("interrupted", highlight=False)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
