from pathlib import Path

from sparseformers.errors import ConfigError, DataError
from sparseformers.evaluation.words import pretty_name, read_class_names, read_templates
from tests.refusals import refused

FOLDERS = ("ant", "sea_horse", "yin_yang")


def test_pretty_name() -> None:
    names = {"sea_horse": "sea horse", "Faces_easy": "Faces easy", "great-white__shark ": "great white shark", "ant": "ant"}
    assert {name: pretty_name(name) for name in names} == names


def test_read_class_names(tmp_path: Path) -> None:
    for file, content, expected in (
        ("names.txt", "emmet\nhippocampus\ntaijitu\n\n", ("emmet", "hippocampus", "taijitu")),
        ("names.txt", "Yin Yang\nANT\nsea horse", ("ANT", "sea horse", "Yin Yang")),  # the folders' own, in another order
        ("names.txt", "yin_yang\ttaijitu\nant\temmet\nsea_horse\thippocampus", ("emmet", "hippocampus", "taijitu")),
        ("names.json", '{"yin_yang": "taijitu", "ant": "emmet", "sea_horse": "b"}', ("emmet", "b", "taijitu")),
        ("names.json", '["emmet", "hippocampus", "taijitu"]', ("emmet", "hippocampus", "taijitu")),
    ):
        (tmp_path / file).write_text(content, encoding="utf-8-sig")
        assert read_class_names(tmp_path / file, FOLDERS) == expected
    assert read_class_names(None, FOLDERS) == ("ant", "sea horse", "yin yang")  # the folders' own


def test_class_names_that_will_not_do(tmp_path: Path) -> None:
    for content, problem, remedy in (
        ("a\nb", "has 2 class names, but there are 3 class folders.", "Give one name for each folder"),
        ("ant\ta\nsea_hors\tb\nyin_yang\tc", "(no name for sea_horse; no folder for sea_hors).", "Did you mean 'sea_horse'?"),
        ('{"ant": "a"}', "do not match the class folders (no name for sea_horse, yin_yang).", "Give each folder one name."),
        ("ant\ta\nb\nc", "Some lines of", "Write all lines in one way."),
        ("ant\ta\nant\tb\nsea_horse\tc", "names a class folder twice: ant.", "Leave one line of each."),
        ("ant\t\nsea_horse\tb\nyin_yang\tc", "A class name in", "Give each class folder a name."),
        ("\n", "is empty.", "Write a name for each class folder."),
        ("[1, 2, 3]", "are not all text.", 'Write {"FOLDER": "name", ...}.'),
        ("{", "are no JSON", "Give an object or a list."),
    ):
        path = tmp_path / ("n.json" if content[0] in "[{" else "n.txt")
        path.write_text(content)
        with refused(DataError, problem, remedy):
            read_class_names(path, FOLDERS)
    with refused(DataError, "There is no file of class names", "Check the path after --classnames."):
        read_class_names(tmp_path / "none.txt", FOLDERS)


def test_read_templates(tmp_path: Path) -> None:
    assert len(read_templates("openai")) == 80
    assert len(read_templates("simple")) == 7
    assert "a photo of the large {}." in read_templates("simple")
    (tmp_path / "own.txt").write_text("a photo of a {}.\n\n  the {}\n")
    assert read_templates(str(tmp_path / "own.txt")) == ("a photo of a {}.", "the {}")


def test_templates_that_will_not_do(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    with refused(ConfigError, "There is no file of templates", "Use openai, simple or a file."):
        read_templates(str(path))
    with refused(ConfigError, "There is no file of templates", "Did you mean 'openai'"):
        read_templates("opnai")
    for content, problem, remedy in (
        ("a photo of a cat.", "The template 'a photo of a cat.' in", "Mark the place by {}, as in 'a photo of a {}.'."),
        ("{} and {}", "does not have one place for the name of a class.", "Mark the place by {}"),
        ("a {c} of {}", "does not have one place", "Mark the place by {}"),
        ("\n \n", "is empty.", "Write a sentence such as"),
    ):
        path.write_text(content)
        with refused(ConfigError, problem, remedy):
            read_templates(str(path))
