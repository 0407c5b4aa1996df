"""The public functions that give a student, as one that can be saved to a folder and pushed to a hub, or put it into a host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparseformers import released, saving
from sparseformers.config import PreprocessingConfig
from sparseformers.errors import ConfigError, MissingExtraError, as_path
from sparseformers.inheritance import Inheritance, InheritReport, Provenance
from sparseformers.inheritance import inherit as inherit_core
from sparseformers.integrations.hub import SparseFormer
from sparseformers.model.sparseformer import SparseFormer as CoreSparseFormer
from sparseformers.model.sparseformer import check_images
from sparseformers.opening import model_name, open_student, with_tokens
from sparseformers.teachers.hubs import check_version

if TYPE_CHECKING:
    from sparseformers.integrations.vision_tower import SparseFormerVisionTower

Parameters = ParamSpec("Parameters")


class InheritedStudent(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer  # frozen parts have ``requires_grad`` off
    report: InheritReport
    provenance: Provenance  # teacher and shares, saved with the weights


def _shared(make: Callable[Parameters, CoreSparseFormer]) -> Callable[Parameters, SparseFormer]:
    @functools.wraps(make)
    def made(*positional: Parameters.args, **named: Parameters.kwargs) -> SparseFormer:
        return SparseFormer.of(make(*positional, **named))

    return made


def _shared_inheritance(make: Callable[Parameters, Inheritance]) -> Callable[Parameters, InheritedStudent]:
    @functools.wraps(make)
    def made(*positional: Parameters.args, **named: Parameters.kwargs) -> InheritedStudent:
        student, report, provenance = make(*positional, **named)
        return InheritedStudent(SparseFormer.of(student, provenance=provenance), report, provenance)

    return made


create_model = _shared(released.create_model)
load_official = _shared(released.load_official)
inherit = _shared_inheritance(inherit_core)


@functools.wraps(saving.load)
def load(run_or_file: str | Path) -> SparseFormer:  # noqa: D103  # wraps gives it the docstring
    return SparseFormer.from_path(as_path(run_or_file, "A run folder or model file"))


def open_model(name: str | Path) -> SparseFormer:
    """Loads a SparseFormer with trained weights, in evaluation mode, by any name that a user has for it.

    That is a run folder, a model file of ours, a weight file of the authors (.pth or .safetensors; its shapes tell which network
    it is), or the name of a released model such as ``sf_base_augreg``, fetched once and then cached. Raises ConfigError for the
    name of a teacher, RunError if there is nothing of that name, or a folder without a model, and WeightsError if the file cannot
    be fetched or read, was tampered with, or holds no SparseFormer.
    """
    path = as_path(name, "A run folder, model file or name")
    if path.exists() and (path.is_dir() or saving.is_saved_model(path)):
        return load(path)  # with the figures that the folder has
    student, provenance = open_student(name)
    return SparseFormer.of(student, provenance=provenance)


def as_open_clip_visual(student: CoreSparseFormer | str | Path, *, output_tokens: bool = False) -> OpenClipVisual:
    """Makes a student a drop-in for an OpenCLIP model's image tower.

    After ``clip.visual = sparseformers.as_open_clip_visual("runs/clip")`` the model's own functions use the student (or the one
    of a name for :func:`open_model`), which was bootstrapped from that tower and is not copied. With ``output_tokens`` the latent
    tokens are returned, too.
    """
    return OpenClipVisual(open_student(student).student, output_tokens=output_tokens)


class OpenClipVisual(nn.Module):
    """A SparseFormer with the interface of OpenCLIP's image towers, but for their intermediates, which are maps over a grid.

    The student is inside, no copy: training one trains the other. ``output_tokens`` adds the latent tokens, as for CoCa.
    """

    def __init__(self, student: CoreSparseFormer, *, output_tokens: bool = False) -> None:
        super().__init__()
        preprocessing = student.config.preprocessing
        self.student, self.output_tokens = student, output_tokens
        self.output_dim = student.config.cortex.embedding_width
        self.image_size = preprocessing.size
        self.image_mean, self.image_std = preprocessing.mean, preprocessing.std
        self.preprocess_cfg = preprocess_cfg(preprocessing)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Embeds images B x 3 x H x W, normalised as OpenCLIP's preprocessing does it; any H and W from 32 up.

        Returns B x D, not of length 1; with ``output_tokens`` also the latent tokens B x N x width after the final norm.
        Raises ConfigError if the weights were cast to half precision.
        """
        if (dtype := next(self.student.parameters()).dtype) != torch.float32:
            problem = f"A SparseFormer keeps its weights in float32, but those of this CLIP's image tower were cast to {dtype}."
            remedy = "Cast the CLIP before its image tower is replaced, or leave it in float32 and use torch.autocast."
            raise ConfigError(problem, remedy)
        images = x.float() * self.student.normalise.std + self.student.normalise.mean  # the student normalises for itself
        if self.grad_checkpointing and torch.is_grad_enabled():
            embedding, tokens = self._checkpointed(images)
        else:
            output = self.student(images)
            embedding, tokens = output.embedding, output.tokens
        if x.dtype != torch.float32:  # the rest of a CLIP in half precision
            embedding, tokens = embedding.to(x.dtype), tokens.to(x.dtype)
        return (embedding, tokens[:, self.student.config.cortex.prefix_tokens :]) if self.output_tokens else embedding

    def _checkpointed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images)
        front, cortex = self.student.focusing, self.student.cortex
        focus = checkpoint(front, self.student.normalise(images), use_reentrant=False)
        tokens = cortex.prefix(focus.tokens)
        for block, places in zip(cortex.blocks, cortex.places(focus.final_rois), strict=True):
            tokens = checkpoint(block, tokens, places, use_reentrant=False)
        pooled, tokens = cortex.read(tokens)
        return cortex.projection(pooled), tokens

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freezes the tower, but for its last ``unlocked_groups`` (locked-image tuning), in OpenCLIP's order of groups.

        There is no batch normalisation, so that ``freeze_bn_stats`` has no effect.
        """
        self.student.requires_grad_(False)
        groups = self._groups()
        for group in groups[len(groups) - min(unlocked_groups, len(groups)) :]:
            for part in group:
                part.requires_grad_(True)

    def _groups(self) -> list[Sequence[nn.Module]]:
        cortex = self.student.cortex
        blocks = list(cortex.blocks)
        groups: list[Sequence[nn.Module]] = [
            [cast(nn.Module, self.student.focusing), cortex.prefix],
            *([block] for block in blocks[:-1]),
            [*blocks[-1:], cortex.norm, cortex.pooling, cortex.pooled_norm],
            [cortex.projection],
        ]
        return [group for group in groups if any(True for part in group for _ in part.parameters())]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Saves memory in training at the price of a second forward pass through front and blocks."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of tokens, positions, RoIs and the like, which weight decay would pull towards an arbitrary zero."""
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] not in ("weight", "bias")}


