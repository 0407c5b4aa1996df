"""Small models of Hugging Face's families with random weights, and folders of them."""

import json
from pathlib import Path
from typing import Any

import pytest
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


def modern(kind: str, config: str, **options: Any) -> nn.Module:
    if not hasattr(hf, kind):
        pytest.skip(f"transformers {hf.__version__} has no {kind}")
    return randomise(getattr(hf, kind)(getattr(hf, config)(**{**TOWER, **options})))


def dinov3(**options: Any) -> nn.Module:
    return modern("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=3, **options)


def siglip2(*, kind: str = "Siglip2VisionModel", **options: Any) -> nn.Module:
    pytest.importorskip("transformers", minversion="5")  # before, its tower alone could not be saved
    sizes = {name: value for name, value in TOWER.items() if name != "image_size"}
    vision = {**sizes, "num_patches": 16, **options}
    if kind == "Siglip2Model":
        return randomise(hf.Siglip2Model(hf.Siglip2Config(text_config=TEXT, vision_config=vision)))
    return randomise(hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**vision)))


def beit(*, kind: str = "BeitModel", **options: Any) -> nn.Module:
    return modern(kind, "BeitConfig", **options)


def timm_wrapper(*, kind: str = "TimmWrapperModel", **options: Any) -> nn.Module:
    pytest.importorskip("transformers", minversion="5")  # before, its start was at odds with timm's
    own = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": 32, "patch_size": 8}
    config = hf.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=own, **options)
    return randomise(getattr(hf, kind)(config))


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
    "SigLIP 2's tower, NaFlex": siglip2,
    "SigLIP 2, NaFlex": lambda: siglip2(kind="Siglip2Model"),
    "DINOv3": dinov3,
    "DINOv3 with a gate": lambda: dinov3(use_gated_mlp=True, hidden_act="silu"),
    "AIMv2's tower with a head": lambda: modern("Aimv2VisionModel", "Aimv2VisionConfig"),
    "AIMv2's tower without a head": lambda: modern("Aimv2VisionModel", "Aimv2VisionConfig", use_head=False),
    "AIMv2's tower at a native size": lambda: modern("Aimv2VisionModel", "Aimv2VisionConfig", is_native=True, use_head=False),
    "MAE": lambda: modern("ViTMAEModel", "ViTMAEConfig"),
    "BEiT": lambda: beit(use_relative_position_bias=True),
    "BEiT with absolute positions and a class token": lambda: beit(
        use_absolute_position_embeddings=True, use_shared_relative_position_bias=True, use_mean_pooling=False
    ),
    "BEiT with a classifier": lambda: beit(kind="BeitForImageClassification", num_labels=5, use_relative_position_bias=True),
    "Data2Vec": lambda: modern("Data2VecVisionModel", "Data2VecVisionConfig", use_shared_relative_position_bias=True),
    "I-JEPA": lambda: modern("IJepaModel", "IJepaConfig"),
    "I-JEPA with a classifier": lambda: modern("IJepaForImageClassification", "IJepaConfig", num_labels=5),
    "MetaCLIP 2's tower": lambda: modern("MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", projection_dim=24),
    "timm's ViT": timm_wrapper,
    "timm's ViT with a classifier": lambda: timm_wrapper(kind="TimmWrapperForImageClassification", num_labels=5),
}
"""All families, each in the forms that differ in what has to be read."""
