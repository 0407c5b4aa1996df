"""RoIs and sampling points of a SparseFormer, drawn on the image; and how its training went.

``run`` has :func:`visualize`; ``data`` gives a student its photographs, ``sheet`` places panels, ``panels`` fills them,
``output`` writes files. Figures are in ``stages``, ``map``, ``tokens`` and ``pca``: ``trace_X`` gives the data, ``draw_X`` draws.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
