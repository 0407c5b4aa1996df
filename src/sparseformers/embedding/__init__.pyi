from .config import EmbedConfig as EmbedConfig
from .run import EmbedSummary as EmbedSummary
from .run import embed as embed
