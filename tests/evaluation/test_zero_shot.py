import json

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sparseformers.errors import DataError
from sparseformers.evaluation.zero_shot import Recall, accuracy, evaluate_retrieval, evaluate_zero_shot, nearest_classes, recalls
from sparseformers.settings import to_dict
from tests.evaluation.printed import printed
from tests.refusals import refused

CLASSES = torch.eye(8)[:7]  # seven classes along seven of eight axes


def looking_at(*classes: int) -> Tensor:
    """Embeddings that are nearest to these classes, then to the others in falling order of their numbers."""
    rest = torch.arange(8, dtype=torch.float32).expand(len(classes), -1) * 0.01
    return 3 * (rest + torch.eye(8)[torch.tensor(classes)])  # their lengths must not matter


def test_nearest_classes__by_cosine_nearest_first_and_accuracy_by_hand() -> None:
    nearest = nearest_classes(looking_at(2, 6), CLASSES * torch.linspace(1, 9, 7)[:, None])
    assert nearest.tolist() == [[2, 6, 5, 4, 3], [6, 5, 4, 3, 2]]
    assert nearest_classes(looking_at(1), CLASSES[:3]).tolist() == [[1, 2, 0]]
    nearest = torch.tensor([[2, 6, 5, 4, 3], [0, 6, 5, 4, 3], [1, 6, 5, 4, 3], [3, 6, 5, 4, 2]])
    figures = accuracy(nearest, torch.tensor([2, 3, 0, 3]))  # right, fifth, not at all, right
    assert (figures.top1, figures.top5) == (0.5, 0.75)


def test_evaluate_zero_shot__three_towers_on_the_same_classes() -> None:
    towers = looking_at(0, 1, 2, 3), looking_at(0, 1, 3, 4), looking_at(0, 6, 6, 6)
    figures = evaluate_zero_shot(*towers, CLASSES, [0, 1, 2, 3], templates=7)
    assert (figures.teacher.top1, figures.student.top1, figures.low_resolution.top1) == (1.0, 0.5, 0.25)
    assert figures.low_resolution.top5 == 0.75  # of 6, 5, 4, 3, 2 two are right
    assert (figures.kept, figures.agreement) == (0.5, 0.5)
    assert_close(figures.chance, 1 / 7)
    assert (figures.images, figures.classes, figures.templates) == (4, 7, 7)
    assert json.loads(json.dumps(to_dict(figures)))["student"]["top1"] == 0.5


def test_a_teacher_that_knows_nothing__has_nothing_to_keep() -> None:
    figures = evaluate_zero_shot(looking_at(6), looking_at(1), looking_at(6), CLASSES, [1], templates=1)
    assert (figures.teacher.top1, figures.student.top1, figures.kept) == (0.0, 1.0, 0.0)
    assert "0.0%" in printed(figures.table("x", low_resolution="teacher at 56 px, 16 tokens"))


def test_zero_shot_table__says_all_there_is() -> None:
    figures = evaluate_zero_shot(looking_at(0, 1), looking_at(0, 6), looking_at(4, 6), CLASSES, [0, 1], templates=1)
    said = printed(figures.table("runs/clip on photos", low_resolution="teacher at 56 px, 16 tokens", skipped=2))
    for part in ("Zero-shot: runs/clip on photos", "teacher at 56 px, 16 tokens", "50.0%", "14.3%"):
        assert part in said, part
    assert "2 images, 2 unreadable skipped, 7 classes, 1 sentence for each" in said


def test_what_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="There is no image to classify"):
        accuracy(torch.empty(0, 5, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 labels of 1 images"):
        accuracy(torch.zeros(1, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be M x D and C x D"):
        nearest_classes(torch.ones(1, 7), CLASSES)
    with refused(DataError, "There is no image with a caption to look for.", "Give a captions file whose images can be read."):
        recalls(torch.empty(0, 2), torch.empty(0, 2), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 images of 2 captions"):
        recalls(directions(0), directions(0, 1), torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match="must be all of 0 to 1"):
        recalls(directions(0, 1), directions(0, 1), torch.tensor([0, 0]))


def directions(*degrees: float) -> Tensor:
    """Embeddings in a plane, at these angles, of different lengths."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1) * torch.linspace(1, 5, len(degrees))[:, None]


def test_recalls__one_caption_an_image() -> None:
    images = directions(*range(0, 120, 10))  # twelve
    texts = directions(*(angle + 1 for angle in range(0, 120, 10)))
    figures = recalls(images, texts, torch.arange(12))
    assert figures.image_to_text == figures.text_to_image == Recall(1.0, 1.0, 1.0)
    # Each caption a place further: the nearest one belongs to the neighbour, for the first image too.
    shifted = recalls(images, texts, torch.arange(12).roll(-1))
    assert shifted.image_to_text.at_1 == shifted.text_to_image.at_1 == 0.0
    assert_close(shifted.image_to_text.at_5, 11 / 12)  # the first image's caption is at the other end


def test_recalls__several_captions_an_image_and_ranks_that_count_so_many() -> None:
    images = directions(0, 90)
    texts = directions(80, 20, 85, 5)
    figures = recalls(images, texts, torch.tensor([0, 0, 1, 1]))
    # The nearest caption to image 0 is that at 5 degrees (of image 1), to image 1 that at 85 degrees, its own.
    assert figures.image_to_text == Recall(0.5, 1.0, 1.0)
    # Nearest images of the captions: 1, 0, 1, 0; theirs are 0, 0, 1, 1.
    assert figures.text_to_image == Recall(0.5, 1.0, 1.0)
    images = directions(*range(0, 170, 10))  # seventeen
    captions = directions(0.0).repeat(17, 1)
    figures = recalls(images, captions, torch.arange(17))  # every caption lies nearest to image 0, then 1, 2, ...
    found = figures.text_to_image
    assert (found.at_1, found.at_5, found.at_10) == pytest.approx((1 / 17, 5 / 17, 10 / 17))


def test_evaluate_retrieval__three_towers_and_their_table() -> None:
    texts = directions(0, 40, 80)
    right, wrong = directions(1, 41, 81), directions(81, 41, 1)
    figures = evaluate_retrieval(right, wrong, right.flip(0), texts, [0, 1, 2])
    assert figures.teacher.text_to_image.at_1 == 1.0
    assert_close(figures.student.text_to_image.at_1, 1 / 3)
    assert (figures.images, figures.captions) == (3, 3)
    assert_close(json.loads(json.dumps(to_dict(figures)))["student"]["image_to_text"]["at_1"], 1 / 3)
    said = printed(figures.table("runs/clip on photos", low_resolution="teacher at 56 px, 16 tokens", skipped=1))
    counts = "3 images, 1 unreadable skipped, 3 captions"
    for part in ("Retrieval: runs/clip on photos", "image to text", "R@10", "33.3%", counts):
        assert part in said, part
