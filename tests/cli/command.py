"""The command line as its user has it, and a student to try it on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparseformers.cli.main import main
from sparseformers.inheritance import inherit
from sparseformers.saving import save
from sparseformers.teachers import load_teacher
from tests.tiny import SIDE, write_teacher

SMALL = ("--image-size", str(SIDE), "--tokens", "4", "--batch-size", "4")
FAST = (*SMALL, "--samples", "16", "--holdout", "0.3", "--evaluations", "1", "--precision", "fp32", "--workers", "0")
"""Options of a training of four steps."""


@dataclass(frozen=True)
class Command:
    """Runs commands in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: object, code: int = 0) -> str:
        """All that a command prints, with single spaces and without the lines of tables; it has to end with this code."""
        out, err = self._run(words, code)
        return " ".join(f"{out} {err}".replace("│", " ").split())

    def refused(self, *words: object) -> str:
        """What a command prints that cannot be done."""
        return self(*words, code=2)

    def json(self, *words: object) -> Any:
        """What a command prints with ``--json``, which is all of its standard output."""
        return json.loads(self._run([*words, "--json"], 0)[0])

    def _run(self, words: Sequence[object], code: int) -> tuple[str, str]:
        self.capsys.readouterr()
        try:
            ended = main([str(word) for word in words])
        except SystemExit as stop:  # of the parser
            ended = int(stop.code or 0)
        out, err = self.capsys.readouterr()
        assert ended == code, out + err
        assert "Traceback" not in out + err
        return out, err


def save_student(folder: Path, **options: Any) -> str:
    """Writes an untrained student of a tiny teacher, of 4 tokens, beside that teacher; the place of its file."""
    teacher = load_teacher(write_teacher(folder / "teacher.safetensors"), image_size=SIDE)
    student, _, provenance = inherit(teacher, **{"tokens": 4} | options)
    save(student, folder / "model.safetensors", provenance=provenance)
    return str(folder / "model.safetensors")
