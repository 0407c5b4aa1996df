"""The model card: what a student is, how near it is to its teacher, how to use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparseformers.config import SparseFormerConfig
from sparseformers.evaluation import Alignment, Cost
from sparseformers.inheritance import Provenance


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a bootstrapping run measured of its student; kept under ``figures`` in ``config.json``."""

    alignment: Alignment
    """On the held-out images, at the end."""
    student_cost: Cost
    """Of the student at the run's image size."""
    teacher_cost: Cost
    """Of the teacher at the run's image size."""
    patch_tokens: int
    """Patches that the teacher cuts such an image into."""
    samples: int
    """Images seen in training."""
    training_images: int
    """Different ones among them."""
    skipped: int
    """Images that could not be read."""
    seconds: float
    """Time spent training."""
    seed: int
    """Of the run."""
    precision: str
    """That it was trained in."""
    licence: str | None
    """The licence of the teacher's weights, where known."""


def card_text(
    config: SparseFormerConfig,
    *,
    cost: Cost,
    provenance: Provenance | None,
    figures: Figures | None,
    loading: str,
) -> str:
    """The text of a model card, in Markdown.

    Args:
        config: of the student.
        cost: of the student, where no figures of a run say it.
        provenance: where it comes from; None for a model without a teacher.
        figures: what its run measured; None where it comes from no finished run.
        loading: the Python expression that loads it.
    """
    parts = [_opening(provenance)]
    parts += [_cost_table(config, cost)] if figures is None else [_comparison(config, figures), _alignment(figures.alignment)]
    parts += [] if provenance is None else [_making(provenance, figures)]
    parts += [_usage(loading)]
    if provenance is not None:
        licence = (None if figures is None else figures.licence) or "see where the teacher comes from"
        parts.append(f"The weights derive from the teacher's, whose licence holds for them: {licence}.\n")
    return "\n".join(parts)


def without_folders(teacher: str) -> str:
    """The teacher's name without the folders of a local file: they are nobody else's business."""
    name, at, file = teacher.partition("@")
    if at:
        return f"{_last_part(name)}@{Path(file).name}"
    return _last_part(name)


def repository_of(teacher: str) -> str | None:
    """The hub's name of a teacher, OWNER/NAME; None where it does not come from there."""
    kind, _, rest = teacher.partition(":")
    if "@" in rest or Path(rest).is_absolute() or kind not in ("timm", "hf"):
        return None
    return f"timm/{rest}" if kind == "timm" else rest


def _last_part(name: str) -> str:
    """A name whose part after the colon may be the path of a folder or file (``hf:FOLDER``, ``open_clip:FILE.json``)."""
    kind, colon, rest = name.partition(":")
    return f"{kind}{colon}{Path(rest).name}" if Path(rest).is_absolute() else name


def _opening(provenance: Provenance | None) -> str:
    if provenance is None:
        return """# A SparseFormer

It turns an image into a few latent tokens, each with a region of interest, and thinks about those.
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
    student, teacher = figures.student_cost, figures.teacher_cost
    height, width = student.size
    return f"""| | student | teacher |
|---|---|---|
| latent tokens / patch tokens | {config.focusing.tokens} | {figures.patch_tokens} |
| multiply-adds at {height} x {width} | {student.multiply_adds / 1e9:.2f} G | {teacher.multiply_adds / 1e9:.2f} G |
| parameters | {student.parameters / 1e6:.1f} M | {teacher.parameters / 1e6:.1f} M |
"""


def _alignment(alignment: Alignment) -> str:
    neighbours, chance = alignment.neighbours, alignment.neighbour_chance
    return f"""On {alignment.images:,} held-out images:

| measure | value |
|---|---|
| centred cosine to the teacher | {alignment.centred_cosine:.3f} |
| cosine to the teacher (a constant output has {alignment.constant_baseline:.3f}) | {alignment.cosine_mean:.3f} |
| nearest {neighbours} neighbours in common (chance {chance:.1%}) | {alignment.neighbour_agreement:.1%} |
"""


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


def _usage(loading: str) -> str:
    return f"""```python
import sparseformers

student = {loading}
output = student(images)  # B x 3 x H x W in [0, 1] -> output.embedding, output.tokens, output.rois
```
"""
