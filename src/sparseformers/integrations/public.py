"""The public functions that give a student, as one that can be saved to a folder and pushed to a hub, or put it into a host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec

from sparseformers import released, saving
from sparseformers.errors import ConfigError, MissingExtraError, as_path
from sparseformers.inheritance import Inheritance, InheritReport, Provenance
from sparseformers.inheritance import inherit as inherit_core
from sparseformers.integrations.hub import SparseFormer
from sparseformers.integrations.open_clip_visual import OpenClipVisual
from sparseformers.model.sparseformer import SparseFormer as CoreSparseFormer
from sparseformers.opening import model_name, open_student, with_tokens
from sparseformers.teachers.hubs import check_version

if TYPE_CHECKING:
    from sparseformers.integrations.vision_tower import SparseFormerVisionTower

Parameters = ParamSpec("Parameters")


class InheritedStudent(NamedTuple):
    """A student with what is known of its making."""

    student: SparseFormer
    """Frozen parts have ``requires_grad`` off."""
    report: InheritReport
    provenance: Provenance
    """Teacher and shares, saved with the weights."""


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
    it is), or the name of a released model such as ``sf_base_augreg``, which is fetched once and then cached. Raises ConfigError
    for the name of a teacher, RunError if there is nothing of that name, or the folder is no run or has no model yet, and
    WeightsError if the file cannot be fetched or read, was tampered with, or holds no SparseFormer.
    """
    path = as_path(name, "A run folder, model file or name")
    if path.exists() and (path.is_dir() or saving.is_saved_model(path)):
        return load(path)  # with the figures that the folder has
    student, provenance = open_student(name)
    return SparseFormer.of(student, provenance=provenance)


def as_open_clip_visual(student: CoreSparseFormer | str | Path, *, output_tokens: bool = False) -> OpenClipVisual:
    """Makes a student a drop-in for an OpenCLIP model's image tower.

    After these lines the model's own functions use the student::

        clip, _, preprocess = open_clip.create_model_and_transforms("ViT-B-16", pretrained="openai")
        clip.visual = sparseformers.as_open_clip_visual("runs/clip")

    The student (or the one of a name for :func:`open_model`) was bootstrapped from that model's image tower; it is used as it is,
    not copied. With ``output_tokens`` the latent tokens are returned, too.
    """
    return OpenClipVisual(open_student(student).student, output_tokens=output_tokens)


def as_vision_tower(
    student: CoreSparseFormer | str | Path, *, tokens: int | None = None, dense: bool = False
) -> SparseFormerVisionTower:
    """Puts a student in the place of its teacher as the vision tower of a model of transformers, such as LLaVA.

    It is a ``PreTrainedModel`` that takes ``pixel_values``, B x 3 x H x W, normalised as for the teacher, and returns a
    ``BaseModelOutputWithPooling``:

    - ``last_hidden_state``, B x (1+N) x D: class token and N latent tokens after the final norm;
    - ``pooler_output``, B x D: the pooled token before any projection;
    - ``hidden_states`` if asked for: the tokens before the first block of the cortex and after each of its blocks, before the
      final norm, of the same shape. A layer selected from the end, as LLaVA does it (-2), is the one that the teacher has there.

    Registers are left out. A student whose teacher has no class token (SigLIP) gives N tokens, as SigLIP's own tower does; LLaVA
    has to take all of them then (``vision_feature_select_strategy="full"``).

    Put it into a model with ``llava.model.vision_tower = tower`` and ``llava.config.vision_config = tower.config``. The number of
    visual tokens is ``tower.config.image_seq_length``, N; where it is a square number, ``image_size`` and ``patch_size`` give it
    too, as processors compute it.

    With ``dense`` it gives as many visual tokens as the teacher itself, on the teacher's grid, for a model that was trained with
    those: nothing else of it changes. The states of the layer that the student's read-out learnt are its map, those of other
    layers are the student's tokens spread over the grid. LLaVA reads layer -2: bootstrap with ``--dense --dense-layer -2``.

    Args:
        student: the student, whose modules it shares: to train or move one is to train or move the other. Or a name for
            :func:`open_model`.
        tokens: N, if other than configured; the papers' fronts have no other.
        dense: give a token for each place of the teacher's grid.

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
