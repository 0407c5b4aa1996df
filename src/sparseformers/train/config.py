"""All settings of a bootstrapping run; the command line, ``config.json`` and the documentation come from here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import tyro

from sparseformers.data.images import MOST_PIXELS, PILLOWS_MOST_PIXELS
from sparseformers.data.mixture import absolute_source
from sparseformers.errors import ConfigError
from sparseformers.teachers import absolute_name
from sparseformers.train.checkpoints.interval import Interval

Number = TypeVar("Number", int, float)

WITHOUT_EFFECT = (
    *("workers", "checkpoint_every", "keep", "log_every", "trackers", "tracker_project"),
    *("accumulate", "shard_weights"),
    *("max_bad", "shard_cache", "shard_cache_gb"),
)
"""Settings that change nothing of what is learnt or measured: they may differ where the others have to be the same."""

AT_LEAST = {
    0: ("eval_views", "workers"),
    1: (
        *("tokens", "samples", "batch_size", "accumulate", "evaluations", "log_every", "keep"),
        *("cached_views", "shuffle_shards", "max_pixels"),
    ),
    2: ("holdout_limit",),
    32: ("image_size",),
}
"""Settings that count something, by their least value."""
ABOVE_ZERO = ("epochs", "minutes", "lr", "clip_norm")
"""Settings that are positive numbers."""
BELOW = {
    1.0: ("holdout", "warm_up", "ema"),
    math.inf: ("tuned_lr_ratio", "token_weight", "dense_weight", "weight_decay"),
}
"""Settings of 0 or more, by what they stay below."""
SHARES = {"crop": 0.875, "crop_scale": 0.25, "layer_decay": 0.75}
"""Settings above 0 that are 1 at most, with an example."""

Sources = Annotated[tuple[str | Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DATA")]
"""Where images are, which the command line takes one by one: --data A --data B."""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _each(groups: Mapping[Number, Sequence[str]]) -> Iterator[tuple[Number, str]]:
    """Every setting of a table, with the number that its group goes by."""
    return ((number, name) for number, names in groups.items() for name in names)


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """What to make of which teacher, from which images, for how long."""

    needs_data: ClassVar[bool] = True
    teacher: str
    """timm:NAME, timm:NAME@FILE, open_clip:ARCH/TAG, open_clip:ARCH@FILE, hf:REPO or bundled."""
    data: Sources
    """Images to learn from; labels are not looked at. Folders, searched recursively; tar shards ('shards/{00000..00127}.tar', a
    folder of them, s3://, gs://, https://, pipe:COMMAND); hf:OWNER/NAME[@SPLIT][#COLUMN]. May be given several times."""

    front: Literal["grid", "focusing"] = "grid"
    """The part in front: one that starts as the teacher at a lower resolution, or the paper's focusing transformer."""
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
    start: Literal["random", "fitted"] = "random"
    """Bootstrapped front: the paper's starting values, or values fitted in closed form to the tokens that the teacher has at the
    truncation depth on a smaller image; these want a rate like the default one, at the paper's most of the fit is lost."""
    elastic: Annotated[tuple[int, ...], tyro.conf.UseAppendAction] = ()
    """Inherited front: other numbers of tokens to train with, too; one of all is drawn for each step, and one model then
    serves them all. May be given several times."""
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
    accumulate: int = 1
    """Parts that each process cuts its images of a step into, one after the other, to save memory; the step stays the same."""
    shard_weights: bool = False
    """Several processes: each keeps a part of the student's weights, gradients and optimiser (FSDP), for students that do not
    fit into one; slower."""
    lr: float = 3e-5
    """Peak learning rate of the new parts (the paper's front wants 1e-3 unless it is fitted), which the ratios below refer to."""
    tuned_lr_ratio: float = 1.0
    """Learning rate of what is inherited and tuned, as a share of it; the paper has a tenth (appendix A.2)."""
    layer_decay: float = 1.0
    """Learning rate of each tuned block as a share of the next one's, in (0, 1], as in BEiT: the last one has the rate of what
    is tuned, and the patch embedding and prefix tokens of an inherited front come before the first. 1 gives all the same."""
    whiten: float | None = None
    """Share of the loss that compares embeddings after whitening both by the teacher's mean and covariance over the held-out
    images, in [0, 1]: all directions in which images differ then count alike. 1 by default; 0 for the paper's front, whose random
    start it would make useless."""
    token_weight: float = 0.0
    """Inherited front: weight of a second loss that aligns each final token to the teacher's, averaged over its RoI."""
    dense_weight: float = 0.0
    """With --start fitted: weight of a second loss that holds what the front gives to the teacher's own tokens on an image with
    as many patches, one to one; it fades out over the first three tenths of the training."""
    weight_decay: float = 0.05
    """AdamW's weight decay; none on biases, norms, embeddings and RoIs."""
    warm_up: float = 0.05
    """Share of the training over which the learning rate rises from zero."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.0
    """Decay per step of an exponential moving average of the weights, in [0, 1), such as 0.999; it is measured and saved in the
    place of the newest weights. Over the first steps it is (1 + step) / (10 + step), if that is less. 0 keeps no average."""
    augment: Literal["default", "strong"] = "default"
    """Random crops, flips and moderate colour jitter; or strong enough to learn from a handful of photographs."""
    crop_scale: float | None = None
    """Smallest share of the image's area that those random crops keep, in (0, 1]; 0.25 by default, 0.02 for strong."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the matrix products; auto measures whether this machine is faster in fp32 or bf16. The loss of fp16 is scaled so that
    small gradients do not vanish."""
    gradient_checkpointing: bool = False
    """Compute what is inside the student's blocks again in the backward pass instead of keeping it: less memory, more time."""
    compile: bool = False
    """Compile teacher and student with torch.compile: minutes at the start, faster steps where the machine has a compiler."""
    seed: int = 0
    """Of starting values, order, views and the held-out choice."""
    data_seed: int | None = None
    """Of the views and the held-out choice alone, where runs with several seeds are to share them."""

    weight: Annotated[tuple[float, ...], tyro.conf.UseAppendAction] = ()
    """Share of the samples that come from a --data, in any unit, one for each in their order: --weight 3 --weight 1 draws three
    quarters from the first, whatever their sizes. Without it every image is drawn equally often."""
    shuffle_shards: int = 8
    """Tar shards whose images are shuffled together; the shards themselves come in a random order."""
    max_pixels: int = MOST_PIXELS
    """Images of more pixels are skipped, not decoded."""
    max_bad: float = 0.05
    """Share of bad images at which the run stops; those below it are skipped and listed in ``skipped_images.txt``."""
    shard_cache: Path | None = None
    """Folder for copies of shards that are no local files, and for what shards hold; one in the user's cache by default."""
    shard_cache_gb: float = 32.0
    """GiB that these copies may take; the ones used least lately go first."""

    cache_teacher: Path | None = None
    """Folder to keep fixed views and the teacher's embeddings of them in, computed once for all runs that share them."""
    cached_views: int = 4
    """Views of each image in that folder; longer trainings see them again."""

    holdout: float = 0.05
    """Share of the images that is never trained on and measures progress."""
    holdout_limit: int = 1000
    """At most so many images measure progress."""
    eval_data: Sources = ()
    """Images to measure progress on, in the place of a held-out share; as for --data. May be given several times."""
    eval_views: int = 0
    """Fixed random crops of each such image to measure on, for very few images; 0 takes the central view."""
    evaluations: int = 10
    """How often progress is measured over the training."""
    log_every: int = 10
    """Steps between two lines of figures in ``metrics.jsonl``."""
    trackers: tuple[Literal["auto", "tensorboard", "wandb", "trackio", "none"], ...] = ("auto",)
    """Where figures go beside ``metrics.jsonl``; auto is TensorBoard where it is installed. Several may be named."""
    tracker_project: str = "sparseformers"
    """Project of the run at Weights & Biases or trackio."""
    checkpoint_every: str = "10m"
    """Length of training between checkpoints to resume from, such as 10m, 30s, 2h, 500steps or 1epoch."""
    keep: int = 3
    """So many checkpoints are kept, the newest; the best model is kept besides."""
    workers: int | None = None
    """Processes that read images; chosen from the processor's cores by default."""

    def absolute(self) -> BootstrapConfig:
        """The same settings with all paths absolute, so that a run can be resumed from any working directory."""
        return dataclasses.replace(
            self,
            teacher=absolute_name(self.teacher),
            data=tuple(absolute_source(str(each)) for each in self.data),
            eval_data=tuple(absolute_source(str(each)) for each in self.eval_data),
            shard_cache=None if self.shard_cache is None else self.shard_cache.absolute(),
            cache_teacher=None if self.cache_teacher is None else self.cache_teacher.absolute(),
        )

    @property
    def lr_ratios(self) -> dict[str, float]:
        """Learning rates by group of parameters, as shares of ``lr``."""
        return {"tuned": self.tuned_lr_ratio}

    @property
    def views_from(self) -> int:
        """The seed of the views and of the held-out choice."""
        return self.seed if self.data_seed is None else self.data_seed

    def __post_init__(self) -> None:
        for name in ("data", "eval_data"):  # names and addresses; a Path of Python's is one way to write them
            object.__setattr__(self, name, tuple(str(each) for each in getattr(self, name)))
        self._check_data()
        self._check_numbers()
        self._check_front()
        if self.token_weight and self.cache_teacher is not None:
            raise ConfigError(
                f"--token-weight {self.token_weight} needs the teacher's tokens, which --cache-teacher does not keep.",
                "Leave out one of the two.",
            )
        Interval.parse(self.checkpoint_every, flag="--checkpoint-every")
        lengths = [name for name in ("epochs", "samples", "minutes") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ConfigError(
                f"The length of training was given {len(lengths)} times (--{', --'.join(lengths)}).", "Keep one of them."
            )

    @property
    def whitened_share(self) -> float:
        """``whiten``, or its default for this front."""
        if self.whiten is not None:
            return self.whiten
        return 1.0 if self.front == "grid" else 0.0

    def _check_numbers(self) -> None:
        """Each number by itself."""
        for least, name in _each(AT_LEAST):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"{_flag(name)} must be at least {least}, not {value}.", f"Use {least} or more.")
        for name in ABOVE_ZERO:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ConfigError(f"{_flag(name)} must be above 0, not {value}.", "Use a positive number.")
        for most, name in _each(BELOW):
            if not 0 <= (value := getattr(self, name)) < most:
                raise ConfigError(f"{_flag(name)} must be in [0, {most:g}), not {value}.", "Choose a value in that range.")
        for name, example in SHARES.items():
            if (value := getattr(self, name)) is not None and not 0 < value <= 1:
                raise ConfigError(f"{_flag(name)} must be in (0, 1], not {value}.", f"Use {example}, for example.")
        if not 0 <= self.whitened_share <= 1:
            raise ConfigError(f"--whiten must be in [0, 1], not {self.whiten}.", "Choose a value in that range.")
        if self.elastic and min(self.elastic) < 1:
            raise ConfigError(f"--elastic must be at least 1, not {min(self.elastic)}.", "Use 9, for example.")

    def _check_front(self) -> None:
        """What only one of the fronts has."""
        if self.start == "fitted" and self.front != "focusing":
            raise ConfigError(
                f"--start fitted is for the paper's front: the {self.front} one starts as the teacher already.",
                "Leave it out, or use --front focusing.",
            )
        if self.dense_weight and self.start != "fitted":
            raise ConfigError(
                f"--dense-weight {self.dense_weight} aligns tokens with cells, and only --start fitted puts RoIs there.",
                "Add --front focusing --start fitted, or leave it out.",
            )
        if self.elastic and self.front != "grid":
            raise ConfigError(
                f"--elastic {self.elastic[0]} needs a front that can have any number of tokens.", "Use --front grid."
            )

    def _check_data(self) -> None:
        if self.needs_data and not self.data:
            raise ConfigError("No folder with images was given.", "Name at least one with --data.")
        if self.weight and len(self.weight) != len(self.data):
            raise ConfigError(
                f"--weight was given {len(self.weight)} times and --data {len(self.data)} times.",
                "Give one weight for each --data, in their order.",
            )
        for weight in self.weight:
            if not 1e-6 <= weight <= 1e6:
                raise ConfigError(f"--weight must be in [1e-6, 1e6], not {weight}.", "Leave out a --data that has no weight.")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"--max-bad must be in [0, 1], not {self.max_bad}.", "Use 0.05, for example; 1 never stops.")
        if self.max_pixels > PILLOWS_MOST_PIXELS:
            raise ConfigError(
                f"--max-pixels must be at most {PILLOWS_MOST_PIXELS}, not {self.max_pixels}.",
                "Pillow decodes no larger images; make them smaller first, with sparseformers pack --resize for example.",
            )
        if not self.shard_cache_gb > 0:
            raise ConfigError(f"--shard-cache-gb must be above 0, not {self.shard_cache_gb}.", "Use a positive number.")
