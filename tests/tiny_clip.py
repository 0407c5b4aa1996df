"""A tiny real CLIP with random weights and OpenCLIP's own tokenizer, as a configuration beside a file of weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import save_file

from tests.teachers.identity import randomise

SIDE = 64  # side in pixels of its images: 16 patches
PREPROCESSING = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.25, 0.2], "interpolation": "bicubic", "resize_mode": "shortest"}


def clip_config(*, custom_text: bool = False, **vision: Any) -> dict[str, Any]:
    """OpenCLIP's configuration of it, in the form of the file that lies beside weights on a hub."""
    tower = {"image_size": SIDE, "patch_size": 16, "width": 64, "head_width": 32, "layers": 3, **vision}
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": tower, "text_cfg": text}
    return {"model_cfg": {**model, "custom_text": True} if custom_text else model, "preprocess_cfg": PREPROCESSING}


def build_clip(config: dict[str, Any], seed: int = 0) -> open_clip.CLIP | open_clip.CustomTextCLIP:
    """The model that a configuration means, with random values for every weight; in evaluation mode."""
    options = dict(config["model_cfg"])
    kind = open_clip.CustomTextCLIP if options.pop("custom_text", False) else open_clip.CLIP
    return randomise(kind(**options), seed)  # type: ignore[return-value]


def write_clip(folder: Path, config: dict[str, Any] | None = None) -> str:
    """Writes configuration and weights, and returns the name to load the teacher by."""
    folder.mkdir(parents=True, exist_ok=True)
    config = clip_config() if config is None else config
    state = {name: value.contiguous() for name, value in build_clip(config).state_dict().items()}
    save_file(state, folder / "clip.safetensors")
    (folder / "clip.json").write_text(json.dumps(config))
    return f"open_clip:{folder / 'clip.json'}@{folder / 'clip.safetensors'}"
