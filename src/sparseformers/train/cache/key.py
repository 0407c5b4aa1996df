"""What a cache of views is of: everything that the views or the teacher's embeddings of them depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from sparseformers.data.images import MOST_PIXELS
from sparseformers.data.sources import ImageSource
from sparseformers.data.transforms import SMALLEST_CROPS
from sparseformers.settings import to_dict
from sparseformers.teachers import Teacher
from sparseformers.train.settings import BootstrapConfig

FORMAT = 1
"""Of the cache's files; a change to what they hold raises it."""
LIBRARIES = ("pillow", "torch", "torchvision")
"""Those that views are made with: another version may draw or resize otherwise."""


@dataclass(frozen=True)
class CacheKey:
    """Two caches of the same key hold the same views and embeddings."""

    content: Mapping[str, Any]
    """Plain JSON values, compared in full before a cache is used."""
    epochs: int
    """K, the views of each image."""
    images: int
    """How many images there are."""
    size: tuple[int, int]
    """Height and width of the views in pixels."""
    width: int
    """D_out, channels of the teacher's embedding."""

    @cached_property
    def digest(self) -> str:
        """The name of the cache's folder: 32 hexadecimal digits."""
        return hashlib.blake2b(json.dumps(self.content, sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def images_shape(self) -> tuple[int, ...]:
        """K x images x 3 x H x W, of bytes."""
        return (self.epochs, self.images, 3, *self.size)

    @property
    def embeddings_shape(self) -> tuple[int, ...]:
        """K x images x D_out, of float32."""
        return (self.epochs, self.images, self.width)

    @property
    def views(self) -> int:
        """How many views there are of all images together."""
        return self.epochs * self.images

    @property
    def bytes(self) -> int:
        """Size of the cache on disk, but for a few that do not count."""
        return self.views * (3 * self.size[0] * self.size[1] + 4 * self.width)


def make_cache_key(
    settings: BootstrapConfig, teacher: Teacher, *, fingerprint: str, precision: str, images: ImageSource
) -> CacheKey:
    """The key of the views that a run trains on.

    Args:
        settings: of the run.
        teacher: at the run's image size.
        fingerprint: of the teacher's weights.
        precision: that the teacher runs in.
        images: to learn from, in the order that the stream of samples counts them in.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "teacher": {
            # The same weights give other embeddings with another activation, or another normalisation of pixels.
            "fingerprint": fingerprint,
            "adapter": type(teacher).__name__,
            "anatomy": to_dict(teacher.anatomy),
            "preprocessing": to_dict(teacher.preprocessing),
        },
        "augment": settings.data.augment,
        "seed": settings.views_seed,
        "cached_views": settings.data.cached_views,
        "precision": precision,
        # What follows the plus sign is where a library was built for, not what it does.
        "libraries": {library: version(library).partition("+")[0] for library in LIBRARIES},
        "images": images.identity(),
    }
    own = (None, SMALLEST_CROPS[settings.data.augment])
    if settings.data.crop_scale not in own:  # else caches from before there was a choice hold
        content["crop_scale"] = settings.data.crop_scale
    if settings.data.max_pixels != MOST_PIXELS:
        content["max_pixels"] = settings.data.max_pixels
    return CacheKey(
        content=content,
        epochs=settings.data.cached_views,
        images=len(images),
        size=teacher.preprocessing.size,
        width=teacher.anatomy.embedding_width,
    )
