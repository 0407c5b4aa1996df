"""What an exported file says of itself: flat texts by name, the same in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version

from sparseformers.exporting.config import ExportConfig
from sparseformers.inheritance import Provenance
from sparseformers.model import SparseFormer
from sparseformers.saving import digest
from sparseformers.settings import to_dict


def describe(student: SparseFormer, provenance: Provenance | None, settings: ExportConfig) -> Mapping[str, str]:
    """What a file says of itself.

    Args:
        student: whose file it is.
        provenance: where the student comes from; None if nobody knows.
        settings: of the export.

    Returns:
        Texts by name. ``mean``, ``std`` and ``image_size`` are JSON; so is ``config``, the whole configuration.
    """
    preprocessing = student.config.preprocessing
    if settings.with_preprocessing:
        images = "uint8, batch x height x width x 3, red-green-blue, any size; resized, cropped and normalised inside"
    else:
        images = "float32, batch x 3 x height x width, red-green-blue in [0, 1], resized and cropped; normalised inside"
    texts = {
        "sparseformers": version("sparseformers"),
        "teacher": "unknown" if provenance is None else provenance.teacher,
        "teacher_fingerprint": "unknown" if provenance is None else provenance.teacher_fingerprint,
        "weights_digest": digest(student.state_dict()),
        "images": images,
        "embedding": f"float32, batch x {student.config.cortex.embedding_width}",
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
