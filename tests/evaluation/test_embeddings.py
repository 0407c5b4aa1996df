import pytest
import torch

from sparseformers.errors import DataError
from sparseformers.evaluation import embed, embed_one
from tests.evaluation.networks import Network, batches_of

IMAGES = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_rows_are_the_networks_outputs_and_logits_or_the_teacher_can_be_left_out() -> None:
    student, teacher = Network(classes=6).eval(), Network(width=8).eval()
    embedded = embed(student, teacher, batches_of(IMAGES, size=3), device="cpu", autocast=None)
    assert (student.batches, teacher.batches) == (3, 3)
    torch.testing.assert_close(embedded.student, student(IMAGES).embedding)
    torch.testing.assert_close(embedded.teacher, teacher(IMAGES).embedding)
    torch.testing.assert_close(embedded.student_logits, student(IMAGES).logits)
    assert embedded.teacher_logits is None
    assert embedded.indices.tolist() == list(range(7))
    batches = batches_of(IMAGES, size=3, unreadable=(1,))
    embedded = embed(student, student, batches, device="cpu", autocast=None, keep_logits=False)
    assert embedded.student_logits is embedded.teacher_logits is None
    assert torch.equal(embed_one(student, batches, device="cpu", autocast=None), embedded.student)  # the same rows by one alone


def test_unreadable_images_have_no_row_and_are_reported() -> None:
    student, teacher = Network().eval(), Network().eval()
    told: dict[int, str] = {}
    done: list[int] = []
    some = batches_of(IMAGES, size=2, unreadable=(1, 4, 5))  # the third batch has no image at all
    embedded = embed(student, teacher, some, device="cpu", autocast=None, progress=done.append, on_unreadable=told.__setitem__)
    assert embedded.indices.tolist() == [0, 2, 3, 6]
    torch.testing.assert_close(embedded.student, student(IMAGES[[0, 2, 3, 6]]).embedding)
    assert told == dict.fromkeys((1, 4, 5), "truncated")
    assert done == [2, 2, 2, 1]
    with pytest.raises(DataError, match=r"no image that could be read\. Give a folder with images in it"):
        embed(Network(), Network(), batches_of(IMAGES, size=2, unreadable=tuple(range(7))), device="cpu", autocast=None)


def test_networks_are_evaluated_in_evaluation_mode_and_come_back_in_their_own() -> None:
    student, teacher = Network().train(), Network().eval()
    student.frozen.eval()
    embedded = embed(student, teacher, batches_of(IMAGES, size=7), device="cpu", autocast=None)
    assert [student.training, student.dropout.training, student.frozen.training] == [True, True, False]
    assert not any(part.training for part in teacher.modules())
    torch.testing.assert_close(embedded.student, student.eval()(IMAGES).embedding)

    def failing():  # type: ignore[no-untyped-def]
        yield batches_of(IMAGES, size=7)[0]
        raise OSError("the disk is gone")

    student.dropout.train()
    with pytest.raises(OSError, match="the disk is gone"):
        embed(student, teacher, failing(), device="cpu", autocast=None)
    assert student.dropout.training


def test_rows_are_ordinary_float32_tensors_in_any_precision() -> None:
    student = Network(classes=3).eval()
    batches = batches_of(IMAGES, size=3)
    low = embed(student, student, batches, device="cpu", autocast=torch.bfloat16)
    full = embed(student, student, batches, device="cpu", autocast=None)
    assert low.student.dtype == low.student_logits.dtype == torch.float32
    assert not torch.equal(low.student, full.student)
    torch.testing.assert_close(low.student, full.student, atol=0.02, rtol=0.02)
    assert not low.student.is_inference()
    assert not low.student.requires_grad
