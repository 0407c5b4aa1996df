"""A tiny real teacher and a few generated photographs, for tests that run whole commands."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

ARCHITECTURE = "test_vit"  # timm's own small vision transformer for tests: 6 blocks of width 64
SIDE = 64  # side in pixels to run it at: 16 patch tokens


def write_teacher(path: Path, *, classes: int = 3) -> str:
    """Writes random weights for the tiny architecture, and returns the name to load them by."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=classes, img_size=SIDE)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return f"timm:{ARCHITECTURE}@{path}"


def write_images(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Writes photographs of coloured gradients with noise, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:72, 0:96] / 96
    paths = []
    for number in range(count):
        phase = generator.uniform(0, 6.28, 3)
        waves = np.stack([np.sin(8 * rows * (1 + channel) + 5 * columns + phase[channel]) for channel in range(3)], axis=-1)
        noisy = 127 + 90 * waves + generator.normal(0, 12, waves.shape)
        paths.append(folder / f"photograph_{number:03}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths
