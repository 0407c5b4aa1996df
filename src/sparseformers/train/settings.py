"""All settings of a bootstrapping run; the command line, ``config.json`` and the documentation come from here."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from sparseformers.data.images import MOST_PIXELS, PILLOWS_MOST_PIXELS
from sparseformers.errors import ConfigError
from sparseformers.settings import Above, AtLeast, Between, Grouped, ImageSize, Mark, check_bounds, from_dict
from sparseformers.train.lengths import Budget, Interval

EXPERT, WITHOUT_EFFECT = Mark.EXPERT, Mark.WITHOUT_EFFECT
NOT_NEGATIVE = Between(0, math.inf, "[)")
DEFAULT_EPOCHS = 10.0
READ_OUT_RATE = 100.0  # learning rate of the read-out's new layers, as a multiple of that of tuned blocks


def read_size(text: str) -> ImageSize:
    """An image size as the command line takes it, 224 or 256x128 (height, width); raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if match is None:
        raise ValueError(f"'{text}' is neither a side in pixels nor a height and a width, such as 256x128")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


SIZE: Any = tyro.constructors.PrimitiveConstructorSpec(  # beside a field that is an image size: how the command line takes it
    nargs=1,
    metavar="SIDE|HxW",
    instance_from_str=lambda words: read_size(words[0]),
    is_instance=lambda value: isinstance(value, int | tuple),
    str_from_instance=lambda value: ["x".join(map(str, value)) if isinstance(value, tuple) else str(value)],
)
Sources = Annotated[tuple[str | Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="DATA")]
"""Places of images, which the command line takes one by one: --data A --data B."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Teacher and network."""

    teacher: str
    """timm:NAME, open_clip:ARCH/TAG, hf:REPO or bundled. With local weights: timm:NAME@FILE, open_clip:ARCH@FILE."""
    teacher_weights: Annotated[str | None, EXPERT] = None
    """Of several networks in the teacher's file the one to take, such as state_dict or student.backbone; averaged weights (EMA)
    are taken before raw ones by default. The same as '#state_dict' behind the file's name."""
    front: Literal["mixed", "grid", "focusing"] = "mixed"
    """RoIs of mixed sizes by a learnt map, of one size, or the paper's."""
    tokens: Annotated[int | None, AtLeast(1)] = None
    """Latent tokens; a quarter of the teacher's patch tokens by default."""
    truncate: int | None = None
    """Leading blocks of the teacher to leave out; a third by default."""
    tune: int | None = None
    """Blocks after them to go on learning; a third by default."""
    freeze: int | None = None
    """Last blocks to keep as they are; a third by default. The final norm and head stay, too."""
    focusing_width: Annotated[int | None, EXPERT] = None
    """Width of the focusing transformer, a multiple of 64; half the teacher's by default."""
    channels: Annotated[int, EXPERT] = 64
    """Channels of the stem's feature map."""
    points: Annotated[int, EXPERT] = 16
    """Sampling points of each token."""
    iterations: Annotated[int, EXPERT] = 4
    """Focusing iterations."""
    start: Annotated[Literal["random", "fitted"], tyro.conf.Suppress] = "random"
    """Focusing front: the paper's starting values, or values fitted in closed form to the tokens that the teacher has at the
    truncation depth on a smaller image, which are then targets of its first steps, too. The recipe ``fitted`` sets it."""
    elastic: Annotated[tuple[int, ...], tyro.conf.UseAppendAction, AtLeast(1), EXPERT] = ()
    """Other numbers of tokens to train with; one is drawn for each step. May be given several times. Not the paper's front."""
    image_size: Annotated[ImageSize | None, SIZE, AtLeast(32)] = None
    """Side in pixels, or height x width; the teacher's own by default. For example 224, or 256x128."""
    crop: Annotated[float | None, Between(0, 1, "(]", example=0.875), EXPERT] = None
    """Share of the shorter side that the central crop of evaluation keeps; the teacher's own by default."""
    dense: bool = False
    """Learn the teacher's feature map, too, by a read-out. It costs a fifth more where a map is asked for, and the embedding
    nothing."""
    dense_layer: Annotated[int, Between(-1000, -1, example=-2), EXPERT] = -1
    """With --dense: the teacher's layer that maps are of. -1 is what its final norm gives, -2 what the last block but one gives,
    as LLaVA reads it."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.teacher_weights is not None:  # in the name, by which the teacher is found again
            if "@" not in self.teacher:
                problem = f"--teacher-weights chooses between networks in a file, and the teacher '{self.teacher}' is none."
                raise ConfigError(problem, "Leave it out, or name a file: timm:NAME@FILE, open_clip:ARCH@FILE.")
            object.__setattr__(self, "teacher", f"{self.teacher}#{self.teacher_weights}")
            object.__setattr__(self, "teacher_weights", None)
        if self.start == "fitted" and self.front != "focusing":
            problem = f"The fitted start is for the paper's front: the {self.front} one starts as the teacher already."
            raise ConfigError(problem, "Use --recipe fitted without --front.")
        if self.dense_layer != -1 and not self.dense:
            problem = f"--dense-layer {self.dense_layer} says which layer maps are of, and no maps are learnt."
            raise ConfigError(problem, "Add --dense, or leave it out.")
        if self.elastic and self.front == "focusing":
            problem = f"--elastic {self.elastic[0]} needs a front that can have any number of tokens."
            raise ConfigError(problem, "Use --front grid.")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Data."""

    data: Sources
    """Images to learn from: folders, tar shards or datasets; repeatable. Labels are not used. Folders are searched recursively;
    shards are 'shards/{00000..00127}.tar', a folder of them, s3://, gs://, https:// or pipe:COMMAND; a dataset is
    hf:OWNER/NAME[@SPLIT][#COLUMN]."""
    weight: Annotated[tuple[float, ...], tyro.conf.UseAppendAction, EXPERT] = ()
    """Share of the samples that come from a --data, in any unit, one for each in their order: --weight 3 --weight 1 draws three
    quarters from the first, whatever their sizes. Without it every image is drawn equally often."""
    eval_data: Sources = ()
    """Images to measure progress on, instead of held-out ones; repeatable."""
    holdout: Annotated[float, Between(0, 1, "[)")] = 0.05
    """Share of the images that only measures progress."""
    holdout_limit: Annotated[int, AtLeast(2), EXPERT] = 1000
    """Most images to measure progress on."""
    eval_views: Annotated[int, AtLeast(0), EXPERT] = 0
    """Fixed random crops of each such image to measure on, for very few images; 0 takes the central view."""
    augment: Literal["default", "strong"] = "default"
    """Random crops, flips and colours; strong for a handful of images."""
    crop_scale: Annotated[float | None, Between(0, 1, "(]", example=0.25), EXPERT] = None
    """Smallest share of the image's area that random crops keep; 0.25 by default, 0.02 for strong."""
    data_seed: Annotated[int | None, EXPERT] = None
    """Seed of views and held-out choice alone, for runs with several seeds that share them."""
    cache_teacher: Annotated[Path | None, EXPERT] = None
    """Folder to keep fixed views and the teacher's embeddings of them in, computed once for all runs that share them."""
    cached_views: Annotated[int, AtLeast(1), EXPERT] = 4
    """Views of each image in that folder; longer trainings see them again."""
    shuffle_shards: Annotated[int, AtLeast(1), EXPERT] = 8
    """Tar shards whose images are shuffled together; the shards themselves come in a random order."""
    max_pixels: Annotated[int, AtLeast(1), EXPERT] = MOST_PIXELS
    """Images of more pixels are skipped, not decoded."""
    max_bad: Annotated[float, Between(0, 1, example=0.05), EXPERT, WITHOUT_EFFECT] = 0.05
    """Share of bad images at which the run stops; fewer are skipped and listed in ``skipped_images.txt``."""
    shard_cache: Annotated[Path | None, EXPERT, WITHOUT_EFFECT] = None
    """Folder for copies of remote shards and lists of what shards hold; one in the user's cache by default."""
    shard_cache_gb: Annotated[float, Above(0), EXPERT, WITHOUT_EFFECT] = 32.0
    """GiB that these copies may take; the least recently used go first."""

    def __post_init__(self) -> None:
        for name in ("data", "eval_data"):  # names and addresses; a Path of Python's is one way to write them
            object.__setattr__(self, name, tuple(str(each) for each in getattr(self, name)))
        check_bounds(self)
        if self.weight and len(self.weight) != len(self.data):
            problem = f"--weight was given {len(self.weight)} times and --data {len(self.data)} times."
            raise ConfigError(problem, "Give one weight for each --data, in their order.")
        for weight in self.weight:
            if not 1e-6 <= weight <= 1e6:
                raise ConfigError(f"--weight must be in [1e-6, 1e6], not {weight}.", "Leave out a --data that has no weight.")
        if self.max_pixels > PILLOWS_MOST_PIXELS:
            problem = f"--max-pixels must be at most {PILLOWS_MOST_PIXELS}, not {self.max_pixels}."
            remedy = "Pillow decodes no larger images; make them smaller first, with sparseformers pack --resize for example."
            raise ConfigError(problem, remedy)


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """Optimisation."""

    epochs: Annotated[float | None, Above(0)] = None
    """Length of training in passes over the images (10 if none is given)."""
    samples: Annotated[int | None, AtLeast(1)] = None
    """Length of training in images seen."""
    minutes: Annotated[float | None, Above(0)] = None
    """Length of training in minutes. The learning rate decays to zero on the clock."""
    batch_size: Annotated[int, AtLeast(1)] = 32
    """Images per step, over all processes."""
    accumulate: Annotated[int, AtLeast(1), EXPERT, WITHOUT_EFFECT] = 1
    """Parts that each process cuts its images of a step into, one after the other, to save memory; the step stays the same."""
    shard_weights: Annotated[bool, EXPERT, WITHOUT_EFFECT] = False
    """Several processes: each keeps a part of the student's weights, gradients and optimiser (FSDP); slower."""
    lr: Annotated[float, Above(0)] = 3e-5
    """Peak learning rate, of the new parts where there are any."""
    tuned_lr_ratio: Annotated[float, NOT_NEGATIVE] = 1.0
    """Rate of tuned blocks as a share of it. The paper has a tenth (appendix A.2)."""
    whiten: Annotated[bool | None, EXPERT] = None
    """Compare embeddings after whitening both by the teacher's mean and covariance over the held-out images: all directions in
    which images differ then count alike. By default, but for the paper's front: from a random start it is useless."""
    weight_decay: Annotated[float, NOT_NEGATIVE, EXPERT] = 0.05
    """AdamW's weight decay; none on biases, norms, embeddings and RoIs."""
    warm_up: Annotated[float, Between(0, 1, "[)"), EXPERT] = 0.05
    """Share of the training over which the learning rate rises from zero."""
    clip_norm: Annotated[float, Above(0), EXPERT] = 1.0
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products; auto takes the fastest. It measures fp32 and bf16; the loss of fp16 is scaled."""
    gradient_checkpointing: Annotated[bool, EXPERT] = False
    """Compute what is inside the student's blocks again in the backward pass instead of keeping it: less memory, more time."""
    compile: bool = False
    """Compile teacher and student: minutes at the start, faster steps."""
    seed: int = 0
    """Seed of starting values, order, views and held-out choice."""

    def __post_init__(self) -> None:
        check_bounds(self)
        lengths = [name for name in ("epochs", "samples", "minutes") if getattr(self, name) is not None]
        if len(lengths) > 1:
            problem = f"The length of training was given {len(lengths)} times (--{', --'.join(lengths)})."
            raise ConfigError(problem, "Keep one of them.")

    def budget(self, images: int) -> Budget:
        if self.minutes is not None:
            return Budget(samples=None, seconds=60 * self.minutes)
        if self.samples is not None:
            return Budget(samples=self.samples, seconds=None)
        epochs = DEFAULT_EPOCHS if self.epochs is None else self.epochs
        return Budget(samples=max(1, round(epochs * images)), seconds=None)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Run."""

    evaluations: Annotated[int, AtLeast(1)] = 10
    """Number of held-out measurements over the training."""
    log_every: Annotated[int, AtLeast(1), EXPERT, WITHOUT_EFFECT] = 10
    """Steps between two lines of figures in ``metrics.jsonl``."""
    trackers: Annotated[tuple[Literal["auto", "tensorboard", "wandb", "trackio", "none"], ...], WITHOUT_EFFECT] = ("auto",)
    """Places that figures go to: tensorboard, wandb, trackio, none. By default TensorBoard if it is installed."""
    tracker_project: Annotated[str, EXPERT, WITHOUT_EFFECT] = "sparseformers"
    """Project of the run at Weights & Biases or trackio."""
    checkpoint_every: Annotated[str, WITHOUT_EFFECT] = "10m"
    """Between checkpoints: 10m, 2h, 500steps, 1epoch and the like."""
    keep: Annotated[int, AtLeast(1), EXPERT, WITHOUT_EFFECT] = 3
    """Newest checkpoints that are kept; the best model is kept besides."""
    workers: Annotated[int | None, AtLeast(0), WITHOUT_EFFECT] = None
    """Processes that read images; chosen from the cores by default."""

    def __post_init__(self) -> None:
        check_bounds(self)
        Interval.parse(self.checkpoint_every)


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig(Grouped):
    """All settings of a run.

    ``BootstrapConfig.of(teacher="bundled", data=["photos"], minutes=60)`` makes one from the names alone.
    """

    needs_data: ClassVar[bool] = True
    network: NetworkSettings
    data: DataSettings
    optimisation: OptimisationSettings = OptimisationSettings()
    run: RunSettings = RunSettings()

    def __post_init__(self) -> None:
        if self.needs_data and not self.data.data:
            raise ConfigError("No folder with images was given.", "Name at least one with --data.")

    def absolute(self) -> BootstrapConfig:
        """The same settings with all paths absolute, so that a run can be resumed from any working directory."""
        from sparseformers.data.mixture import absolute_source  # both import PyTorch, which the command's help does not need
        from sparseformers.teachers.registry import absolute_name

        own = self.data
        data = dataclasses.replace(
            own,
            data=tuple(absolute_source(str(each)) for each in own.data),
            eval_data=tuple(absolute_source(str(each)) for each in own.eval_data),
            shard_cache=None if own.shard_cache is None else own.shard_cache.absolute(),
            cache_teacher=None if own.cache_teacher is None else own.cache_teacher.absolute(),
        )
        network = dataclasses.replace(self.network, teacher=absolute_name(self.network.teacher))
        return dataclasses.replace(self, network=network, data=data)

    @property
    def lr_ratios(self) -> dict[str, float]:
        """Learning rates by group of parameters, as shares of ``lr``."""
        tuned = self.optimisation.tuned_lr_ratio
        return {"tuned": tuned, "read_out": READ_OUT_RATE * tuned}

    @property
    def views_seed(self) -> int:
        """The seed of the views and of the held-out choice."""
        return self.optimisation.seed if self.data.data_seed is None else self.data.data_seed

    @property
    def whitens(self) -> bool:
        """``whiten``, or its default for this front."""
        whiten = self.optimisation.whiten
        return self.network.front != "focusing" if whiten is None else whiten


OFF = {"ema": 0, "layer_decay": 1, "looks": 0, "rois_lr_ratio": None, "dense_weight": 0, "token_weight": 0}
"""Settings of earlier versions that are gone, with the value that switched them off; None for one without effect by itself."""


def read_settings(values: Mapping[str, Any], *, where: str) -> tuple[BootstrapConfig, str | None]:
    """Settings of a run, and a note if they were version 0.1's, which had no groups; raises ConfigError for what does not fit."""
    if "network" in values or not values.keys() & {"teacher", "data"}:
        learning = values.get("optimisation")
        if isinstance(learning, Mapping) and learning.get("token_weight") == 0:  # of the first days of version 0.2
            values = {**values, "optimisation": {name: value for name, value in learning.items() if name != "token_weight"}}
        return from_dict(BootstrapConfig, values, where=where), None
    flat = dict(values)
    if isinstance(flat.get("checkpoint_minutes"), (int, float)):
        flat["checkpoint_every"] = f"{max(1, round(60 * flat.pop('checkpoint_minutes')))}s"
    flat["front"] = {"inherited": "grid", "bootstrapped": "focusing"}.get(flat.get("front", "grid"), flat.get("front", "grid"))
    gone = {name: flat.pop(name) for name in OFF if name in flat}
    off = {**OFF, "dense_weight": 1} if flat.get("start") == "fitted" else OFF  # its dense targets are part of it now
    refused = {name: value for name, value in gone.items() if off[name] not in (None, value)}
    if flat.get("whiten") in (0, 1):
        flat["whiten"] = bool(flat["whiten"])
    elif flat.get("whiten") is not None:
        refused["whiten"] = flat["whiten"]
    if refused:
        told = ", ".join(f"{name} = {value}" for name, value in refused.items())
        problem = f"The {where} have {told}, which this version no longer does."
        raise ConfigError(problem, "Go on with sparseformers 0.1, or start a new run.")
    dropped = f"; dropped, as they were off: {', '.join(gone)}" if gone else ""
    return BootstrapConfig.from_flat(flat, where=where), f"read the settings of version 0.1, which had no groups{dropped}"
