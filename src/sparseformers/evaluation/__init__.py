"""A student beside its teacher, in nearness and in cost: alignment, classification, retrieval, cost.

``run`` has :func:`evaluate`; the other files measure. Legend: M images (rows), D embedding width, Q queries, k neighbours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
