"""A page on this machine to see where a student looks: stage by stage and token by token, beside its teacher or another model.

``session`` answers what the page asks, ``app`` puts it on the web, ``server`` serves it, and ``page/`` is what a browser gets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
