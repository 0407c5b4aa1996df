from .check import Agreement as Agreement
from .check import ExportCheckError as ExportCheckError
from .config import ExportConfig as ExportConfig
from .run import ExportSummary as ExportSummary
from .run import export as export
