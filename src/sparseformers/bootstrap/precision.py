"""Which precision matrix products run in."""

from __future__ import annotations

import time
from typing import Literal

import torch

WORTHWHILE = 1.2
"""bfloat16 has to be so many times as fast as float32 to be chosen."""


def resolve_precision(asked: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """Turns ``auto`` into the faster of float32 and bfloat16 on this machine.

    The CPU is measured for a few milliseconds, because some processors emulate bfloat16 slowly.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    seconds = {dtype: _seconds_of_product(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    return "bf16" if seconds[torch.float32] > WORTHWHILE * seconds[torch.bfloat16] else "fp32"


def autocast_dtype(precision: Literal["fp32", "bf16"]) -> torch.dtype | None:
    """The dtype for autocast; None for none."""
    return torch.bfloat16 if precision == "bf16" else None


@torch.inference_mode()
def _seconds_of_product(dtype: torch.dtype, device: torch.device) -> float:
    """Shortest time of a product of the size that a vision transformer makes."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2048, 384, generator=generator).to(device, dtype)
    weight = torch.randn(1536, 384, generator=generator).to(device, dtype)
    shortest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
