"""Images from folders: finding and decoding them, views to train on and to evaluate with, what is held out or skipped."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
