"""The identity tests that every adapter has to pass: an inherited network does exactly what its teacher does."""

import torch
from torch import Tensor, nn

from sparseformers.inheritance import inherit
from sparseformers.model.block import build_block
from sparseformers.model.cortex import build_cortex
from sparseformers.rois import cells
from sparseformers.teachers import Teacher


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for every weight, so that none is trivially zero or one; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        values = torch.randn(weight.shape, generator=generator)
        if weight.ndim <= 1:
            weight.copy_(0.6 + 0.3 * values)
        else:
            weight.copy_(values / weight[0].numel() ** 0.5)
    return module.eval()


def images_for(teacher: Teacher, count: int = 2) -> Tensor:
    """Random images in [0, 1] of the teacher's own size."""
    return torch.rand(count, 3, *teacher.preprocessing.size, generator=torch.Generator().manual_seed(1))


def check_same(actual: Tensor, expected: Tensor, *, tolerance: float) -> None:
    """Equal up to a share of the largest value: libraries add float32 numbers in different orders."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())


@torch.no_grad()
def check_identity(teacher: Teacher) -> None:
    """Each block, and the whole cortex, fed the teacher's own tokens give the teacher's own output."""
    images = images_for(teacher)
    inputs = teacher.block_inputs(images)
    assert len(inputs) == teacher.depth + 1
    cortex = build_cortex(teacher.anatomy)
    cortex.load_state_dict(teacher.cortex_state())
    rows, columns = teacher.grid
    rois = cells(rows * columns, rows / columns)[None]
    for index, places in enumerate(cortex.places(rois)):
        block = build_block(teacher.anatomy.block)
        block.load_state_dict(teacher.block_state(index))
        check_same(block(inputs[index], places), inputs[index + 1], tolerance=1e-6)

    own, inherited = teacher(images), cortex(inputs[0][:, teacher.anatomy.prefix_tokens :], rois)
    assert own.embedding.shape == (len(images), teacher.anatomy.embedding_width)
    assert own.embedding.std() > 1e-2
    check_same(inherited.embedding, own.embedding, tolerance=1e-5)
    assert (inherited.logits is None) == (own.logits is None)
    if own.logits is not None:
        check_same(inherited.logits, own.logits, tolerance=1e-5)

    # An inherited front with a token for each patch starts as the teacher itself.
    student = inherit(teacher, front="grid", tokens=teacher.patch_tokens).student.eval()
    check_same(student(images).embedding, own.embedding, tolerance=1e-5)
