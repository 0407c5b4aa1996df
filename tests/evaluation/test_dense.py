from pathlib import Path

import torch

from sparseformers.evaluation.dense import SmallTeacher, dense_cosine, detail
from sparseformers.teachers import load_teacher
from tests.tiny import SIDE, write_teacher


def test_cosines__are_as_seen_from_the_centre_and_detail_is_variance() -> None:
    centre = torch.randn(8)
    theirs = centre.view(8, 1, 1) + torch.randn(2, 8, 3, 3)
    mirrored = 2 * centre.view(8, 1, 1) - theirs
    torch.testing.assert_close(dense_cosine(mirrored, theirs, centre), -torch.ones(2, 3, 3))
    images = torch.zeros(1, 3, 8, 8)
    images[..., :4, :4] = torch.rand(4, 4)
    flat = detail(images, (2, 2))[0]
    assert flat[0, 0] > 0.01
    assert flat.flatten()[1:].abs().max() < 1e-6


def test_the_teacher_on_all_its_patches__is_the_teacher(tmp_path: Path) -> None:
    teacher = load_teacher(write_teacher(tmp_path / "teacher.safetensors"), image_size=SIDE)
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        whole = SmallTeacher(teacher, teacher.grid)(images)
        torch.testing.assert_close(whole, teacher.embedding_and_tokens(images)[1], atol=1e-4, rtol=1e-4)
