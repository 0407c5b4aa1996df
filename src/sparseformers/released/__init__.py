"""The weights that the authors of SparseFormer released: fetching, reading and converting them.

Facts about their files are from https://github.com/showlab/sparseformer (MIT licence).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
