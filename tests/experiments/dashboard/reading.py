"""A page taken apart, for tests that read it as a browser or a screen reader would."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "img", "br", "rect", "circle", "line", "path", "image"}


@dataclass
class Element:
    """A tag with what is inside it."""

    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    parts: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """Tags right inside it."""
        return [part for part in self.parts if isinstance(part, Element)]

    def all(self, tag: str) -> list[Element]:
        """Every such tag below."""
        found = []
        for child in self.children:
            found += [child] if child.tag == tag else []
            found += child.all(tag)
        return found

    @property
    def text(self) -> str:
        """All text inside, as it stands."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def words(self) -> str:
        """All text inside, with single blanks."""
        return " ".join(self.text.split())


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.open = Element("", {})

    def handle_starttag(self, tag, attrs):
        made = Element(tag, {k: v or "" for k, v in attrs}, self.open)
        self.open.parts.append(made)
        if tag not in VOID:
            self.open = made

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.tag == tag, f"</{tag}> closes <{self.open.tag}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.parts.append(data)


def read(page: bytes) -> Element:
    """The page's tree; fails on tags that do not close as they opened."""
    parser = _Parser()
    parser.feed(page.decode())
    parser.close()
    assert parser.open is parser.root
    return parser.root


def row_of(page: Element, table: str, head: str) -> dict[str, Element]:
    """Cells by column of the row whose head starts with these words."""
    found = next(t for t in page.all("table") if t.all("caption")[0].words == table)
    columns = [th.words for th in found.all("thead")[0].all("th")]
    for row in found.all("tbody")[0].all("tr"):
        if row.all("th")[0].words.startswith(head):
            return dict(zip(columns, row.children, strict=True))
    raise AssertionError(f"{table} has no row {head}")
