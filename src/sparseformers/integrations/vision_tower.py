"""A SparseFormer as a vision tower of Hugging Face transformers; :func:`sparseformers.as_vision_tower` makes one.

Importing this file makes transformers' Auto classes know it, so that a model with such a tower inside is loaded by its own
``from_pretrained`` again. Legend: B batch, N latent tokens, R prefix tokens (class token and registers), D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sparseformers.config import SparseFormerConfig
from sparseformers.model import FrontOutput, SparseFormer
from sparseformers.model.grid import GridFront
from sparseformers.model.positions import Places
from sparseformers.model.sparseformer import Normalise, check_images
from sparseformers.model.splatting import splat
from sparseformers.named import named_config
from sparseformers.saving import read_config
from sparseformers.settings import to_dict


class SparseFormerVisionConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not looked into
    """The configuration of a tower in the form of transformers, with those of its settings in ``common``.

    ``sparseformer`` is a :class:`~sparseformers.config.SparseFormerConfig` as plain values, by default that of ``sf_base_clip``;
    ``tokens`` is N, if other than configured. With ``dense`` there is a visual token for each place of the teacher's grid.
    """

    model_type = "sparseformer_vision"
    base_config_key = "vision_config"

    def __init__(
        self, sparseformer: Mapping[str, Any] | None = None, tokens: int | None = None, dense: bool = False, **common: Any
    ) -> None:
        super().__init__(**common)
        self.sparseformer = to_dict(named_config("sf_base_clip")) if sparseformer is None else dict(sparseformer)
        config = self.student_config()
        block = config.cortex.block
        self.tokens = config.focusing.tokens if tokens is None else tokens
        self.dense = dense and config.read_out is not None
        self.image_seq_length = self.tokens if config.read_out is None or not dense else math.prod(config.read_out.grid)
        self.hidden_size, self.intermediate_size = block.width, block.feed_forward_width
        self.num_hidden_layers, self.num_attention_heads = config.cortex.depth, block.heads
        self.num_channels = 3
        self.image_size = config.preprocessing.size[0]
        self.patch_size = max(1, self.image_size // math.isqrt(self.image_seq_length))

    def student_config(self) -> SparseFormerConfig:
        return read_config(self.sparseformer, where="configuration of the vision tower")


class SparseFormerVisionTower(PreTrainedModel):  # type: ignore[misc]  # transformers is not looked into
    """A SparseFormer with the interface that transformers' multimodal models expect of their vision towers."""

    config_class = SparseFormerVisionConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("TransformerBlock",)

    def __init__(self, config: SparseFormerVisionConfig) -> None:
        super().__init__(config)
        self.student = SparseFormer(config.student_config())
        self.gradient_checkpointing = False
        self.post_init()

    @classmethod
    def of(cls, student: SparseFormer, tokens: int, *, dense: bool = False) -> SparseFormerVisionTower:
        """Makes a tower of N tokens with the very modules of a student."""
        with torch.device("meta"):
            tower = cls(SparseFormerVisionConfig(to_dict(student.config), tokens, dense))
        tower.student = student
        return tower.train(student.training)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | int | list[int] | None = None, return_dict: bool | None = None
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Embeds normalised images B x 3 x H x W; see :func:`sparseformers.as_vision_tower` for what it returns.

        Models of transformers name the ``output_hidden_states`` that they select, and get all. ValueError for another shape of
        images, or fewer than 32 pixels a side.
        """
        check_images(pixel_values)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        focus, cortex = self._run_front(pixel_values), self.student.cortex
        states = [cortex.prefix(focus.tokens.to(self.dtype))]
        for block, places in zip(cortex.blocks, cortex.places(focus.final_rois), strict=True):
            states.append(self._run(block, states[-1], places))
        pooled, tokens = cortex.read(states[-1])
        given = {-1: tokens} | ({} if wanted is None or wanted is False else dict(enumerate(states)))
        if self.config.dense:
            given = self._on_grid(given, pixel_values, tokens, focus.final_rois)
        given = {place: self._without_registers(state) for place, state in given.items()}
        output = BaseModelOutputWithPooling(
            last_hidden_state=given.pop(-1), pooler_output=pooled, hidden_states=tuple(given.values()) or None
        )
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()

    def _on_grid(self, states: dict[int, Tensor], pixel_values: Tensor, tokens: Tensor, rois: Tensor) -> dict[int, Tensor]:
        """States B x (R+N) x D, by the block after which they are (-1: the final ones) -> B x (R+hw) x D each."""
        read_out, settings = self.student.read_out, self.config.student_config().read_out
        assert read_out is not None
        assert settings is not None
        of_map = -1 if settings.layer == -1 else len(self.student.cortex.blocks) + 1 + settings.layer
        prefix, on_grid = tokens.shape[1] - rois.shape[1], {}
        for place, state in states.items():
            spread = splat(state[:, prefix:], rois, settings.grid)
            if place == of_map:
                spread = self._in_float32(read_out, pixel_values, tokens, rois, spread)
            on_grid[place] = torch.cat([state[:, :prefix], spread.flatten(2).mT.to(state.dtype)], dim=1)
        return on_grid

    def _run_front(self, pixel_values: Tensor) -> FrontOutput:
        front: FrontOutput = self._in_float32(self.student.focusing, pixel_values, self.config.tokens)
        return front

    def _in_float32(self, part: Any, pixel_values: Tensor, *others: Any) -> Any:
        """Applies a part that reads pixels; RoIs and places stay in float32 where a model has been cast to half precision."""
        if self.dtype not in (torch.float16, torch.bfloat16):
            return part(pixel_values.to(self.dtype), *others)
        weights = {name: value.float() for name, value in part.named_parameters()}
        with torch.autocast(pixel_values.device.type, dtype=self.dtype):
            return functional_call(part, weights, (pixel_values.float(), *others))

    def _run(self, block: nn.Module, tokens: Tensor, places: Places) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(block.__call__, tokens, places)
        return block(tokens, places)

    def _without_registers(self, tokens: Tensor) -> Tensor:
        """B x (R+M) x D of M visual tokens -> B x (1+M) x D, or B x M x D where there is no class token."""
        registers = tokens.shape[1] - self.config.image_seq_length - 1
        return tokens if registers < 1 else torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fills the buffers that no file holds; a SparseFormer has set its own weights already."""
        config = self.config.student_config()
        if isinstance(module, Normalise):
            fresh = Normalise(config.preprocessing.mean, config.preprocessing.std)
            module.mean.copy_(fresh.mean)
            module.std.copy_(fresh.std)
        elif isinstance(module, GridFront):
            module.cells.copy_(module.cells_of(config.focusing.tokens))


AutoConfig.register(SparseFormerVisionConfig.model_type, SparseFormerVisionConfig, exist_ok=True)
AutoModel.register(SparseFormerVisionConfig, SparseFormerVisionTower, exist_ok=True)
