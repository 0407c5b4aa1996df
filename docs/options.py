"""Writes the table of every option of ``bootstrap`` into ``docs/bootstrap.md``, from the settings themselves.

python docs/options.py           # writes it
python docs/options.py --check   # fails where the page is not what it would write
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

from sparseformers.cli.help import documented
from sparseformers.settings import flag
from sparseformers.train.settings import BootstrapConfig

PAGE = Path(__file__).with_name("bootstrap.md")
BEGIN = "<!-- options: begin (made by docs/options.py; do not edit) -->\n"
END = "<!-- options: end -->"


def default(field: dataclasses.Field[Any]) -> str:
    """A default as a person would type it."""
    if field.default is dataclasses.MISSING:
        return "needed"
    if field.default is None or field.default == ():
        return ""
    if isinstance(field.default, bool):
        return "yes" if field.default else "no"
    return f"`{' '.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default}`"


def options() -> str:
    """A table of options for each group."""
    kinds = typing.get_type_hints(BootstrapConfig)
    lines = []
    for group in dataclasses.fields(BootstrapConfig):
        kind = kinds[group.name]
        sentences = documented(kind)
        title = (kind.__doc__ or group.name).splitlines()[0].rstrip(".")
        lines += [f"### {title}", "", "| option | default | |", "|---|---|---|"]
        for field in dataclasses.fields(kind):
            if "Suppress" not in str(field.type):  # set by a recipe alone
                text = sentences.get(field.name, "").replace("|", "\\|").replace("``", "`")
                lines.append(f"| `{flag(field.name)}` | {default(field)} | {text} |")
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """The page with its table made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{options()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(f"run 'python {sys.argv[0]}': the options have changed" if made != PAGE.read_text(encoding="utf-8") else 0)
    PAGE.write_text(made, encoding="utf-8")
