"""Makes torchvision importable beside a PyTorch build that its compiled operators do not match.

A CPU build of PyTorch beside the registry's CUDA build of torchvision is common, and then ``import torchvision`` fails:
it describes operators (non-maximum suppression) that its extension could not register. Neither we nor timm use them, only
the transforms, which are Python. Declaring the names lets the import go on; calling one of them still fails.
"""

from __future__ import annotations

import re

import torch

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
_MOST_OPERATORS = 8
_declared: list[torch.library.Library] = []
"""Libraries are undone when collected, so they are kept."""


def import_torchvision() -> None:
    """Imports torchvision; declares the operators that it lacks where its extension does not load."""
    for _ in range(_MOST_OPERATORS):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
        else:
            return
