"""Ways to run networks: the precision of matrix products, evaluation mode, inference mode."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]
WORTHWHILE = 1.2  # bfloat16 is chosen if it is so many times as fast as float32


def resolve_precision(asked: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Turns ``auto`` into the faster of float32 and bfloat16 on this machine.

    Some GPUs before Ampere and some processors emulate bfloat16 slowly. CUDA says so; the others are measured once in a process.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds = {dtype: _seconds_of_product(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    return "bf16" if seconds[torch.float32] > WORTHWHILE * seconds[torch.bfloat16] else "fp32"


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """The dtype for autocast; None for none."""
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that small gradients do not vanish in float16, alike in all processes; else it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


@functools.cache
@torch.inference_mode()
def _seconds_of_product(dtype: torch.dtype, device: torch.device) -> float:
    """Shortest time of a product of the size that a vision transformer makes."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2048, 384, generator=generator).to(device, dtype)
    weight = torch.randn(1536, 384, generator=generator).to(device, dtype)
    shortest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)[0, 0].item()  # which waits for the device
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


@contextmanager
def evaluation_mode(*networks: object) -> Iterator[None]:
    """Puts the modules among ``networks`` in evaluation mode, and every part of them back in its own mode afterwards."""
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
