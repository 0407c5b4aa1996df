"""The model card of a run: what it is, how near it is to its teacher, how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseformers.files import write_json, write_text
from sparseformers.integrations.card import Figures, card_text
from sparseformers.settings import from_dict, to_dict
from sparseformers.train.callbacks import Callback
from sparseformers.train.setup import Parts
from sparseformers.train.summary import RunSummary, summary_figures


class Card(Callback):
    """Writes the card of a finished run.

    Args:
        path: of the README.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_end(self, parts: Parts, summary: RunSummary) -> None:
        write_card(self.path, parts, summary_figures(summary))


def write_card(path: Path, parts: Parts, figures: Mapping[str, Any]) -> None:
    """Writes the run's README, and its figures into the ``config.json`` beside it, from where they travel with the model.

    Args:
        path: of the README.
        parts: of the training.
        figures: the run's summary as plain values.
    """
    measured = _figures(parts, figures)
    config = path.with_name("config.json")
    write_json(config, {**json.loads(config.read_text(encoding="utf-8")), "figures": to_dict(measured)})
    student, provenance = parts.inheritance.student, parts.inheritance.provenance
    loading = f'sparseformers.load("{Path(figures["path"]).name}")'
    text = card_text(student.config, cost=measured.student_cost, provenance=provenance, figures=measured, loading=loading)
    write_text(path, text)


def _figures(parts: Parts, figures: Mapping[str, Any]) -> Figures:
    """Of the run's summary what is told to others, with what the parts know."""
    told = {name: figures[name] for name in ("alignment", "student_cost", "teacher_cost", "samples", "seconds", "skipped")}
    known = {
        "patch_tokens": parts.teacher.patch_tokens,
        "training_images": len(parts.train),
        "seed": parts.settings.seed,
        "precision": parts.precision,
        "licence": parts.teacher.identity.licence,
    }
    return from_dict(Figures, {**told, **known}, where="figures of the run")
