import numpy as np
import pytest
import torch
from PIL import Image

from sparseformers.errors import ConfigError
from sparseformers.figures import PCAPicture, draw_pca, trace_pca
from sparseformers.figures.data import TitledImage
from sparseformers.figures.pca import PrincipalColours
from sparseformers.inheritance import inherit
from sparseformers.model import SparseFormer
from sparseformers.teachers import Teacher
from tests.figures.pictures import headings, noise, photographs_of, tiny_student
from tests.tiny import SIDE


def student_of(teacher: Teacher, **options: object) -> SparseFormer:
    return inherit(teacher, front="grid", **options).student  # type: ignore[arg-type]


def photographs(count: int = 3) -> list[TitledImage]:
    """Smooth colours, each image another."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return photographs_of(torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1))


def picture(*, height: int = 40, width: int = 60, title: str = "cat.png") -> PCAPicture:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.rand(3, 2, 3, generator=generator), torch.rand(3, 2, 3, generator=generator)
    return PCAPicture(torch.full((3, height, width), 0.5), teacher, student, 0.25, title)


class TestPrincipalColours:
    def test_the_first_axis_is_that_of_the_greatest_variance(self) -> None:
        spread = torch.tensor([0.5, 10.0, 0.1, 3.0, 1.0])
        features = torch.randn(4, 5, 12, 12) * spread[:, None, None]
        colours = PrincipalColours.of(features)
        assert colours.axes.abs().argmax(dim=0).tolist() == [1, 3, 4]
        torch.testing.assert_close(colours.axes.T @ colours.axes, torch.eye(3).double())
        expected = np.linalg.svd((features.transpose(0, 1).flatten(1).T - colours.mean).numpy(), full_matrices=False)[2][:3]
        np.testing.assert_allclose(np.abs((expected @ colours.axes.numpy()).diagonal()), 1, atol=1e-6)

    def test_directions_do_not_depend_on_the_solver(self) -> None:
        features = torch.randn(2, 6, 8, 8)
        colours, turned = PrincipalColours.of(features), PrincipalColours.of(features.flip(-1).flip(0))
        torch.testing.assert_close(colours.axes, turned.axes)
        for axis in colours.axes.T:
            assert axis[axis.abs().argmax()] > 0

    def test_a_few_of_the_teachers_patches_saturate_and_no_more(self) -> None:
        features = torch.randn(4, 6, 16, 16)
        shown = PrincipalColours.of(features)(features)
        assert shown.min() == 0
        assert shown.max() == 1
        for colour in shown.transpose(0, 1).flatten(1):
            assert 0.01 < float((colour == 0).float().mean()) < 0.03
            assert 0.01 < float((colour == 1).float().mean()) < 0.03
        features = torch.ones(2, 5, 3, 3)  # which do not differ, and are grey
        assert torch.equal(PrincipalColours.of(features)(features), torch.full((2, 3, 3, 3), 0.5))


class TestTracePCA:
    def test_a_student_that_is_its_teacher_has_the_same_colours(self, teacher: Teacher) -> None:
        # As many cells as the teacher has patches: the new student is the teacher itself, and each cell gets its token back.
        student = student_of(teacher, tokens=teacher.patch_tokens)
        pictures = trace_pca(student, teacher, photographs())
        assert [traced.title for traced in pictures] == ["a", "b", "c"]
        for traced in pictures:
            assert traced.teacher.shape == traced.student.shape == (3, 4, 4)
            assert traced.cosine > 0.99
            torch.testing.assert_close(traced.student, traced.teacher, atol=0.05, rtol=0)
        assert not torch.allclose(pictures[0].teacher, pictures[1].teacher, atol=0.1)

    def test_the_axes_are_the_teachers_whoever_the_student_is(self, teacher: Teacher) -> None:
        images = photographs()
        near, far = student_of(teacher, tokens=16), student_of(teacher, tokens=1)
        for one, other in zip(trace_pca(near, teacher, images), trace_pca(far, teacher, images), strict=True):
            assert torch.equal(one.teacher, other.teacher)
            assert other.cosine < one.cosine
            assert other.student.std(dim=(1, 2)).max() < 1e-4  # one token has one colour

    def test_the_map_of_a_read_out_is_beside_the_tokens(self, teacher: Teacher) -> None:
        plain, reading, earlier = (student_of(teacher, tokens=4, dense_layer=layer) for layer in (None, -1, -2))
        (traced,) = trace_pca(reading, teacher, photographs(1))
        torch.testing.assert_close(traced.dense, traced.student)  # a new one adds nothing
        assert "Its feature map" in headings(draw_pca([traced]))
        for student in (plain, earlier):
            (without,) = trace_pca(student, teacher, photographs(1))
            assert without.dense is None
            assert "Its feature map" not in headings(draw_pca([without]))

    def test_leaves_modes_alone_gives_ordinary_tensors_and_refuses_another_width(self, teacher: Teacher) -> None:
        student = student_of(teacher, tokens=4).train()
        (traced,) = trace_pca(student, teacher, photographs(1))
        assert all(module.training for module in student.modules())
        for tensor in (traced.image, traced.teacher, traced.student):
            assert tensor.dtype == torch.float32
            assert not tensor.is_inference()
        with pytest.raises(ConfigError, match="32 channels and the teacher's 64"):
            trace_pca(tiny_student(), teacher, photographs(1))


class TestDrawPCA:
    def test_a_row_has_the_input_the_teacher_and_the_student(self) -> None:
        drawn = picture(height=40, width=60)
        figure = draw_pca([drawn])
        assert headings(figure) == ["Input", "Teacher's patches", "Student's tokens", "cat.png (cosine 0.25)"]
        assert len(figure.axes) == 3
        entry, of_teacher, of_student = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
        assert entry.shape == of_teacher.shape == of_student.shape == (40, 60, 3)
        for pixels, cells in ((of_teacher, drawn.teacher), (of_student, drawn.student)):
            np.testing.assert_allclose(pixels[10::20, 10::20], cells.permute(1, 2, 0).numpy(), atol=1e-6)
            assert np.array_equal(pixels[0, 0], pixels[19, 19])  # a cell has one colour

    def test_a_sheet_of_many(self) -> None:
        figure = draw_pca([picture(height=30 + i, title=f"{i}") for i in range(3)], columns=2)
        assert len(figure.axes) == 9
        figure.canvas.draw()


class TestOnPhotographs:
    def test_a_whole_one_is_squashed_for_both_and_drawn_in_its_own_shape(self, teacher: Teacher) -> None:
        student, photograph = student_of(teacher, tokens=4), noise(120, 60)
        (traced,) = trace_pca(student, teacher, [("a", photograph)])
        squashed = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        (expected,) = trace_pca(student, teacher, [("a", squashed)])
        assert traced.image.shape == (3, 60, 120)
        assert traced.cosine == pytest.approx(expected.cosine, abs=0.02)
        torch.testing.assert_close(traced.teacher, expected.teacher, atol=0.1, rtol=0)

    def test_its_own_view_is_drawn_as_the_part_that_is_seen(self, teacher: Teacher) -> None:
        photograph = noise(120, 60)
        (traced,) = trace_pca(student_of(teacher, tokens=4), teacher, [("a", photograph)], view="own")
        height, width = traced.image.shape[-2:]
        assert abs(height - width) <= 1
        middle = torch.from_numpy(np.array(photograph)).permute(2, 0, 1).float().div(255)
        starts = [((60 - height) // 2 + down, (120 - width) // 2 + across) for down in (0, 1) for across in (0, 1)]
        parts = [middle[:, top : top + height, left : left + width] for top, left in starts]  # to the nearest pixel
        assert any(torch.allclose(traced.image, part, atol=1e-6) for part in parts)
