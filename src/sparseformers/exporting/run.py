"""One export from settings to a file that is in its place: written aside, checked, and only then moved there."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sparseformers import __version__
from sparseformers.errors import ConfigError, RunError
from sparseformers.exporting.check import Agreement, batches, compare, find_photographs, other_sizes, require_agreement
from sparseformers.exporting.config import ExportConfig, Format
from sparseformers.exporting.formats import Contents, FileFormat, SafetensorsFile, TorchExportFile, require_format
from sparseformers.exporting.network import required_read_out
from sparseformers.exporting.onnx_file import OnnxFile
from sparseformers.exporting.openvino_file import OpenVinoFile
from sparseformers.files import synchronise
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer, WithTokens
from sparseformers.opening import model_name, open_student, with_tokens
from sparseformers.saving import digest
from sparseformers.settings import to_dict, with_words

FORMATS: Mapping[Format, FileFormat] = {
    "onnx": OnnxFile(),
    "openvino": OpenVinoFile(),
    "torch-export": TorchExportFile(),
    "safetensors": SafetensorsFile(),
}


@dataclass(frozen=True)
class ExportSummary:
    """The result of an export."""

    files: tuple[Path, ...]  # all of them are needed
    bytes: int
    agreement: Agreement
    tolerance: float  # the greatest error that the file was allowed
    metadata: Mapping[str, str]  # the texts inside of the file, by name


def export(
    model: str | Path | SparseFormer,
    out: str | Path,
    settings: ExportConfig | None = None,
    *,
    overwrite: bool = False,
    console: Console | None = None,
    **options: Any,
) -> ExportSummary:
    """Writes a student as a file that others run, once it is found to compute what the student computes.

    ``model`` is a run folder, a model file, the name of a released model, or a student; ``out`` has the ending of its format. The
    ``options`` are the words of the command's, such as ``format`` and ``precision``, and count more than ``settings``. Raises one
    of the kinds of SparseFormersError, with what to do; there is no file then, or the old one.
    """
    settings = with_words(ExportConfig, settings, options, where="call of export")
    kind, out = FORMATS[settings.format], Path(out)
    require_format(kind, settings)
    _require_place(kind, out, settings, overwrite=overwrite)
    saved = open_student(model)
    student = copy.deepcopy(saved.student).cpu().float().eval()  # the caller's stays where and how it is
    at_tokens: SparseFormer | WithTokens = with_tokens(student, settings.tokens, model_name(model))
    if settings.output == "dense":
        at_tokens = WithTokens(student, settings.tokens or student.config.focusing.tokens, required_read_out(student).grid)
    metadata, preprocessing = describe(student, saved.provenance, settings), student.config.preprocessing
    with (console or Console(quiet=True)).status("reading images") as step, _aside(out) as folder:
        found = find_photographs(settings, None if isinstance(model, SparseFormer) else Path(model))
        checked = [*batches(found.for_check, settings, preprocessing), *other_sizes(found.for_check, settings, preprocessing)]
        calibration = [batch.of_file for batch in batches(found.for_calibration, settings, preprocessing)]
        step.update("writing the file")
        kind.write(Contents(student, saved.provenance, settings, metadata, calibration), folder / out.name)
        step.update("checking the file")
        agreement = compare(kind.open(folder / out.name), at_tokens, checked)
        require_agreement(agreement, settings.allowed_error, what=f"{settings.format} file in {settings.precision}")
        files = kind.files(folder / out.name)
        size = sum(path.stat().st_size for path in files)
        for path in files:
            synchronise(path)
        for path in files:
            os.replace(path, out.parent / path.name)
    return ExportSummary(tuple(kind.files(out)), size, agreement, settings.allowed_error, metadata)


def describe(student: SparseFormer, provenance: Provenance | None, settings: ExportConfig) -> Mapping[str, str]:
    """The metadata of a file: texts by name. ``mean``, ``std``, ``image_size`` and ``config`` are JSON."""
    preprocessing = student.config.preprocessing
    images = "float32, batch x 3 x height x width, red-green-blue in [0, 1], resized and cropped; normalised inside"
    if settings.with_preprocessing:
        images = "uint8, batch x height x width x 3, red-green-blue, any size; resized, cropped and normalised inside"
    shape: tuple[int, ...] = (student.config.cortex.embedding_width,)
    if settings.output == "dense":
        shape = (student.config.cortex.block.width, *required_read_out(student).grid)
    texts = {
        "sparseformers": __version__,
        "teacher": "unknown" if provenance is None else provenance.teacher,
        "teacher_fingerprint": "unknown" if provenance is None else provenance.teacher_fingerprint,
        "weights_digest": digest(student.state_dict()),
        "images": images,
        settings.output: f"float32, batch x {' x '.join(map(str, shape))}",
        "image_size": json.dumps(list(preprocessing.size)),
        "crop": json.dumps(preprocessing.crop),
        "interpolation": preprocessing.interpolation,
        "resize": preprocessing.resize,
        "mean": json.dumps(list(preprocessing.mean)),
        "std": json.dumps(list(preprocessing.std)),
        "precision": settings.precision,
        "tokens": str(settings.tokens or student.config.focusing.tokens),
        "batch": str(settings.batch),
        "size": settings.size,
        "with_preprocessing": json.dumps(settings.with_preprocessing),
        "config": json.dumps(to_dict(student.config)),
    }
    return dict(sorted(texts.items()))


def _require_place(kind: FileFormat, out: Path, settings: ExportConfig, *, overwrite: bool) -> None:
    if out.suffix != kind.suffix:
        raise ConfigError(f"'{out}' does not end as files of the format {settings.format} do.", f"Let it end in {kind.suffix}.")
    taken = next((path for path in kind.files(out) if path.exists()), None)
    if taken is not None and not overwrite:
        raise RunError(f"'{taken}' is there already.", "Choose another file, or add --overwrite to replace it.")
    if out.is_dir():
        raise RunError(f"'{out}' is a folder.", "Choose the name of a file.")


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder beside the file to write to; it goes, whatever happens."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            yield Path(folder)
    except OSError as error:
        problem = f"The file '{out}' cannot be written ({error.strerror or error})."
        raise RunError(problem, "Free some space there if it is full, or choose another place.") from error
