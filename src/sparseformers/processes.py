"""The device of this process, and whether it is one of several (torchrun, accelerate launch)."""

from __future__ import annotations

import torch
from accelerate import Accelerator, PartialState


def process_state() -> PartialState:
    """Accelerate's state of this process; joins the others where there are any."""
    # Without being told, accelerate does not join processes of a machine without an accelerator.
    return PartialState(cpu=not torch.accelerator.is_available())


def make_accelerator() -> Accelerator:
    """Accelerate's handle on devices and processes; precision is ours, so it is told of none."""
    process_state()
    return Accelerator(cpu=not torch.accelerator.is_available())
