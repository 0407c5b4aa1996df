"""The files beside a student's weights, in a run folder as in a repository: ``config.json`` and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseformers.config import SparseFormerConfig
from sparseformers.errors import ConfigError, RunError, WeightsError, suggest
from sparseformers.evaluation import Alignment, Cost
from sparseformers.evaluation.attention import MapAgreement
from sparseformers.files import write_json
from sparseformers.inheritance import Provenance
from sparseformers.saving import read_config
from sparseformers.settings import from_dict, to_dict
from sparseformers.teachers.hubs import restriction

CONFIG_FILE, CARD_FILE = "config.json", "README.md"
CONFIG_KEYS = ("settings", "resolved", "versions", "figures")  # of a run; a repository has no settings: they are private


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures that a run measured of its student at its image size, under ``figures`` in ``config.json``."""

    alignment: Alignment  # on the held-out images, at the end
    student_cost: Cost
    teacher_cost: Cost
    patch_tokens: int  # patches of the teacher in an image
    samples: int  # images seen in training
    training_images: int  # different images among them
    skipped: int  # images that could not be read
    seconds: float  # time spent training
    seed: int
    precision: str
    licence: str | None  # that of the teacher's weights, where known
    map: MapAgreement | None = None  # where the student has a map, and the teacher's attention
    dense_cosine: float | None = None  # of its maps of features, where it learnt them
    dense_multiply_adds: int | None = None  # for an image and its map, where it learnt them


USAGE = """```python
import sparseformers

student = {loading}
output = student(images)  # B x 3 x H x W in [0, 1] -> output.embedding, output.tokens, output.rois
{dense}```
"""
DENSE_USAGE = "features = student.dense(images)  # B x D x h x w, the map of its teacher's features\n"


def card_text(
    config: SparseFormerConfig, *, cost: Cost, provenance: Provenance | None, figures: Figures | None, loading: str
) -> str:
    """The text of a model card, in Markdown; ``cost`` is told without figures of a run, ``loading`` is a Python expression."""
    parts = [_opening(provenance)]
    parts += [_cost_table(config, cost)] if figures is None else [_comparison(config, figures), _alignment(figures)]
    parts += [] if provenance is None else [_making(provenance, figures)]
    parts += [USAGE.format(loading=loading, dense="" if config.read_out is None else DENSE_USAGE)]
    if provenance is not None:
        licence = None if figures is None else figures.licence
        told = licence or "see where the teacher comes from"
        restricts = "" if restriction(licence) is None else " It restricts what they may be used for: read it."
        parts.append(f"The weights derive from the teacher's, whose licence holds for them: {told}.{restricts}\n")
    return "\n".join(parts)


def without_folders(teacher: str) -> str:
    """Takes the folders of a local file out of a teacher's name: they are nobody else's business."""
    name, at, file = teacher.partition("@")
    kind, colon, rest = name.partition(":")
    if Path(rest).is_absolute():  # of a folder or file (hf:FOLDER, open_clip:FILE.json)
        name = f"{kind}{colon}{Path(rest).name}"
    return f"{name}@{Path(file).name}" if at else name


def repository_of(teacher: str) -> str | None:
    """The hub's name of a teacher, OWNER/NAME; None where it comes from elsewhere."""
    kind, _, rest = teacher.partition(":")
    if "@" in rest or Path(rest).is_absolute() or kind not in ("timm", "hf"):
        return None
    return f"timm/{rest}" if kind == "timm" else rest


def _opening(provenance: Provenance | None) -> str:
    if provenance is None:
        return """# A SparseFormer

It turns an image into a few latent tokens, each with a region of interest, and works on those alone.
"""
    return f"""# A SparseFormer of {without_folders(provenance.teacher)}

Bootstrapped by sparseformers from plain images: its embeddings lie in the space of its teacher, so that classifiers, text
towers and indexes made for the teacher take them.
"""


def _cost_table(config: SparseFormerConfig, cost: Cost) -> str:
    height, width = cost.size
    return f"""| | student |
|---|---|
| latent tokens | {config.focusing.tokens} |
| multiply-adds at {height} x {width} | {cost.multiply_adds / 1e9:.2f} G |
| parameters | {cost.parameters / 1e6:.1f} M |

No run has recorded held-out figures of these weights.
"""


