"""Kept until nothing calls it: :mod:`sparseformers.import_hooks` does it."""

from __future__ import annotations

from sparseformers import import_hooks


def import_torchvision() -> None:
    """Imports torchvision."""
    import_hooks.install()
    import torchvision  # noqa: F401
