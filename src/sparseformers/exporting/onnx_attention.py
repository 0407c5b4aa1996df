"""Attention in ONNX: two products and a softmax.

PyTorch's translation turns the keys by way of three axes, whose sizes a file for any batch computes anew in each block; of this
one ONNX Runtime makes a product that takes the keys turned and the scores scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch


def translations() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """By PyTorch's operator, what to write in its place; for ``torch.onnx.export``."""
    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """As :func:`torch.nn.functional.scaled_dot_product_attention`, B x heads x T x C each, as far as models here use it."""
    from onnxscript import opset20 as op

    if dropout_p or is_causal or enable_gqa or (attn_mask is not None and attn_mask.dtype != query.dtype):
        raise ValueError("Attention with dropout, a causal or boolean mask, or shared keys is not written into ONNX files here.")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = op.MatMul(op.Mul(query, op.Constant(value_float=factor)), op.Transpose(key, perm=[0, 1, 3, 2]))
    scores = scores if attn_mask is None else op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)
