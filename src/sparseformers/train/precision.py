"""Which precision matrix products run in."""

from __future__ import annotations

import time
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
"""Of matrix products."""

WORTHWHILE = 1.2
"""bfloat16 has to be so many times as fast as float32 to be chosen."""


def resolve_precision(asked: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Turns ``auto`` into the faster of float32 and bfloat16 on this machine; float16 is only taken where it is asked for.

    Some GPUs before Ampere and some processors emulate bfloat16 slowly. GPUs of CUDA say so; anything else is measured for a
    few milliseconds.
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
    """Multiplies the loss so that small gradients do not vanish in float16; in other precisions it does nothing.

    Processes that train one student each have one: their gradients are the same, and of parts of one PyTorch tells all whether
    they are finite, so their scales are the same, too.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


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
