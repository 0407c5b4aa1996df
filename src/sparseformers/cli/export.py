"""``sparseformers export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from sparseformers.cli.output import console_for, print_json, print_whole
from sparseformers.exporting.config import ExportConfig
from sparseformers.settings import to_dict

if TYPE_CHECKING:
    from sparseformers.exporting import ExportSummary


@dataclass(frozen=True)
class Export:
    """Write a student as a file that others run: images in, embeddings out, without teacher and training code.

    The file is compared with the student on real images before it is put in place, and is not put there if it differs.

    Example: sparseformers export runs/first first.onnx --format onnx

    Example: sparseformers export runs/first first.onnx --format onnx --precision int8 --with-preprocessing --data photos

    Example: sparseformers export runs/first first.xml --format openvino --batch 1 --size 224x224
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, a model file, or a model that the authors released, such as sf_base_augreg."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file to write: FILE.onnx, FILE.xml (and FILE.bin, which stays beside it), FILE.pt2 or FILE.safetensors."""
    settings: Annotated[ExportConfig, tyro.conf.arg(name="")]
    overwrite: bool = False
    """Replace files that are there."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        from sparseformers.exporting import export

        console = console_for(as_json=self.json)
        summary = export(self.model, self.out, self.settings, overwrite=self.overwrite, console=console)
        if self.json:
            print_json({**to_dict(summary), "metadata": dict(summary.metadata)})
        else:
            report(summary, console)


def report(summary: ExportSummary, console: Console) -> None:
    """Prints what came of an export."""
    agreement = summary.agreement
    table = Table(title=f"Exported {summary.files[-1]}", show_header=False, title_justify="left")
    table.add_row("files", " and ".join(path.name for path in summary.files) + f", {summary.bytes / 1e6:,.1f} MB", style="bold")
    table.add_row("takes", summary.metadata["images"])
    table.add_row("gives", summary.metadata.get("embedding") or summary.metadata["dense"])
    sizes = ", ".join(f"{height}x{width}" for height, width in agreement.sizes)
    batches = ", ".join(map(str, agreement.batches))
    table.add_row("checked on", f"{agreement.images} images, {batches} at a time, {sizes}")
    table.add_row("greatest difference", f"{agreement.greatest_difference:.2g}")
    table.add_row("greatest error", f"{agreement.greatest_error:.2g} of its length; allowed {summary.tolerance:g}")
    table.add_row("cosine", f"{agreement.mean_cosine:.6f} in the mean, {agreement.lowest_cosine:.6f} at the least")
    print_whole(table, console)
