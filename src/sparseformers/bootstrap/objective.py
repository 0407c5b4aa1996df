"""The objective: the student's image embedding should point where the teacher's does, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseformers.model import SparseFormerOutput
from sparseformers.teachers import Teacher


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings (Gao et al., CVPR 2024, section 3).

    Args:
        student: B x D_out.
        teacher: B x D_out, without gradient.

    Returns:
        A float32 scalar in [0, 2].
    """
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def alignment_loss(
    student: Callable[[Tensor], SparseFormerOutput], teacher: Teacher, images: Tensor, autocast: torch.dtype | None
) -> Tensor:
    """The objective on one batch that both see alike: the teacher without gradient, the student with.

    Args:
        student: or the wrapper that synchronises its gradients between processes.
        teacher: frozen.
        images: B x 3 x H x W in [0, 1] at the teacher's size.
        autocast: precision of both; None for float32.
    """
    with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
        with torch.inference_mode():
            target = teacher(images).embedding
        # Autograd does not take tensors of inference mode; a copy made outside of it is an ordinary one.
        return cosine_distance(student(images).embedding, target.clone())