def preprocess_cfg(preprocessing: PreprocessingConfig) -> dict[str, object]:
    """The preprocessing in OpenCLIP's form, which has no narrower central crop: it keeps the whole shorter side."""
    return {
        "size": preprocessing.size,
        "mode": "RGB",
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "resize_mode": "squash" if preprocessing.resize == "squash" else "shortest",
        "fill_color": 0,
    }


def as_vision_tower(
    student: CoreSparseFormer | str | Path, *, tokens: int | None = None, dense: bool = False
) -> SparseFormerVisionTower:
    """Puts a student in the place of its teacher as the vision tower of a model of transformers, such as LLaVA.

    It is a ``PreTrainedModel`` that takes ``pixel_values``, B x 3 x H x W, normalised as for the teacher, and returns a
    ``BaseModelOutputWithPooling``:

    - ``last_hidden_state``, B x (1+N) x D: class token and N latent tokens (``tokens``, if other than configured) after the final
      norm, without registers; without a class token (SigLIP) N, all of which LLaVA has to take
      (``vision_feature_select_strategy="full"``);
    - ``pooler_output``, B x D: the pooled token before any projection;
    - ``hidden_states`` if asked for: the same before the cortex's first block and after each of its blocks, before the final
      norm. A layer selected from the end, as LLaVA does it (-2), is the one that the teacher has there.

    Put it into a model with ``llava.model.vision_tower = tower`` and ``llava.config.vision_config = tower.config``. It has
    ``tower.config.image_seq_length`` visual tokens, N. Tower and student (or the one of a name for :func:`open_model`) share
    their modules. With ``dense`` it gives as many visual tokens as the teacher, on the teacher's grid: in the layer that its
    read-out learnt the map, in others the student's tokens spread over the grid (LLaVA reads layer -2: ``--dense-layer -2``).

    Raises MissingExtraError without transformers, TeacherError if it is too old, and ConfigError for a number of tokens that the
    student cannot have, or ``dense`` without a read-out.
    """
    MissingExtraError.require("transformers", "huggingface")
    check_version("transformers")
    core = open_student(student).student
    own = core.config.focusing
    with_tokens(core, tokens, model_name(student))
    if dense and core.config.read_out is None:
        problem = f"'{model_name(student)}' has no read-out, so it has no token for each place of the teacher's grid."
        raise ConfigError(problem, "Bootstrap with --dense --dense-layer -2, or leave out dense.")
    from sparseformers.integrations.vision_tower import SparseFormerVisionTower

    return SparseFormerVisionTower.of(core, own.tokens if tokens is None else tokens, dense=dense)
