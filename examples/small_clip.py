"""A small real CLIP for where none can be downloaded: OpenCLIP's own classes, made in a few minutes on two cores.

The image tower is a DINOv2 ViT-S/14 (timm's names, such as ``shared/teacher/vit_s14_caltech101.safetensors``) in OpenCLIP's own
``VisionTransformer``. It stays as it is; a small text tower learns to name what it sees, from class folders whose names serve as
captions: locked-image tuning (Zhai et al., "LiT", CVPR 2022). OpenCLIP's configuration of it is written beside the weights.

    python examples/small_clip.py --teacher-weights FILE --data caltech101/train --out runs/clip/open_clip_model.safetensors

    sparseformers bootstrap --teacher open_clip:runs/clip/open_clip_config.json@runs/clip/open_clip_model.safetensors ...

OpenCLIP itself loads it by ``open_clip.create_model_and_transforms("local-dir:runs/clip")``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from sparseformers.config import PreprocessingConfig
from sparseformers.data import LabelledImages, default_workers, evaluation_batches, images_on, labelled_splits
from sparseformers.errors import DataError, SparseFormersError, WeightsError
from sparseformers.evaluation.words import pretty_name
from sparseformers.files import replacing, write_json
from sparseformers.modes import autocast_dtype, inference, resolve_precision
from sparseformers.teachers.checkpoints import read_weights
from sparseformers.teachers.open_clip import RENAMED
from sparseformers.teachers.open_clip_text import TEMPLATES

import open_clip  # isort: skip  # after sparseformers, which makes torchvision importable
from timm.layers import resample_abs_pos_embed  # isort: skip

CONFIG_FILE = "open_clip_config.json"
"""OpenCLIP's name of the configuration beside a model's weights."""
EMBED_DIM, HEAD_WIDTH, PATCH = 384, 64, 14
"""DINOv2 ViT-S/14: the width of its class token, whose space serves for image and text; channels of a head; pixels of a patch."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """The CLIP to make, and the training of its text tower."""

    teacher_weights: Path
    """A DINOv2 ViT-S/14 in timm's names (.safetensors)."""
    data: Path
    """Class folders to learn the names of."""
    out: Path
    """The .safetensors file of the whole CLIP; its configuration is written beside it."""
    image_size: int = 224
    """Side in pixels; another one than the weights' own resamples the position embeddings."""
    crop: float = 0.875
    """Share of the shorter side that the central crop keeps."""
    images_per_class: int = 0
    """Learn from this many images of each class at most; 0 takes all."""
    steps: int = 300
    """Training steps; each sees one image of every class, and its name in some sentence."""
    lr: float = 1e-3
    """Peak learning rate."""
    text_layers: int = 2
    """Blocks of the text tower."""
    text_width: int = 256
    """Channels of the text tower."""
    seed: int = 0
    """The seed of starting values and of the images and sentences of each step."""


