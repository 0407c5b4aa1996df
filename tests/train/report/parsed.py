"""A report as its reader has it: elements, tables and figures, parsed from the HTML."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"img", "meta", "br", "hr", "link", "input"}


@dataclass
class Element:
    """An element of the page with what is in it."""

    tag: str
    attributes: dict[str, str | None]
    content: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, spaces made single."""
        parts = [part if isinstance(part, str) else part.text for part in self.content]
        return " ".join(" ".join(parts).split())

    def all(self, tag: str) -> list[Element]:
        """The elements of that name in it, in their order."""
        inside = [part for part in self.content if isinstance(part, Element)]
        return [found for part in inside for found in ([part] if part.tag == tag else []) + part.all(tag)]

    def everything(self) -> list[Element]:
        """All elements in it."""
        inside = [part for part in self.content if isinstance(part, Element)]
        return [found for part in inside for found in [part, *part.everything()]]

    def by_id(self, name: str) -> Element:
        """The element with that id."""
        (found,) = [element for element in self.everything() if element.attributes.get("id") == name]
        return found

    def rows(self) -> list[list[str]]:
        """Of a table: the texts of its cells, the head included."""
        return [[cell.text for cell in row.content if isinstance(cell, Element)] for row in self.all("tr")]

    def values(self) -> list[float]:
        """The figures in it, in full."""
        return [float(data.attributes["value"] or "") for data in self.all("data")]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def parse(path: Path) -> Element:
    """The whole page; every element that is begun has to end."""
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    (page,) = parser.open
    return page


def decoded(image: Element) -> bytes:
    """What is in a picture of the page."""
    head, _, content = (image.attributes["src"] or "").partition(",")
    assert head in ("data:image/webp;base64", "data:image/svg+xml;base64")
    return base64.b64decode(content, validate=True)
