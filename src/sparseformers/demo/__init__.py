"""The demonstration: bootstrap from the bundled teacher on the photographs that scikit-image and scikit-learn ship."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
