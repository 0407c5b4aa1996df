"""Students as files that others run: ONNX, OpenVINO, torch.export, safetensors."""

from sparseformers.export.check import Agreement, ExportCheckError
from sparseformers.export.config import ExportConfig
from sparseformers.export.run import ExportSummary, export

__all__ = ["Agreement", "ExportCheckError", "ExportConfig", "ExportSummary", "export"]
