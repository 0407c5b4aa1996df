"""SparseFormers in timm's registry: the named sizes, and ``sf_run`` for whatever was bootstrapped.

After ``import sparseformers``::

    network = timm.create_model("sf_base_augreg", pretrained=True, num_classes=10)
    network = timm.create_model("sf_run", run="runs/first")
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseformers.config import BlockConfig, CortexConfig, GridConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.integrations.timm_network import TimmSparseFormer
from sparseformers.integrations.timm_settings import timm_settings
from sparseformers.model import SparseFormer
from sparseformers.model.sparseformer import SMALLEST_SIDE
from sparseformers.named import NAMED_CONFIGS, named_config
from sparseformers.released import RELEASES, create_model
from sparseformers.released.load import RELEASE_URL
from sparseformers.saving import load
from sparseformers.teachers.timm import check_version
from sparseformers.torchvision_guard import import_torchvision

import_torchvision()

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg  # noqa: E402

RUN_CONFIG = SparseFormerConfig(
    focusing=GridConfig(tokens=64, patch_size=14),
    cortex=CortexConfig(
        block=BlockConfig(width=384, heads=6, feed_forward_width=1536, layer_scale=True), depth=12, prefix_from_front=True
    ),
)
"""What the default recipe makes of DINOv2's ViT-S/14 at 224 pixels: what ``sf_run`` is until it is told of a run."""

RELEASED = {
    "license": "mit",
    "origin_url": "https://github.com/showlab/sparseformer",
}
"""What timm notes of where the authors' weights come from."""

default_cfgs = generate_default_cfgs(
    {
        **{
            name: timm_settings(config) | RELEASED | {"url": f"{RELEASE_URL}/{RELEASES[name]}"}
            for name, config in NAMED_CONFIGS.items()
        },
        "sf_run": timm_settings(RUN_CONFIG),
    }
)
"""Where timm's registry looks for them, by this name."""

__all__ = [
    "register_models",
    "sf_base_augreg",
    "sf_base_clip",
    "sf_large_augreg",
    "sf_large_clip",
    "sf_run",
    "sf_v1_base",
    "sf_v1_small",
    "sf_v1_tiny",
]


def register_models() -> None:
    """Puts the models into timm's registry; ``import sparseformers`` calls it."""
    for entry_point in (
        sf_base_augreg,
        sf_large_augreg,
        sf_base_clip,
        sf_large_clip,
        sf_v1_tiny,
        sf_v1_small,
        sf_v1_base,
        sf_run,
    ):
        register_model(entry_point)


def sf_base_augreg(pretrained: bool = False, **options: Any) -> nn.Module:
    """SF-B bootstrapped from AugReg's ViT-B/16 (Gao et al., CVPR 2024)."""
    return _named("sf_base_augreg", pretrained, options)


def sf_large_augreg(pretrained: bool = False, **options: Any) -> nn.Module:
    """SF-L bootstrapped from AugReg's ViT-L/16 (Gao et al., CVPR 2024)."""
    return _named("sf_large_augreg", pretrained, options)


def sf_base_clip(pretrained: bool = False, **options: Any) -> nn.Module:
    """SF-B bootstrapped from OpenAI's CLIP ViT-B/16 (Gao et al., CVPR 2024); its head is the projection."""
    return _named("sf_base_clip", pretrained, options)


def sf_large_clip(pretrained: bool = False, **options: Any) -> nn.Module:
    """SF-L bootstrapped from OpenAI's CLIP ViT-L/14 (Gao et al., CVPR 2024); its head is the projection."""
    return _named("sf_large_clip", pretrained, options)


def sf_v1_tiny(pretrained: bool = False, **options: Any) -> nn.Module:
    """The original SparseFormer, tiny (Gao et al., ICLR 2024)."""
    return _named("sf_v1_tiny", pretrained, options)


