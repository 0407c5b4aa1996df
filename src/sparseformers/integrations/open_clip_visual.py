"""A student in the place of an OpenCLIP model's image tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparseformers.config import PreprocessingConfig
from sparseformers.errors import ConfigError
from sparseformers.model import SparseFormer
from sparseformers.model.sparseformer import check_images


class OpenClipVisual(nn.Module):
    """A SparseFormer, aligned to a model's own image tower, with the interface of OpenCLIP's image towers.

    Whatever OpenCLIP does with ``clip.visual`` goes on working, but for its intermediates, which are maps over a grid. The
    student itself is inside, not a copy: training one trains the other. With ``output_tokens`` the latent tokens are returned
    too, as OpenCLIP's towers do for CoCa.
    """

    def __init__(self, student: SparseFormer, *, output_tokens: bool = False) -> None:
        super().__init__()
        preprocessing = student.config.preprocessing
        self.student = student
        self.output_tokens = output_tokens
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
        dtype = next(self.student.parameters()).dtype
        if dtype != torch.float32:
            problem = f"A SparseFormer keeps its weights in float32, but those of this CLIP's image tower were cast to {dtype}."
            remedy = "Cast the CLIP before its image tower is replaced, or leave it in float32 and use torch.autocast."
            raise ConfigError(problem, remedy)
        normalise = self.student.normalise
        images = x.float() * normalise.std + normalise.mean  # the student normalises for itself
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
        """Freezes the tower, but for its last ``unlocked_groups`` (locked-image tuning).

        OpenCLIP's order of groups from the last: the projection where there is one, the last block with final norm and pooling,
        then block by block, and the front. There is no batch normalisation, so that ``freeze_bn_stats`` has no effect.
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
