"""sparseformers: bootstrap a SparseFormer from a vision foundation model, and use it in the model's place.

The library mirrors the commands::

    teacher = sparseformers.load_teacher("timm:vit_base_patch16_224.augreg_in21k_ft_in1k")
    student, report, provenance = sparseformers.inherit(teacher)
    summary = sparseformers.bootstrap(sparseformers.BootstrapConfig(teacher="bundled", data=(Path("photos"),)), "runs/first")
    student = sparseformers.load("runs/first")
    output = student(images)  # B x 3 x H x W in [0, 1] -> a SparseFormerOutput
    student = sparseformers.create_model("sf_base_augreg", pretrained=True)  # as the authors released it
"""

from __future__ import annotations

from sparseformers.bootstrap import BootstrapConfig, bootstrap, resume
from sparseformers.config import SparseFormerConfig
from sparseformers.errors import SparseFormersError
from sparseformers.inherit import inherit
from sparseformers.model import SparseFormer, SparseFormerOutput
from sparseformers.named import named_config
from sparseformers.official import create_model, load_official
from sparseformers.saving import load, save
from sparseformers.teachers import Teacher, load_teacher

__version__ = "0.1.0"

__all__ = [
    "BootstrapConfig",
    "SparseFormer",
    "SparseFormerConfig",
    "SparseFormerOutput",
    "SparseFormersError",
    "Teacher",
    "bootstrap",
    "create_model",
    "inherit",
    "load",
    "load_official",
    "load_teacher",
    "named_config",
    "resume",
    "save",
]