def sf_v1_small(pretrained: bool = False, **options: Any) -> nn.Module:
    """The original SparseFormer, small (Gao et al., ICLR 2024)."""
    return _named("sf_v1_small", pretrained, options)


def sf_v1_base(pretrained: bool = False, **options: Any) -> nn.Module:
    """The original SparseFormer, base (Gao et al., ICLR 2024)."""
    return _named("sf_v1_base", pretrained, options)


def sf_run(pretrained: bool = False, run: str | Path | None = None, **options: Any) -> nn.Module:
    """A SparseFormer of any shape: that of a run, or of the weights that timm loads into it.

    Args:
        pretrained: with weights from where ``pretrained_cfg`` says (``local-dir:`` and ``hf-hub:`` models do), instead of a run.
        run: a run folder or model file to load; without one the configuration comes with the first weights that are loaded.
        options: as for timm's other models.

    Raises:
        ConfigError: if there are no weights to be had, or for an option that a SparseFormer does not have.
        RunError: if there is no such run.
        WeightsError: if its model file cannot be used.
    """
    check_version()
    source = resolve_pretrained_cfg("sf_run", options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
    if pretrained and source.has_weights:
        run = None
    elif pretrained and run is None:
        raise ConfigError("'sf_run' has no weights of its own.", "Give a run: timm.create_model('sf_run', run='runs/first').")
    if run is None:
        student = SparseFormer(RUN_CONFIG)
        return _build(
            "sf_run", partial(_network, student, open_shape=True, own_head="num_classes" in options), pretrained, options
        )
    student = load(run)
    return _build("sf_run", partial(_network, student), False, options | {"pretrained_cfg": timm_settings(student.config)})


def _named(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """A named size, pretrained with the authors' weights unless timm was told of others."""
    check_version()
    source = resolve_pretrained_cfg(name, options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
    elsewhere = source.file or source.state_dict or source.hf_hub_id or source.url != f"{RELEASE_URL}/{RELEASES[name]}"
    if not pretrained or elsewhere:
        return _build(name, partial(_network, SparseFormer(named_config(name))), pretrained, options)
    released = create_model(name, pretrained=True, cache=options.get("cache_dir"))
    return _build(name, partial(_network, released), False, options)


def _build(name: str, network: partial[TimmSparseFormer], pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Through timm's own builder, which knows where settings, other weights and features come from."""
    features = {"out_indices": 3, "feature_cls": "getter", "output_fmt": TimmSparseFormer.output_fmt}
    return build_model_with_cfg(network, name, pretrained, feature_cfg=features, **options)


def _network(
    student: SparseFormer,
    *,
    num_classes: int | None = None,
    global_pool: str | None = None,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float | None = None,
    open_shape: bool = False,
    own_head: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> TimmSparseFormer:
    """The network with timm's options; the size of images is taken note of by timm alone, since a SparseFormer takes any."""
    if in_chans != 3:
        raise ConfigError(
            f"A SparseFormer takes images of 3 channels (red, green, blue), not {in_chans}.",
            "Leave in_chans out; give grey images as three equal channels.",
        )
    if img_size is not None and min(img_size if isinstance(img_size, (tuple, list)) else (img_size,)) < SMALLEST_SIDE:
        raise ConfigError(f"Images must be at least {SMALLEST_SIDE} pixels a side, not {img_size}.", "Use 224, for example.")
    if not 0 <= drop_rate < 1 or not 0 <= (drop_path_rate or 0.0) < 1:
        raise ConfigError(
            f"drop_rate and drop_path_rate are chances in [0, 1), not {drop_rate} and {drop_path_rate}.", "Use 0.1, for example."
        )
    network = TimmSparseFormer(
        student, drop_rate=drop_rate, drop_path_rate=drop_path_rate, open_shape=open_shape, own_head=own_head
    )
    if num_classes not in (None, network.num_classes) or global_pool is not None:
        network.reset_classifier(network.num_classes if num_classes is None else num_classes, global_pool)
    return network.to(device=device, dtype=dtype).train()
