"""The objective: the student's image embedding should point where the teacher's does, and nothing else."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings (Gao et al., CVPR 2024, section 3).

    Args:
        student: B x D_out.
        teacher: B x D_out, without gradient.

    Returns:
        A float32 scalar in [0, 2].
    """
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()
