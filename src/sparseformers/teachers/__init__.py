"""Foundation models to inherit from, behind one interface; one adapter per host library, imported when it is asked for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
