"""Captions files: their forms, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from sparseformers.data.labels import read_captions
from sparseformers.errors import DataError
from tests.refusals import refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images, as far as a captions file can tell."""
    for name in ("a.jpg", "b.jpg", "deeper/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_jsonl__one_or_several_captions(folder: Path) -> None:
    rows = [
        {"image": "b.jpg", "caption": "a cat\u2028on a mat"},
        {"image": "a.jpg", "captions": ["a dog", " a hound "]},
        {"image": "./b.jpg", "caption": "a tabby"},
    ]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found = read_captions(write(folder, "captions.jsonl", lines), folder)
    assert found.paths == (folder / "b.jpg", folder / "a.jpg")
    assert found.captions == ("a cat\u2028on a mat", "a dog", "a hound", "a tabby")
    assert found.image_of == (0, 1, 1, 0)
    # In the words of other data sets, and with absolute names.
    content = json.dumps({"file_name": str(folder / "deeper/c.jpg"), "text": "far", "id": 7})
    found = read_captions(write(folder, "metadata.jsonl", content), folder / "elsewhere")
    assert (found.paths, found.captions) == ((folder / "deeper/c.jpg",), ("far",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", 'image,caption\na.jpg,"one, two"\nb.jpg,"three\nfour"\na.jpg,five\n'),
        ("c.tsv", 'image\tcaption\na.jpg\tone, two\nb.jpg\t"three\nfour"\na.jpg\tfive\n'),
        ("c.csv", 'filepath\tid\ttitle\r\na.jpg\t1\tone, two\r\nb.jpg\t2\t"three\nfour"\r\na.jpg\t3\tfive'),
    ],
)
def test_tables(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(content.encode("utf-8-sig"))
    found = read_captions(folder / name, folder)
    assert found.paths == (folder / "a.jpg", folder / "b.jpg")
    assert found.captions == ("one, two", "three\nfour", "five")
    assert found.image_of == (0, 1, 0)


def test_only__some_images_in_another_order(folder: Path) -> None:
    content = "image,caption\na.jpg,one\nb.jpg,two\na.jpg,three\ndeeper/c.jpg,four\n"
    found = read_captions(write(folder, "c.csv", content), folder).only([2, 0])
    assert found.paths == (folder / "deeper/c.jpg", folder / "a.jpg")
    assert sorted(zip(found.captions, found.image_of, strict=True)) == [("four", 0), ("one", 1), ("three", 1)]


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        ("c.csv", "image,caption\nx.jpg,one\nb.jpg,two\n", "names an image that is not there: ", "Names are relative to"),
        ("c.csv", "image,caption\nx.jpg,1\ny.jpg,2\n", "names 2 images that are not there: ", "Names are relative to"),
        ("c.csv", "image,caption\na.jpg,\nb.jpg,two\na.jpg, \n", "are empty: lines 2, 4.", "Write them, or leave out"),
        ("c.csv", "image,caption\na.jpg,one\n./a.jpg,one\n", "stand there twice for one image: line 3.", "Leave out one"),
        ("c.jsonl", '{"image": "a.jpg", "captions": ["one", "one"]}', "stand there twice for one image: line 1.", "Leave out"),
        ("c.jsonl", '{"image": "a.jpg", "captions": []}', "The image on line 1 of", "Write one, or leave out the line."),
        ("c.jsonl", '{"image": "a.jpg", "caption": "x"}\n{', "Line 2 of", "Write one object on each line."),
        ("c.jsonl", "[1]", "is not a JSON object.", 'Write {"image": ..., "caption": ...}.'),
        ("c.jsonl", '{"image": 1, "caption": "x"}', "holds something else than text.", "Image and captions are text."),
        ("c.jsonl", '{"imag": "a.jpg", "caption": "x"}', "has no 'image'.", "Did you mean 'image'? It may also be called"),
        ("c.csv", "image,words\na.jpg,x\n", "has no 'caption'.", "It may also be called captions, text, title."),
        ("c.csv", "image,caption\na.jpg,one, two\n", "Line 2 of", "Put a caption that holds a ',' in double quotes."),
        ("c.csv", 'image,caption\na.jpg,"one\n', "cannot be read", "Check its double quotes."),
        ("c.csv", "image,caption\n", "holds no captions.", "Write lines such as"),
        ("c.jsonl", "\n", "holds no captions.", "Write lines such as"),
        ("c.txt", "a.jpg one", "has an unknown form.", "Its name has to end in .jsonl, .csv or .tsv."),
        ("c.csv", None, "There is no captions file", "Check the path after --captions."),
    ],
)
def test_files_that_will_not_do(folder: Path, name: str, content: str | None, problem: str, remedy: str) -> None:
    if content is not None:
        write(folder, name, content)
    with refused(DataError, problem, remedy):
        read_captions(folder / name, folder)


def test_no_text_and_many_missing_images(folder: Path) -> None:
    (folder / "c.csv").write_bytes(b"image,caption\n\xff\xfe\xff")
    with pytest.raises(DataError, match=r"cannot be read as text \(UnicodeDecodeError\)\. Save it as UTF-8\."):
        read_captions(folder / "c.csv", folder)
    rows = "".join(f"missing_{number:03}.jpg,x\n" for number in range(40))
    with pytest.raises(DataError, match=r"names 40 images that are not there: .*missing_009\.jpg and 30 more"):
        read_captions(write(folder, "c.csv", "image,caption\n" + rows), folder)