def configuration(settings: Settings) -> dict[str, Any]:
    """OpenCLIP's configuration of the model and its preprocessing (DINOv2's mean and std)."""
    own = PreprocessingConfig()
    vision = {
        "image_size": settings.image_size,
        "patch_size": PATCH,
        "width": EMBED_DIM,
        "head_width": HEAD_WIDTH,
        "layers": 12,
        "ls_init_value": 1e-5,
        "no_ln_pre": True,
        "norm_kwargs": {"eps": 1e-6},
    }
    text = {
        "context_length": 24,
        "vocab_size": 49408,
        "width": settings.text_width,
        "heads": max(1, settings.text_width // HEAD_WIDTH),
        "layers": settings.text_layers,
    }
    return {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": own.mean, "std": own.std, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def visual_state(state: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """The weights of a DINOv2 by timm's names under those of OpenCLIP's ``VisionTransformer``.

    What that one lacks is put elsewhere: the bias of the patch embedding into the position embeddings of the patches. What it has
    more, the projection, is the identity. A classifier is left behind.
    """
    state = {name: value.float() for name, value in state.items()}
    side = image_size // PATCH
    positions = resample_abs_pos_embed(state["pos_embed"], new_size=[side, side], num_prefix_tokens=1)[0]
    mapped = {
        "conv1.weight": state["patch_embed.proj.weight"],
        "class_embedding": state["cls_token"].flatten(),
        "positional_embedding": torch.cat([positions[:1], positions[1:] + state["patch_embed.proj.bias"]]),
        "ln_post.weight": state["norm.weight"],
        "ln_post.bias": state["norm.bias"],
        "proj": torch.eye(EMBED_DIM),
    }
    for name, value in state.items():
        if name.startswith("blocks."):
            _, index, leaf = name.split(".", 2)
            theirs, ours = next((theirs, ours) for theirs, ours in RENAMED.items() if leaf.startswith(ours))
            mapped[f"transformer.resblocks.{index}.{theirs}{leaf.removeprefix(ours)}"] = value
    return mapped


def build(settings: Settings) -> open_clip.CLIP:
    """The CLIP with the given image tower, locked, and a new text tower."""
    state = read_weights(settings.teacher_weights, ["patch_embed.proj.weight"]).state
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        clip = open_clip.CLIP(**configuration(settings)["model_cfg"])
    try:
        clip.visual.load_state_dict(visual_state(state, settings.image_size))
    except (KeyError, RuntimeError, StopIteration):
        raise WeightsError(
            f"The file '{settings.teacher_weights}' is no DINOv2 ViT-S/14 in timm's names.",
            "Give one, for example that of timm's vit_small_patch14_dinov2.",
        ) from None
    clip.lock_image_tower()
    return clip


def embed_images(clip: open_clip.CLIP, images: LabelledImages, settings: Settings) -> tuple[Tensor, Tensor]:
    """Embeds every image once: the tower does not change. Returns M x D of length 1, and M labels."""
    own = PreprocessingConfig(size=(settings.image_size, settings.image_size), crop=settings.crop)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (own.mean, own.std))
    batches = evaluation_batches(list(images.paths), own, batch_size=32, workers=default_workers())
    precision = autocast_dtype(resolve_precision("auto", CPU))
    rows, indices = [], []
    for batch in track(batches, description="embedding images", transient=True):
        with inference(CPU, precision):
            rows.append(clip.eval().encode_image((images_on(CPU, batch.images) - mean) / std, normalize=True).float())
        indices.extend(batch.indices)
    return torch.cat(rows).clone(), torch.tensor(images.labels)[torch.tensor(indices)]


def train_text(clip: open_clip.CLIP, images: Tensor, labels: Tensor, names: list[str], settings: Settings) -> None:
    """Locked-image tuning. A step sees one image of each class, so that no caption is also right for another one's image."""
    templates = [*TEMPLATES["openai"], *TEMPLATES["simple"]]
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    tokens = tokenizer([template.replace("{}", name) for name in names for template in templates])
    tokens = tokens.view(len(names), len(templates), -1)  # C x templates x L
    rooms = [torch.nonzero(labels == label).flatten() for label in range(len(names))]
    learning = [parameter for parameter in clip.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _factor(step, settings.steps))
    loss, precision = open_clip.ClipLoss(), autocast_dtype(resolve_precision("auto", CPU))
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in track(range(settings.steps), description="training the text tower", transient=True):
        seen = torch.stack([room[torch.randint(len(room), (), generator=generator)] for room in rooms])
        said = tokens[torch.arange(len(names)), torch.randint(len(templates), (len(names),), generator=generator)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None):
            texts = clip.encode_text(said, normalize=True).float()
        total = loss(images[seen], texts, clip.logit_scale.exp())
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))


def _factor(step: int, steps: int) -> float:
    """Share of the peak rate: a tenth of warm-up, then a cosine."""
    warm_up = max(1, steps // 10)
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def accuracy(clip: open_clip.CLIP, images: Tensor, labels: Tensor, names: list[str]) -> float:
    """Zero-shot top-1 on embedded images, by OpenCLIP's own classifier."""
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    templates = list(TEMPLATES["simple"])
    classes = open_clip.build_zero_shot_classifier(clip.eval(), tokenizer, names, templates)  # D x C
    return ((F.normalize(images, dim=-1) @ classes).argmax(dim=1) == labels).double().mean().item()


def make(settings: Settings) -> float:
    """Makes the CLIP and writes it; returns its zero-shot top-1 on the images that it learnt from."""
    splits = labelled_splits(settings.data)
    if splits is None:
        raise DataError(f"The folder '{settings.data}' has no class folders.", "Sort its images into CLASS folders.")
    images = splits.get("train") or splits["all"]
    if settings.images_per_class:
        images = _first_of_each(images, settings.images_per_class)
    names = [pretty_name(name) for name in images.class_names]
    clip = build(settings)
    embedded, labels = embed_images(clip, images, settings)
    train_text(clip.train(), embedded, labels, names, settings)
    state = {name: value.detach().half().contiguous() for name, value in clip.state_dict().items()}
    with replacing(settings.out) as temporary:
        save_file(state, temporary, metadata={"format": "pt", "class_names": json.dumps(names)})
    write_json(settings.out.with_name(CONFIG_FILE), configuration(settings))
    return accuracy(clip, embedded, labels, names)


def _first_of_each(images: LabelledImages, count: int) -> LabelledImages:
    """The first ``count`` images of each class."""
    seen: dict[int, int] = {}
    kept = []
    for path, label in zip(images.paths, images.labels, strict=True):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            kept.append((path, label))
    return LabelledImages(tuple(path for path, _ in kept), tuple(label for _, label in kept), images.class_names)


if __name__ == "__main__":
    chosen = tyro.cli(Settings, description=__doc__)
    try:
        reached = make(chosen)
    except SparseFormersError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"zero-shot top-1 on the images that it learnt from: {reached:.1%}")
    print(f"teacher: open_clip:{chosen.out.with_name(CONFIG_FILE)}@{chosen.out}")
