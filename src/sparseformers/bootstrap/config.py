"""All settings of a bootstrapping run; the command line, ``config.json`` and the documentation come from here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sparseformers.errors import ConfigError
from sparseformers.teachers import absolute_name

Folders = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]
"""Folders that the command line takes one by one: --data A --data B."""


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """What to make of which teacher, from which images, for how long."""

    teacher: str
    """timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."""
    data: Folders
    """Folders with images to learn from, searched recursively; labels are not looked at. May be given several times."""

    tokens: int | None = None
    """Latent tokens N, without the class token; by default a quarter of the teacher's patch tokens with it."""
    truncate: int | None = None
    """Leading blocks of the teacher to leave behind; a third by default."""
    tune: int | None = None
    """Blocks after them to go on learning, at a lower rate; a third by default."""
    freeze: int | None = None
    """Ending blocks to keep as they are, with the final norm and head; a third by default."""
    focusing_width: int | None = None
    """Width of the focusing transformer, a multiple of 64; half the teacher's by default."""
    channels: int = 64
    """Channels of the stem's feature map."""
    points: int = 16
    """Sampling points of each token."""
    iterations: int = 4
    """Focusing iterations."""
    image_size: int | None = None
    """Side in pixels of the images that teacher and student see; the teacher's own by default."""
    crop: float | None = None
    """Share of the shorter side that the central crop of evaluation keeps; the teacher's own by default."""

    epochs: float | None = None
    """Length of training in passes over the images; 10 if no length is given."""
    samples: int | None = None
    """Length of training in images seen."""
    minutes: float | None = None
    """Length of training in minutes on the clock; the learning rate decays to zero on it."""
    batch_size: int = 32
    """Images per step, over all processes."""
    lr: float = 1e-3
    """Peak learning rate of the new parts."""
    tuned_lr_ratio: float = 0.1
    """Learning rate of the tuned blocks as a share of it (appendix A.2)."""
    weight_decay: float = 0.05
    """AdamW's weight decay; none on biases, norms, embeddings and RoIs."""
    warm_up: float = 0.05
    """Share of the training over which the learning rate rises from zero."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    augment: Literal["default", "strong"] = "default"
    """Random crops, flips and moderate colour jitter; or strong enough to learn from a handful of photographs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products; auto measures which one this machine is faster in."""
    seed: int = 0
    """Of starting values, order, views and the held-out choice."""

    holdout: float = 0.05
    """Share of the images that is never trained on and measures progress."""
    holdout_limit: int = 1000
    """At most so many images measure progress."""
    eval_data: Folders = ()
    """Folders with images to measure progress on, in the place of a held-out share. May be given several times."""
    eval_views: int = 0
    """Fixed random crops of each such image to measure on, for very few images; 0 takes the central view."""
    evaluations: int = 10
    """How often progress is measured over the training."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints to resume from."""
    workers: int | None = None
    """Processes that read images; chosen from the processor's cores by default."""

    def absolute(self) -> BootstrapConfig:
        """The same settings with all paths absolute, so that a run can be resumed from any working directory."""
        return dataclasses.replace(
            self,
            teacher=absolute_name(self.teacher),
            data=tuple(path.absolute() for path in self.data),
            eval_data=tuple(path.absolute() for path in self.eval_data),
        )

    def __post_init__(self) -> None:
        for name, value, least in (
            ("tokens", self.tokens, 1),
            ("samples", self.samples, 1),
            ("batch-size", self.batch_size, 1),
            ("evaluations", self.evaluations, 1),
            ("holdout-limit", self.holdout_limit, 2),
            ("eval-views", self.eval_views, 0),
            ("workers", self.workers, 0),
            ("image-size", self.image_size, 32),
        ):
            if value is not None and value < least:
                raise ConfigError(f"--{name} must be at least {least}, not {value}.", f"Use {least} or more.")
        for name, rate in (("epochs", self.epochs), ("minutes", self.minutes), ("lr", self.lr), ("clip-norm", self.clip_norm)):
            if rate is not None and not rate > 0:
                raise ConfigError(f"--{name} must be above 0, not {rate}.", "Use a positive number.")
        for name, share, most in (
            ("holdout", self.holdout, 1),
            ("warm-up", self.warm_up, 1),
            ("tuned-lr-ratio", self.tuned_lr_ratio, float("inf")),
            ("weight-decay", self.weight_decay, float("inf")),
        ):
            if not 0 <= share < most:
                raise ConfigError(f"--{name} must be in [0, {most}), not {share}.", "Choose a value in that range.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ConfigError(f"--crop must be in (0, 1], not {self.crop}.", "Use 0.875, for example.")
        if not self.data:
            raise ConfigError("No folder with images was given.", "Name at least one with --data.")
        lengths = [name for name in ("epochs", "samples", "minutes") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ConfigError(
                f"The length of training was given {len(lengths)} times (--{', --'.join(lengths)}).", "Keep one of them."
            )
