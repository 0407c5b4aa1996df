"""Students as files that others run: ONNX, OpenVINO, torch.export, safetensors."""

from sparseformers.exporting.check import Agreement, ExportCheckError
from sparseformers.exporting.config import ExportConfig
from sparseformers.exporting.run import ExportSummary, export

__all__ = ["Agreement", "ExportCheckError", "ExportConfig", "ExportSummary", "export"]
