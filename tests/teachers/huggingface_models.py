"""Small models of Hugging Face's families with random weights, and folders of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as hf
from torch import nn

from tests.teachers.identity import randomise

SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TOWER: dict[str, Any] = {**SIZES, "intermediate_size": 96}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 8,
}


def vit(*, kind: str = "ViTModel", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.ViTConfig(**{**TOWER, **options})))


def dinov2(*, kind: str = "Dinov2Model", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.Dinov2Config(**{**SIZES, "mlp_ratio": 2, **options})))


def dinov2_with_registers(**options: Any) -> nn.Module:
    config = hf.Dinov2WithRegistersConfig(**{**SIZES, "mlp_ratio": 2, "num_register_tokens": 3, **options})
    return randomise(hf.Dinov2WithRegistersModel(config))


def clip_vision(*, kind: str = "CLIPVisionModel", **options: Any) -> nn.Module:
    return randomise(getattr(hf, kind)(hf.CLIPVisionConfig(**{**TOWER, "projection_dim": 24, **options})))


def clip() -> nn.Module:
    vision = {**TOWER, "projection_dim": 40}  # at odds with the whole's on purpose: the whole's counts
    return randomise(hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=16)))


def siglip_vision(**options: Any) -> nn.Module:
    return randomise(hf.SiglipVisionModel(hf.SiglipVisionConfig(**{**TOWER, **options})))


def siglip() -> nn.Module:
    return randomise(hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=TOWER)))


def save(network: nn.Module, folder: Path, processor: dict[str, Any] | None = None) -> str:
    """Saves a model as a repository holds it, its preprocessing at its own size by default, and names it as a teacher."""
    network.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "do_center_crop": False} if processor is None else processor
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


VARIANTS: dict[str, Any] = {
    "ViT": vit,
    "ViT of odd depth": lambda: vit(num_hidden_layers=3),
    "ViT without biases of query, key and value": lambda: vit(qkv_bias=False),
    "ViT with quick GELU": lambda: vit(hidden_act="quick_gelu"),
    "ViT with another epsilon": lambda: vit(layer_norm_eps=1e-3),
    "ViT with a classifier": lambda: vit(kind="ViTForImageClassification", num_labels=5),
    "DINOv2": dinov2,
    "DINOv2 with SwiGLU": lambda: dinov2(use_swiglu_ffn=True),
    "DINOv2 with a classifier": lambda: dinov2(kind="Dinov2ForImageClassification", num_labels=5),
    "DINOv2 with registers": dinov2_with_registers,
    "DINOv2 with registers and SwiGLU": lambda: dinov2_with_registers(use_swiglu_ffn=True),
    "CLIP's tower": clip_vision,
    "CLIP's tower with projection": lambda: clip_vision(kind="CLIPVisionModelWithProjection"),
    "CLIP's tower with GELU": lambda: clip_vision(hidden_act="gelu"),
    "CLIP": clip,
    "SigLIP's tower": siglip_vision,
    "SigLIP": siglip,
}
"""All families, each in the forms that differ in what has to be read."""
