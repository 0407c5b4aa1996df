"""Zero-shot figures by hand, and the files that say what classes are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sparseformers.errors import ConfigError, DataError
from sparseformers.evaluation.words import pretty_name, read_class_names, read_templates
from sparseformers.evaluation.zero_shot import Accuracy, accuracy, evaluate_zero_shot, nearest_classes
from sparseformers.settings import to_dict
from tests.evaluation.printed import printed

CLASSES = torch.eye(8)[:7]
"""Seven classes along seven of eight axes."""
FOLDERS = ("ant", "sea_horse", "yin_yang")


def looking_at(*classes: int) -> Tensor:
    """Embeddings that are nearest to these classes, then to the others in falling order of their numbers."""
    rest = torch.arange(8, dtype=torch.float32).expand(len(classes), -1) * 0.01
    return 3 * (rest + torch.eye(8)[torch.tensor(classes)])  # their lengths must not matter


def test_nearest_classes__by_cosine_nearest_first() -> None:
    nearest = nearest_classes(looking_at(2, 6), CLASSES * torch.linspace(1, 9, 7)[:, None])
    assert nearest.tolist() == [[2, 6, 5, 4, 3], [6, 5, 4, 3, 2]]
    assert nearest_classes(looking_at(1), CLASSES[:3]).tolist() == [[1, 2, 0]]


def test_accuracy__by_hand() -> None:
    nearest = torch.tensor([[2, 6, 5, 4, 3], [0, 6, 5, 4, 3], [1, 6, 5, 4, 3], [3, 6, 5, 4, 2]])
    figures = accuracy(nearest, torch.tensor([2, 3, 0, 3]))  # right, fifth, not at all, right
    assert figures == Accuracy(top1=0.5, top5=0.75)


def test_evaluate_zero_shot__three_towers_on_the_same_classes() -> None:
    labels = [0, 1, 2, 3]
    figures = evaluate_zero_shot(
        looking_at(0, 1, 2, 3), looking_at(0, 1, 3, 4), looking_at(0, 6, 6, 6), CLASSES, labels, templates=7
    )
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


def test_no_images_and_other_shapes() -> None:
    with pytest.raises(DataError, match="There is no image to classify"):
        accuracy(torch.empty(0, 5, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 labels of 1 images"):
        accuracy(torch.zeros(1, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be M x D and C x D"):
        nearest_classes(torch.ones(1, 7), CLASSES)


def test_pretty_name() -> None:
    assert [pretty_name(name) for name in ("sea_horse", "Faces_easy", "great-white__shark ", "ant")] == [
        "sea horse",
        "Faces easy",
        "great white shark",
        "ant",
    ]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("names.txt", "emmet\nhippocampus\ntaijitu\n\n", ("emmet", "hippocampus", "taijitu")),
        ("names.txt", "Yin Yang\nANT\nsea horse", ("ANT", "sea horse", "Yin Yang")),  # the folders' own, in another order
        ("names.txt", "yin_yang\ttaijitu\nant\temmet\nsea_horse\thippocampus", ("emmet", "hippocampus", "taijitu")),
        ("names.json", '{"yin_yang": "taijitu", "ant": "emmet", "sea_horse": "b"}', ("emmet", "b", "taijitu")),
        ("names.json", '["emmet", "hippocampus", "taijitu"]', ("emmet", "hippocampus", "taijitu")),
    ],
)
def test_read_class_names(tmp_path: Path, file: str, content: str, expected: tuple[str, ...]) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8-sig")
    assert read_class_names(tmp_path / file, FOLDERS) == expected


def test_read_class_names__without_a_file_are_the_folders_own() -> None:
    assert read_class_names(None, FOLDERS) == ("ant", "sea horse", "yin yang")


@pytest.mark.parametrize(
    ("file", "content", "problem", "remedy"),
    [
        ("n.txt", "a\nb", "has 2 class names, but there are 3 class folders.", "Give one name for each folder"),
        (
            "n.txt",
            "ant\ta\nsea_hors\tb\nyin_yang\tc",
            "do not match the class folders (no name for sea_horse; no folder for sea_hors).",
            "Did you mean 'sea_horse'? Give each folder one name.",
        ),
        ("n.json", '{"ant": "a"}', "(no name for sea_horse, yin_yang).", "Give each folder one name."),
        ("n.txt", "ant\ta\nb\nc", "Some lines of", "Write all lines in one way."),
        ("n.txt", "ant\ta\nant\tb\nsea_horse\tc", "names a class folder twice: ant.", "Leave one line of each."),
        ("n.txt", "ant\t\nsea_horse\tb\nyin_yang\tc", "A class name in", "Give each class folder a name."),
        ("n.txt", "\n", "is empty.", "Write a name for each class folder."),
        ("n.json", "[1, 2, 3]", "are not all text.", 'Write {"FOLDER": "name", ...}.'),
        ("n.json", "{", "are no JSON", "Give an object or a list."),
        ("n.txt", None, "There is no file of class names", "Check the path after --classnames."),
    ],
)
def test_class_names_that_will_not_do(tmp_path: Path, file: str, content: str | None, problem: str, remedy: str) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(DataError) as error:
        read_class_names(tmp_path / file, FOLDERS)
    assert problem in error.value.problem
    assert error.value.remedy.startswith(remedy)


def test_read_templates(tmp_path: Path) -> None:
    assert len(read_templates("openai")) == 80
    assert len(read_templates("simple")) == 7
    assert "a photo of the large {}." in read_templates("simple")
    (tmp_path / "own.txt").write_text("a photo of a {}.\n\n  the {}\n")
    assert read_templates(str(tmp_path / "own.txt")) == ("a photo of a {}.", "the {}")


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        ("a photo of a cat.", "The template 'a photo of a cat.' in", "Mark the place by {}, as in 'a photo of a {}.'."),
        ("{} and {}", "does not have one place for the name of a class.", "Mark the place by {}"),
        ("a {c} of {}", "does not have one place", "Mark the place by {}"),
        ("\n \n", "is empty.", "Write a sentence such as"),
        (None, "There is no file of templates", "Use openai, simple or a file."),
    ],
)
def test_templates_that_will_not_do(tmp_path: Path, content: str | None, problem: str, remedy: str) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_text(content)
    with pytest.raises(ConfigError) as error:
        read_templates(str(tmp_path / "own.txt"))
    assert problem in error.value.problem
    assert error.value.remedy.startswith(remedy)


def test_a_misspelt_list_of_templates() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'openai'"):
        read_templates("opnai")
