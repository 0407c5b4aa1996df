from .config import SparseFormerConfig as SparseFormerConfig
from .embedding.config import EmbedConfig as EmbedConfig
from .embedding.run import EmbedSummary as EmbedSummary
from .embedding.run import embed as embed
from .errors import SparseFormersError as SparseFormersError
from .exporting.config import ExportConfig as ExportConfig
from .exporting.run import ExportSummary as ExportSummary
from .exporting.run import export as export
from .inference.embedding import FoldedEmbedding as FoldedEmbedding
from .inference.embedding import fold_embedding as fold_embedding
from .inference.fold import FoldedSparseFormer as FoldedSparseFormer
from .inference.fold import fold as fold
from .inference.packing import pack_weights as pack_weights
from .integrations.hub import SparseFormer as SparseFormer
from .integrations.public import (
    create_model as create_model,
)
from .integrations.public import (
    inherit as inherit,
)
from .integrations.public import (
    load as load,
)
from .integrations.public import (
    load_official as load_official,
)
from .integrations.public import (
    open_model as open_model,
)
from .model.sparseformer import SparseFormerOutput as SparseFormerOutput
from .named import named_config as named_config
from .saving import save as save
from .teachers.base import Teacher as Teacher
from .teachers.registry import load_teacher as load_teacher
from .train.run import bootstrap as bootstrap
from .train.run import resume as resume
from .train.settings import BootstrapConfig as BootstrapConfig
from .viewer.run import view as view

__version__: str
