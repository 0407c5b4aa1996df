import os

from sparseformers.files import printable


def test_printable__writes_what_does_more_than_be_read_as_escapes() -> None:
    for name, written in (
        ("Grüße & <b> 写真.jpg", "Grüße & <b> 写真.jpg"),
        ("a\nb\tc\x00.jpg", "a\\nb\\tc\\x00.jpg"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\udce9.jpg"),
    ):
        assert printable(name) == written
        assert printable(written) == written
        written.encode("utf-8")
