"""The model card of a run: what it is, how near it is to its teacher, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseformers.bootstrap.setup import Parts
from sparseformers.files import write_text


def write_card(path: Path, parts: Parts, figures: Mapping[str, Any]) -> None:
    """Writes the run's README.

    Args:
        path: of the file.
        parts: of the training.
        figures: the run's summary as plain values.
    """
    write_text(path, _card(parts, figures))


def _card(parts: Parts, figures: Mapping[str, Any]) -> str:
    provenance, settings = parts.inheritance.provenance, parts.settings
    alignment, student, teacher = figures["alignment"], figures["student_cost"], figures["teacher_cost"]
    shares, minutes = provenance.shares, figures["seconds"] / 60
    height, width = parts.size
    neighbours, chance = alignment["neighbours"], alignment["neighbour_chance"]
    licence = parts.teacher.identity.licence or "see where the teacher comes from"
    return f"""# A SparseFormer of {_without_folders(provenance.teacher)}

Bootstrapped by sparseformers from plain images: its embeddings lie in the space of its teacher, so that classifiers, text
towers and indexes made for the teacher take them.

| | student | teacher |
|---|---|---|
| latent tokens / patch tokens | {parts.inheritance.student.config.focusing.tokens} | {parts.teacher.patch_tokens} |
| multiply-adds at {height} x {width} | {student["multiply_adds"] / 1e9:.2f} G | {teacher["multiply_adds"] / 1e9:.2f} G |
| parameters | {student["parameters"] / 1e6:.1f} M | {teacher["parameters"] / 1e6:.1f} M |

On {alignment["images"]:,} held-out images:

| measure | value |
|---|---|
| centred cosine to the teacher | {alignment["centred_cosine"]:.3f} |
| cosine to the teacher (a constant output has {alignment["constant_baseline"]:.3f}) | {alignment["cosine_mean"]:.3f} |
| nearest {neighbours} neighbours in common (chance {chance:.1%}) | {alignment["neighbour_agreement"]:.1%} |

Training: {figures["samples"]:,} images seen ({len(parts.train):,} different ones, no labels) in {minutes:.1f} minutes, seed
{settings.seed}, {parts.precision}; of the teacher's blocks the first {shares.truncate} truncated, then {shares.tune} tuned and
{shares.freeze} frozen; {figures["skipped"]} images could not be read.

```python
import sparseformers

student = sparseformers.load("{Path(figures["path"]).name}")
output = student(images)  # B x 3 x H x W in [0, 1] -> output.embedding, output.tokens, output.rois
```

The weights derive from the teacher's, whose licence holds for them: {licence}.
"""


def _without_folders(teacher: str) -> str:
    """The teacher's name without the folders of a local file: they are nobody else's business."""
    name, at, file = teacher.partition("@")
    return f"{name}{at}{Path(file).name}" if at else teacher
