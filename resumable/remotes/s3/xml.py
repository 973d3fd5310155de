"""The XML that S3 speaks, read without trusting it and written.

One reason to change: the documents of the S3 API. Invariant: no entity is ever expanded and no document type is
accepted; a document nests at most ten deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.parsers import expat
from xml.sax.saxutils import escape

from attrs import Factory, define

DEEPEST = 10


class BadXml(ValueError):
    """The document can't be read, or it is one that we don't want to read."""


@define
class Element:
    """``name`` is without its namespace."""

    name: str
    text: str = ""
    children: list[Element] = Factory(list)

    def find(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text.strip() for child in self.children if child.name == name), None)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return (child for child in self.children if child.name == name)


class _Builder:
    def __init__(self) -> None:
        self.open: list[Element] = [Element("")]

    def start(self, name: str, _: dict[str, str]) -> None:
        if len(self.open) > DEEPEST:
            raise BadXml("the document is nested too deep")
        element = Element(name.rpartition(" ")[2])
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, _: str) -> None:
        self.open.pop()

    def text(self, data: str) -> None:
        self.open[-1].text += data

    def refuse(self, *_: object) -> None:
        raise BadXml("the document has a type declaration")


def parse(document: bytes) -> Element:
    """The root element. Raises BadXml. The caller has bounded the document's size."""
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    try:
        # white space in front of a document keeps the connection of a long CompleteMultipartUpload alive
        parser.Parse(document.strip(), True)
    except expat.ExpatError as error:
        raise BadXml(f"not XML: {error}") from None
    return builder.open[0].children[0]


def complete_document(parts: Sequence[Sequence[tuple[str, str]]]) -> bytes:
    """The body of CompleteMultipartUpload: for each part, in order, its (name, text) pairs."""
    rows = "".join(
        "<Part>" + "".join(f"<{name}>{escape(text)}</{name}>" for name, text in part) + "</Part>" for part in parts
    )
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{namespace}">{rows}</CompleteMultipartUpload>'.encode()
