"""Additions to the imports of timm and torchvision, which ``import sparseformers`` installs without importing either.

- timm knows the ``sf_*`` models as soon as it is imported, so that ``timm.create_model("sf_base_augreg")`` works.
- torchvision can be imported beside a PyTorch build that its compiled operators do not match, such as a CPU build of PyTorch
  beside the registry's CUDA build of torchvision: it describes operators (non-maximum suppression) that its extension could not
  register, and nobody here uses. Declaring their names lets the import go on; calling one of them still fails.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
MOST_OPERATORS = 8
TIMM_MODELS = "sparseformers.integrations.timm_models"  # importing this module registers the models

Execute = Callable[[Loader, ModuleType], None]
_declared: list[Any] = []  # operator libraries of PyTorch are undone when they are collected


def install() -> None:
    """Adds to the imports of timm and torchvision; a second call does nothing."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path[:0] = [_Finder("torchvision", _execute_torchvision), _Finder("timm", _execute_timm)]
    if "timm" in sys.modules:
        importlib.import_module(TIMM_MODELS)


def _execute_timm(loader: Loader, module: ModuleType) -> None:
    loader.exec_module(module)
    importlib.import_module(TIMM_MODELS)


def _execute_torchvision(loader: Loader, module: ModuleType) -> None:
    import torch

    for _ in range(MOST_OPERATORS):
        try:
            loader.exec_module(module)
        except RuntimeError as error:
            if (missing := MISSING_OPERATOR.search(str(error))) is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
        else:
            return


class _Finder(MetaPathFinder, Loader):
    """Finds one module as the other finders do, and stands in for its own loader until it is executed, in another way."""

    def __init__(self, name: str, execute: Execute) -> None:
        self.name, self.execute = name, execute
        self.loader: Loader

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.execute(self.loader, module)
