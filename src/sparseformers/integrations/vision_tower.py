"""A SparseFormer as the vision tower of a multimodal language model: fewer visual tokens in the prompt."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from sparseformers.config import GridConfig
from sparseformers.errors import ConfigError, MissingExtraError
from sparseformers.model import SparseFormer
from sparseformers.teachers.files import check_version

if TYPE_CHECKING:
    from sparseformers.integrations.vision_tower_network import SparseFormerVisionTower


def as_vision_tower(student: SparseFormer, *, tokens: int | None = None) -> SparseFormerVisionTower:
    """A student in the place of the vision tower that its teacher is to a model of transformers, such as LLaVA.

    It is a ``PreTrainedModel`` that takes ``pixel_values``, B x 3 x H x W, normalised as for the teacher (the student does not
    normalise them again), and returns a ``BaseModelOutputWithPooling``:

    - ``last_hidden_state``, B x (1+N) x D: class token and N latent tokens after the final norm;
    - ``pooler_output``, B x D: the pooled token before any projection;
    - ``hidden_states`` if asked for: the tokens before the first block of the cortex and after each of its blocks, before the
      final norm, of the same shape. As LLaVA selects a layer from the end (-2), it finds the one that the teacher's had there.

    Registers are left out. A student whose teacher has no class token (SigLIP) has none to give: N tokens, as SigLIP's own
    tower; LLaVA is to take all of them then (``vision_feature_select_strategy="full"``).

    Put it into a model with ``llava.model.vision_tower = tower`` and ``llava.config.vision_config = tower.config``. The number of
    visual tokens is ``tower.config.image_seq_length``, N; where it is a square number, ``image_size`` and ``patch_size`` give it
    too, as processors compute it.

    Args:
        student: whose modules it has, no copies: what trains or moves the one trains or moves the other.
        tokens: N, if other than configured; only students with an inherited front can have another.

    Raises:
        MissingExtraError: if transformers is not installed.
        TeacherError: if transformers is too old.
        ConfigError: for a number of tokens that the student cannot have.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError.for_package("transformers", "huggingface")
    check_version("transformers")
    own = student.config.focusing
    if tokens is not None and tokens != own.tokens and not isinstance(own, GridConfig):
        raise ConfigError(f"The student has {own.tokens} latent tokens and no other number.", "Leave out tokens.")
    if tokens is not None and tokens < 1:
        raise ConfigError(f"A vision tower needs at least one latent token, not {tokens}.", "Ask for one token or more.")
    from sparseformers.integrations.vision_tower_network import SparseFormerVisionTower

    return SparseFormerVisionTower.of(student, own.tokens if tokens is None else tokens)
