import os

import pytest

from sparseformers.files import printable


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Grüße & <b> 写真.jpg", "Grüße & <b> 写真.jpg"),
        ("a\nb\tc\x00.jpg", "a\\nb\\tc\\x00.jpg"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\udce9.jpg"),
    ],
)
def test_printable__writes_what_does_more_than_be_read_as_escapes(name: str, written: str) -> None:
    assert printable(name) == written
    assert printable(written) == written
    written.encode("utf-8")
