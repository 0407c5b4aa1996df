"""``sparseformers teachers``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from sparseformers.cli.output import console_for, embedding_progress, print_json, print_whole
from sparseformers.errors import ConfigError
from sparseformers.progress import say
from sparseformers.settings import to_dict

if TYPE_CHECKING:
    from sparseformers.inheritance.catalogue import AcceptedRow, CatalogueRow

COLUMNS = ("teacher", "family", "parameters", "patch", "positions", "image", "multiply-adds", "student's", "licence")


@dataclass(frozen=True)
class Teachers:
    """List what can be inherited from: what the installed libraries know by name, with its cost and its default student's.

    Hugging Face checkpoints are not listed: any of the types that it ends with can be named, as hf:OWNER/NAME.

    Example: sparseformers teachers dinov3
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = ""
    """A part of names, or a pattern such as 'timm:*_clip_*'; all by default, which takes a minute."""
    refused: bool = False
    """List those that cannot be inherited from, with the reasons."""
    json: bool = False
    """Print all rows, accepted and refused, as JSON."""

    def run(self) -> None:
        from sparseformers.inheritance.catalogue import AcceptedRow, catalogue
        from sparseformers.teachers.registry import huggingface_types

        console, rows = console_for(as_json=self.json), list["CatalogueRow"]()
        calls = catalogue(self.pattern)
        if not calls:
            problem = f"No teacher's name has or matches '{self.pattern}'."
            raise ConfigError(problem, "Try a shorter part of it, such as dinov3 or siglip; without one all are listed.")
        with embedding_progress(console, "architectures", len(calls), unit="a", doing="looking at") as advance:
            for call in calls:
                rows += call()
                advance(1)
        accepted = [row for row in rows if isinstance(row, AcceptedRow)]
        refused = [row for row in rows if not isinstance(row, AcceptedRow)]
        if self.json:
            types = list(huggingface_types())
            print_json({"accepted": [*map(to_dict, accepted)], "refused": [*map(to_dict, refused)], "huggingface_types": types})
            return
        print_whole(refused_table(refused) if self.refused else accepted_table(accepted), console)
        say(console, f"{len(accepted):,} can be inherited from, {len(refused):,} not (--refused tells why).")
        if not self.pattern:
            say(console, f"And hf:OWNER/NAME of the types: {', '.join(huggingface_types())}.")


def accepted_table(rows: Iterable[AcceptedRow]) -> Table:
    """A line for each teacher."""
    table = Table(*COLUMNS)
    for row in rows:
        network = (row.name, row.family, f"{row.parameters / 1e6:,.0f}M", str(row.patch_size), row.positions)
        costs = (f"{row.multiply_adds / 1e9:,.1f}G", f"{row.student_multiply_adds / 1e9:,.1f}G ({row.student_tokens} tokens)")
        table.add_row(*network, "x".join(map(str, row.image_size)), *costs, row.licence or "")
    return table


def refused_table(rows: Sequence[CatalogueRow]) -> Table:
    """A line for each reason, with how many teachers it is for and some of them."""
    reasons = Counter(row.refused for row in rows)
    table = Table("teachers", "why not", "such as")
    for reason, count in reasons.most_common():
        table.add_row(str(count), reason, ", ".join([row.name for row in rows if row.refused == reason][:3]))
    return table
