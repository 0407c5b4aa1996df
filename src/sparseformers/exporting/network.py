"""The network that goes into an exported file: from images to embeddings, with what every format can express."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from sparseformers.exporting.config import ExportConfig
from sparseformers.exporting.gathering import gather_samples
from sparseformers.exporting.preprocessing import Preprocessing
from sparseformers.exporting.resampling import resample, resampling_matrix
from sparseformers.inference import fold_embedding
from sparseformers.inference.fronts import FoldedGrid
from sparseformers.model import SparseFormer
from sparseformers.model.grid import GridFront, Resize


class PortableResize(Resize):
    """As :class:`Resize`, by products with matrices, which all formats have."""

    def forward(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        rows = resampling_matrix(images.shape[2], size[0], "bilinear", kept=size[0])
        columns = resampling_matrix(images.shape[3], size[1], "bilinear", kept=size[1])
        return resample(images, rows, columns)


class EmbeddingNetwork(nn.Module):
    """From images, or their bytes, to embeddings; folded for that, so that a file has less to compute.

    Args:
        student: is copied, and stays as it is.
        tokens: latent tokens N, if other than configured.
        with_preprocessing: whether to take bytes of any size, and to resize and crop them.
        gathers: whether feature maps are read by gathers, which is faster everywhere but in PyTorch.
    """

    def __init__(
        self, student: SparseFormer, *, tokens: int | None = None, with_preprocessing: bool = False, gathers: bool = True
    ) -> None:
        super().__init__()
        self.student = fold_embedding(student, tokens=tokens).cpu()
        self.preprocessing = Preprocessing(student.config.preprocessing) if with_preprocessing else nn.Identity()
        front = self.student.focusing
        if isinstance(front, GridFront | FoldedGrid):
            front.resize = PortableResize()
        if gathers:
            gather_samples(self.student)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: B x 3 x H x W in [0, 1], red-green-blue, any H and W from 32 up; with preprocessing B x H x W x 3 bytes,
                any H and W.

        Returns:
            B x D_out, float32.
        """
        embedding: Tensor = self.student(self.preprocessing(images))
        return embedding


class Bfloat16Linear(nn.Module):
    """A linear layer in bfloat16 between values in float32.

    Cast by hand and not by autocast, which would take the matrices of :mod:`sparseformers.exporting.resampling` too, and pixels
    have more digits than bfloat16.

    Args:
        linear: in float32.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().bfloat16(), requires_grad=False)
        bias = cast("Tensor | None", linear.bias)
        self.bias = None if bias is None else nn.Parameter(bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """... x D_in -> ... x D_out, float32."""
        return F.linear(x.bfloat16(), self.weight, self.bias).float()


def with_bfloat16_layers(network: nn.Module) -> nn.Module:
    """Puts linear layers in bfloat16 in the place of all that ``network`` has; returns it."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                module.add_module(name, Bfloat16Linear(child))
    return network


def network_of(student: SparseFormer, settings: ExportConfig) -> nn.Module:
    """The network that a file with these settings holds; for int8 in float32, to be quantised in the file."""
    network = EmbeddingNetwork(
        student,
        tokens=settings.tokens,
        with_preprocessing=settings.with_preprocessing,
        gathers=settings.format != "torch-export",
    )
    return with_bfloat16_layers(network) if settings.precision == "bf16" else network
