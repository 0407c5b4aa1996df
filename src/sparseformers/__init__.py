"""sparseformers: bootstrap a SparseFormer from a vision foundation model, and use it in the model's place.

The library mirrors the commands::

    teacher = sparseformers.load_teacher("timm:vit_base_patch16_224.augreg_in21k_ft_in1k")
    student, report, provenance = sparseformers.inherit(teacher)
    summary = sparseformers.bootstrap(sparseformers.BootstrapConfig(teacher="bundled", data=(Path("photos"),)), "runs/first")
    student = sparseformers.load("runs/first")
    output = student(images)  # B x 3 x H x W in [0, 1] -> a SparseFormerOutput
    summary = sparseformers.embed(sparseformers.EmbedConfig(model="runs/first", data=("photos",)), "photos.parquet")
    page = sparseformers.view("runs/first", ["photos"])  # where it looks, in a page on this machine
    summary = sparseformers.export("runs/first", "first.onnx", sparseformers.ExportConfig(format="onnx"))
    fast = sparseformers.pack_weights(sparseformers.fold_embedding(student))  # images -> embeddings, sooner on a CPU
    student = sparseformers.create_model("sf_base_augreg", pretrained=True)  # as the authors released it
    student = timm.create_model("sf_base_augreg", pretrained=True, num_classes=10)  # and wherever timm's models are used
"""

from __future__ import annotations

from sparseformers.config import SparseFormerConfig
from sparseformers.embedding import EmbedConfig, EmbedSummary, embed
from sparseformers.errors import SparseFormersError
from sparseformers.exporting import ExportConfig, ExportSummary, export
from sparseformers.import_hooks import install as _install_import_hooks
from sparseformers.inference import FoldedEmbedding, FoldedSparseFormer, fold, fold_embedding, pack_weights
from sparseformers.integrations.hub import SparseFormer
from sparseformers.integrations.public import (
    as_open_clip_visual,
    as_vision_tower,
    create_model,
    inherit,
    load,
    load_official,
    open_model,
)
from sparseformers.model import SparseFormerOutput
from sparseformers.named import named_config
from sparseformers.saving import save
from sparseformers.teachers import Teacher, load_teacher
from sparseformers.train import BootstrapConfig, bootstrap, resume
from sparseformers.viewer import view

__version__ = "0.2.0"

_install_import_hooks()

__all__ = [
    "BootstrapConfig",
    "EmbedConfig",
    "EmbedSummary",
    "ExportConfig",
    "ExportSummary",
    "FoldedEmbedding",
    "FoldedSparseFormer",
    "SparseFormer",
    "SparseFormerConfig",
    "SparseFormerOutput",
    "SparseFormersError",
    "Teacher",
    "as_open_clip_visual",
    "as_vision_tower",
    "bootstrap",
    "create_model",
    "embed",
    "export",
    "fold",
    "fold_embedding",
    "inherit",
    "load",
    "load_official",
    "load_teacher",
    "named_config",
    "open_model",
    "pack_weights",
    "resume",
    "save",
    "view",
]
