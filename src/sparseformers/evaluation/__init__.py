"""A student beside its teacher, in nearness and in cost: alignment, classification, retrieval, cost and time.

``run`` has :func:`evaluate` and ``profile`` has :func:`profile.profile`, which the commands call; the other files measure.
Legend: M images (rows), D embedding width, Q queries, k neighbours. Centred cosine comes before plain cosine everywhere.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
