"""A page on this machine that shows the RoIs of a student, by stage and by token, beside its teacher or another model.

``session`` answers what the page asks, ``app`` puts it on the web, ``server`` serves it, and ``page/`` is what a browser gets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
