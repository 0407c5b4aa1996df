"""``sparseformers convert``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sparseformers.cli.output import console_for, say
from sparseformers.errors import ConfigError, suggest

if TYPE_CHECKING:
    from sparseformers.model import SparseFormer


@dataclass(frozen=True)
class Convert:
    """Make a model file of sparseformers from weights that the authors released.

    Example: sparseformers convert sparseformer_v1_tiny_converted.pth sf_v1_tiny.safetensors
    """

    official: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OFFICIAL|NAME")]
    """The released file (.pth or .safetensors), or the name of a released model to fetch, such as sf_base_augreg."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.safetensors")]
    """The model file to write, for sparseformers.load and the other commands."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """With a NAME: the released file of that model, where it was fetched by hand."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """Activation of the cortex, which a file does not tell: quick_gelu for those from OpenAI's CLIP; gelu by default.
    A NAME knows its own."""
    overwrite: bool = False
    """Replace OUT if it is there."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors":
            raise ConfigError(f"'{self.out}' is no name of a model file.", "Let it end in .safetensors.")

    def run(self) -> None:
        from sparseformers.evaluation.cost import parameters
        from sparseformers.saving import save

        if self.out.exists() and not self.overwrite:
            raise ConfigError(f"'{self.out}' is there already.", "Choose another file, or add --overwrite.")
        student = self._student()
        save(student, self.out)
        kind, tokens = student.config.focusing.kind, student.config.focusing.tokens
        size = f"{tokens} latent tokens, {parameters(student) / 1e6:.1f}M parameters"
        say(console_for(as_json=False), f"Wrote '{self.out}': {kind}, {size}.")

    def _student(self) -> SparseFormer:
        from sparseformers.named import NAMED_CONFIGS
        from sparseformers.released import create_model, load_official

        if self.official in NAMED_CONFIGS:
            if self.activation is not None:
                raise ConfigError(f"'{self.official}' has an activation of its own.", "Leave --activation out.")
            return create_model(self.official, pretrained=True, source=self.source)
        near = suggest(self.official, NAMED_CONFIGS) or f"Names are: {', '.join(NAMED_CONFIGS)}."
        if self.source is not None:
            raise ConfigError(f"--from goes with the name of a released model, and '{self.official}' is none.", near)
        if not Path(self.official).exists():
            raise ConfigError(f"'{self.official}' is neither a file nor the name of a released model.", near)
        return load_official(self.official, activation=self.activation or "gelu")
