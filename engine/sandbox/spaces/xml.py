"""The little XML that S3 needs: nested names and texts out, names without namespaces in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias
from xml.etree import ElementTree
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
Element: TypeAlias = "tuple[str, str | Sequence[Element]]"
"""A name, and its text or what is in it."""

_CONTROLS = {chr(n): f"&#x{n:x};" for n in range(32) if chr(n) != "\n"}


def document(name: str, content: Sequence[Element], *, namespace: str = NAMESPACE) -> bytes:
    """A whole document."""
    opening = f'<{name} xmlns="{namespace}">' if namespace else f"<{name}>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}{_inner(content)}</{name}>'.encode()


def _inner(content: Iterable[Element]) -> str:
    return "".join(
        f"<{name}>{escape(value, _CONTROLS) if isinstance(value, str) else _inner(value)}</{name}>"
        for name, value in content
    )


def parse(raw: bytes, root: str) -> ElementTree.Element | None:
    """The root element of a body without its namespaces; None if it is none, or has another name."""
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        return None
    try:
        tree = ElementTree.fromstring(raw)
    except ElementTree.ParseError:
        return None
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    return tree if tree.tag == root else None


def child_text(element: ElementTree.Element, name: str) -> str | None:
    """The text of a child, None without that child."""
    child = element.find(name)
    return None if child is None else (child.text or "")


def texts(element: ElementTree.Element, name: str) -> list[str]:
    """The texts of all children of a name."""
    return [child.text or "" for child in element.findall(name)]
