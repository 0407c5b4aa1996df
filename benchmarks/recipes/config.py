"""Settings of a comparison of recipes: the teacher, images, sizes, length and seeds that all rows share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sparseformers.errors import ConfigError
from sparseformers.train import BootstrapConfig
from sparseformers.train.recipe import Recipe, changed, parse_pairs
from sparseformers.train.settings import Sources

CONTROLLED = {
    "teacher": "--teacher",
    "data": "--data",
    "samples": "--budget",
    "minutes": "--budget",
    "epochs": "--budget",
    "image_size": "--image-size",
    "crop": "--crop",
    "tokens": "--tokens",
    "seed": "--seeds",
    "evaluations": "--eval-points",
    "cache_teacher": "--cache",
}
"""Settings of bootstrap that a comparison has a flag of its own for."""
THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """What all rows of a comparison have in common."""

    teacher: str
    """As for bootstrap: timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."""
    data: Sources
    """Images to learn from, as for bootstrap; labels are not looked at. May be given several times."""
    eval_data: Path
    """A folder with train/CLASS/* and test/CLASS/*: students are judged on the test part; the other is the index that the
    teacher makes for nearest neighbours."""
    out: Path
    """The folder to work in; what is finished there is not done again."""
    budget: str = "60k-samples"
    """Length of each training, such as 60k-samples, 14000-samples, 10-minutes or 5-epochs."""
    image_size: int = 112
    """Side in pixels of the images that teacher and students see."""
    crop: float | None = None
    """Share of the shorter side that the central crop of evaluation keeps; the teacher's own by default."""
    tokens: int = 16
    """Latent tokens N of each student, without the class token."""
    seeds: int = 3
    """How often each row is trained, with the seeds 0, 1, ..."""
    eval_points: int = 10
    """How often each training measures its held-out centred cosine, which makes the curve over the samples seen."""
    cache: Path | None = None
    """Folder to keep fixed views and the teacher's embeddings of them in; all seeds then see the same views, so that they share
    these (set data_seed otherwise), and measure their curves on the same held-out images."""
    overrides: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="KEY=VALUE")] = ()
    """A setting of bootstrap for all rows, in the place of their own, such as batch_size=64. May be given several times."""

    def __post_init__(self) -> None:
        for name, value in (("seeds", self.seeds), ("eval-points", self.eval_points)):
            if value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}.", "Use 1 or more.")
        self.base()

    def base(self) -> BootstrapConfig:
        """The settings that all rows begin with; raises ConfigError for a value that does not fit."""
        common = BootstrapConfig.of(
            teacher=self.teacher,
            data=self.data,
            image_size=self.image_size,
            crop=self.crop,
            tokens=self.tokens,
            cache_teacher=self.cache,
            data_seed=None if self.cache is None else 0,
            evaluations=self.eval_points,
        ).absolute()
        return changed(common, parse_budget(self.budget) | parse_overrides(self.overrides), where="--set of this comparison")

    def settings(self, row: Recipe, seed: int, **resolved: Any) -> BootstrapConfig:
        """The settings of one training: those of the row, and in their place what ``--set`` gives or came out as ``resolved``.

        Raises:
            ConfigError: for a value that does not fit.
        """
        changes = parse_overrides(self.overrides) | resolved | {"seed": seed}
        return changed(row.apply(self.base()), changes, where=f"recipe '{row.name}' with --set")


def parse_budget(text: str) -> dict[str, int | float]:
    """Turns ``60k-samples``, ``10-minutes`` or ``5-epochs`` into the setting of that name; raises ConfigError for all else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)-(samples|minutes|epochs)", text.strip().lower())
    if match is None or float(match[1]) == 0 or (match[2] and match[3] != "samples"):
        raise ConfigError(
            f"The budget '{text}' cannot be understood.", "Write 60k-samples, 14000-samples, 10-minutes or 5-epochs."
        )
    amount = float(match[1]) * THOUSANDS[match[2]]
    return {match[3]: round(amount) if match[3] == "samples" else amount}


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Turns ``KEY=VALUE`` pairs into settings; values are as in TOML, bare words are text.

    Raises:
        ConfigError: for what is no pair, no setting, or has a flag of its own.
    """
    for pair in pairs:
        key = pair.partition("=")[0].strip().replace("-", "_")
        if key in CONTROLLED:
            raise ConfigError(f"--set {pair} sets what all rows share.", f"Use {CONTROLLED[key]}.")
    return parse_pairs(pairs, [name for name in BootstrapConfig.groups() if name not in CONTROLLED])
