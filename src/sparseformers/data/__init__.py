"""Images from folders: finding and decoding them, views to train on and to evaluate with, what is held out or skipped."""

from sparseformers.data.dataset import (
    Batch,
    ImageViews,
    SampleStream,
    View,
    ViewKey,
    collate,
    default_workers,
    derived_seed,
    evaluation_batches,
    fixed_views,
    training_loader,
    views_in_order,
)
from sparseformers.data.images import IMAGE_SUFFIXES, UnreadableImageError, find_images, read_image
from sparseformers.data.skipped import SkippedImages
from sparseformers.data.splits import LabelledImages, labelled_splits, split_holdout
from sparseformers.data.transforms import (
    AUGMENTATIONS,
    Augmentation,
    evaluation_view,
    from_bytes,
    images_on,
    to_bytes,
    training_view,
)

__all__ = [
    "AUGMENTATIONS",
    "IMAGE_SUFFIXES",
    "Augmentation",
    "Batch",
    "ImageViews",
    "LabelledImages",
    "SampleStream",
    "SkippedImages",
    "UnreadableImageError",
    "View",
    "ViewKey",
    "collate",
    "default_workers",
    "derived_seed",
    "evaluation_batches",
    "evaluation_view",
    "find_images",
    "fixed_views",
    "from_bytes",
    "images_on",
    "labelled_splits",
    "read_image",
    "split_holdout",
    "to_bytes",
    "training_loader",
    "training_view",
    "views_in_order",
]
