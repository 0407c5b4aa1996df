"""The state that networks are measured in, and are brought back from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(*networks: object) -> Iterator[None]:
    """Puts networks in evaluation mode and every part of them back in its own mode afterwards.

    Args:
        networks: whatever is to be called; only modules among them have a mode.
    """
    parts = [part for network in networks if isinstance(network, nn.Module) for part in network.modules()]
    # Part by part: frozen blocks of a network in training may be in evaluation mode for good.
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            part.training = training


@contextmanager
def inference(device: torch.device, autocast: torch.dtype | None, *, gradients_later: bool = False) -> Iterator[None]:
    """Inference mode, in the precision ``autocast`` on ``device`` (None: in the networks' own).

    With ``gradients_later`` gradients are only turned off: what sharded weights gather in inference mode cannot learn later.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad() if gradients_later else torch.inference_mode())
        if autocast is not None:
            stack.enter_context(torch.autocast(device.type, dtype=autocast))
        yield