def _comparison(config: SparseFormerConfig, figures: Figures) -> str:
    student, teacher, dense = figures.student_cost, figures.teacher_cost, figures.dense_multiply_adds
    height, width = student.size
    return f"""| | student | teacher |
|---|---|---|
| latent tokens / patch tokens | {config.focusing.tokens} | {figures.patch_tokens} |
| multiply-adds at {height} x {width} | {student.multiply_adds / 1e9:.2f} G | {teacher.multiply_adds / 1e9:.2f} G |
| parameters | {student.parameters / 1e6:.1f} M | {teacher.parameters / 1e6:.1f} M |
{"" if dense is None else DENSE_COST_ROW.format(dense / 1e9, teacher.multiply_adds / 1e9)}"""


MAP_ROWS = """\
| divergence of the map of where to look from the teacher's attention | {0.divergence:.3f} nats |
| heaviest third of the teacher's attention that the map finds | {0.overlap:.1%} |
"""
DENSE_COST_ROW = "| multiply-adds with the feature map | {:.2f} G | {:.2f} G |\n"
DENSE_ROW = "| centred cosine of each place of the feature map to the teacher's | {:.3f} |\n"


def _alignment(figures: Figures) -> str:
    alignment, near = figures.alignment, figures.map
    neighbours, chance = alignment.neighbours, alignment.neighbour_chance
    return f"""On {alignment.images:,} held-out images:

| measure | value |
|---|---|
| centred cosine to the teacher | {alignment.centred_cosine:.3f} |
| cosine to the teacher (a constant output has {alignment.constant_baseline:.3f}) | {alignment.cosine_mean:.3f} |
| nearest {neighbours} neighbours in common (chance {chance:.1%}) | {alignment.neighbour_agreement:.1%} |
{"" if near is None else MAP_ROWS.format(near)}{"" if figures.dense_cosine is None else DENSE_ROW.format(figures.dense_cosine)}"""


def _making(provenance: Provenance, figures: Figures | None) -> str:
    shares = provenance.shares
    blocks = f"the first {shares.truncate} truncated, then {shares.tune} tuned and {shares.freeze} frozen"
    if figures is None:
        return f"Of the teacher's blocks {blocks}.\n"
    return f"""Training: {figures.samples:,} images seen ({figures.training_images:,} different ones, no labels) in \
{figures.seconds / 60:.1f} minutes, seed
{figures.seed}, {figures.precision}; of the teacher's blocks {blocks};
{figures.skipped} images could not be read.
"""


def write_config(path: Path, config: SparseFormerConfig, *, provenance: Provenance | None, figures: Figures | None) -> None:
    """Writes a ``config.json`` with the part of a run's that describes the model."""
    resolved: dict[str, Any] = {"model": to_dict(config)}
    if provenance is not None:
        resolved["teacher"] = {"name": provenance.teacher}
        resolved["teacher_fingerprint"] = provenance.teacher_fingerprint
        resolved["shares"] = to_dict(provenance.shares)
    write_json(path, {"resolved": resolved} | ({} if figures is None else {"figures": to_dict(figures)}))


def read_figures(path: Path, config: SparseFormerConfig) -> Figures | None:
    """The figures in a ``config.json`` of a run or of :func:`write_config`; None where there are none, or no such file.

    Raises ConfigError for unknown keys, WeightsError if the file is damaged, or of another model than the weights' ``config``.
    """
    if not path.is_file():
        return None
    where = f"configuration in '{path}'"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"The file '{path}' cannot be read as JSON ({error}).", "Fetch or save the model again.") from None
    resolved = content.get("resolved", {}) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(resolved, Mapping):
        raise ConfigError(f"The {where} is not a mapping of names to values.", "Fetch or save the model again.")
    if unknown := [key for key in content if key not in CONFIG_KEYS]:
        named = ", ".join(f"unknown key '{key}'" for key in unknown)
        problem = f"The {where} does not fit: {named}. {suggest(unknown[0], CONFIG_KEYS)}".strip()
        raise ConfigError(problem, f"Known keys are: {', '.join(CONFIG_KEYS)}.")
    if "model" in resolved and read_config(resolved["model"], where=where) != config:
        raise WeightsError(f"'{path}' and the weights beside it are of two models.", "Fetch or save the model again.")
    figures = content.get("figures")
    return None if figures is None else from_dict(Figures, figures, where=f"figures in '{path}'")


def refuse_run(folder: Path) -> None:
    """Raises RunError if saving to a folder would replace the settings of a run, or if it is no folder."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file.", "Save to a folder.")
    config = folder / CONFIG_FILE
    if config.is_file() and '"settings"' in config.read_text(encoding="utf-8", errors="replace"):
        raise RunError(f"The folder '{folder}' is a run, whose settings would be lost.", "Save to another folder.")
