"""A small network of each family of timm, with random weights and what tells the families apart."""

from typing import Any

import pytest
import timm
from torch import nn

from tests.teachers.identity import randomise

SMALL: dict[str, Any] = {"embed_dim": 64, "num_heads": 2, "depth": 2, "patch_size": 8}
NAFLEX: dict[str, Any] = {**SMALL, "pos_embed_grid_size": (8, 8)}
SIZED: dict[str, Any] = {**SMALL, "img_size": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "DINOv3": ("vit_small_patch16_dinov3", SIZED),
    "DINOv3 with biases and a gate": ("vit_small_plus_patch16_dinov3_qkvb", SIZED),
    "EVA-02": ("eva02_base_patch14_224", SIZED),
    "EVA-02, small": ("eva02_tiny_patch14_336", {**SIZED, "num_classes": 5}),
    "EVA-02's CLIP": ("eva02_base_patch16_clip_224", SIZED),
    "EVA-02, enormous": ("eva02_enormous_patch14_clip_224", SIZED),
    "EVA": ("eva_giant_patch14_224", SIZED),
    "Perception Encoder, core": ("vit_pe_core_tiny_patch16_384", SIZED),
    "Perception Encoder, core, gigantic": ("vit_pe_core_gigantic_patch14_448", SIZED),
    "Perception Encoder, lang": ("vit_pe_lang_large_patch14_448", SIZED),
    "Perception Encoder, spatial": ("vit_pe_spatial_tiny_patch16_512", SIZED),
    "ROPE-ViT, axial": ("vit_small_patch16_rope_224", SIZED),
    "ROPE-ViT, mixed, with absolute positions": ("vit_small_patch16_rope_mixed_ape_224", SIZED),
    "ViT with rotary positions and a register": ("vit_medium_patch16_rope_reg1_gap_256", SIZED),
    "Sapiens2": ("vit_base_patch16_sapiens2", {**SIZED, "num_heads": 4, "num_kv_heads": 2}),
    "LingBot": ("vit_small_patch16_lingbot", SIZED),
    "BEiT": ("beit_base_patch16_224", {**SIZED, "num_classes": 5}),
    "BEiT v2": ("beitv2_base_patch16_224", {**SIZED, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    "BEiT-3": ("beit3_base_patch16_224", SIZED),
    "relative positions": ("vit_relpos_small_patch16_224", SIZED),
    "relative positions, shared": ("vit_srelpos_small_patch16_224", SIZED),
    "relative positions and a class token": ("vit_relpos_medium_patch16_cls_224", SIZED),
    "relative positions, post-norm": ("vit_relpos_medium_patch16_rpn_224", SIZED),
    "relative positions, in a table": ("vit_relpos_small_patch16_224", {**SIZED, "rel_pos_type": "bias", "class_token": True}),
    "post-norm": ("vit_base_patch16_rpn_224", SIZED),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", SIZED),
    "AIMv2": ("aimv2_large_patch14_224", SIZED),
    "NaFlexViT": ("naflexvit_base_patch16_gap", NAFLEX),
    "NaFlexViT, aspect kept": ("naflexvit_base_patch16_par_gap", NAFLEX),
    "NaFlexViT, factorised": ("naflexvit_base_patch16_parfac_gap", NAFLEX),
    "SigLIP 2, NaFlex": ("naflexvit_base_patch16_siglip", NAFLEX),
    "RADIO": ("naflexvit_base_patch16_radio_v3", {**NAFLEX, "pos_embed_grid_size": (16, 16)}),
}


def small(family: str) -> nn.Module:
    architecture, options = FAMILIES[family]
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")
    return randomise(timm.create_model(architecture, **options))
