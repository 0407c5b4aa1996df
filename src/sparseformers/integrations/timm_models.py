"""SparseFormers in timm's registry: the named sizes, and ``sf_run`` for whatever was bootstrapped.

After ``import sparseformers``::

    network = timm.create_model("sf_base_augreg", pretrained=True, num_classes=10)
    network = timm.create_model("sf_run", run="runs/first")
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from sparseformers.config import BlockConfig, CortexConfig, GridConfig, SparseFormerConfig
from sparseformers.errors import ConfigError
from sparseformers.integrations.timm_base import timm_settings
from sparseformers.integrations.timm_network import build_network
from sparseformers.model import SparseFormer
from sparseformers.named import NAMED_CONFIGS, named_config
from sparseformers.released import RELEASES, create_model
from sparseformers.released.load import RELEASE_URL
from sparseformers.saving import load
from sparseformers.teachers.hubs import check_version

_BLOCK = BlockConfig(width=384, heads=6, feed_forward_width=1536, layer_scale=True)
# ``sf_run`` without a run: the default recipe's student of DINOv2's ViT-S/14 at 224 pixels.
RUN_CONFIG = SparseFormerConfig(
    focusing=GridConfig(tokens=64, patch_size=14), cortex=CortexConfig(block=_BLOCK, depth=12, prefix_from_front=True)
)

RELEASED = {"license": "mit", "origin_url": "https://github.com/showlab/sparseformer"}  # where the authors' weights come from
URLS = {name: f"{RELEASE_URL}/{file}" for name, file in RELEASES.items()}
# timm's registry reads this name.
default_cfgs = generate_default_cfgs(
    {name: timm_settings(config) | RELEASED | {"url": URLS[name]} for name, config in NAMED_CONFIGS.items()}
    | {"sf_run": timm_settings(RUN_CONFIG)}
)


def _register(name: str) -> None:
    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        source = resolve_pretrained_cfg(name, options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
        elsewhere = source.file or source.state_dict or source.hf_hub_id or source.url != URLS[name]
        if not pretrained or elsewhere:
            return _build(name, SparseFormer(named_config(name)), pretrained, options)
        return _build(name, create_model(name, pretrained=True, cache=options.get("cache_dir")), False, options)

    entry.__name__ = entry.__qualname__ = name
    globals()[name] = register_model(entry)


for _name in NAMED_CONFIGS:
    _register(_name)


@register_model  # type: ignore[untyped-decorator]
def sf_run(pretrained: bool = False, run: str | Path | None = None, **options: Any) -> nn.Module:
    """A SparseFormer of any shape: that of the run folder or model file ``run``, or that of the first weights loaded into it.

    ``pretrained`` takes weights from where ``pretrained_cfg`` says (``local-dir:`` and ``hf-hub:`` models do), instead of a run.
    Raises ConfigError if there are no weights, or for an option that a SparseFormer does not have, RunError if there is no such
    run, and WeightsError if its model file cannot be used.
    """
    source = resolve_pretrained_cfg("sf_run", options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
    if pretrained and source.has_weights:
        run = None
    elif pretrained and run is None:
        raise ConfigError("'sf_run' has no weights of its own.", "Give a run: timm.create_model('sf_run', run='runs/first').")
    if run is None:
        return _build("sf_run", SparseFormer(RUN_CONFIG), pretrained, options, open_shape=True, own_head="num_classes" in options)
    student = load(run)
    return _build("sf_run", student, False, options | {"pretrained_cfg": timm_settings(student.config)})


def _build(name: str, student: SparseFormer, pretrained: bool, options: dict[str, Any], **shape: Any) -> nn.Module:
    """Builds the network through timm's own builder, which knows where settings, other weights and features come from."""
    check_version("timm")
    features = {"out_indices": 3, "feature_cls": "getter", "output_fmt": "NLC"}
    return build_model_with_cfg(partial(build_network, student, **shape), name, pretrained, feature_cfg=features, **options)
