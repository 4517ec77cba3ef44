"""HTML from phones as XHTML-IM (XEP-0071): only what marks up text, nothing that acts. Pure."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

from sipgw.xmpp.stanza import Element, SubElement

__all__ = ["HTML_IM", "to_xhtml"]

HTML_IM: Final = "http://jabber.org/protocol/xhtml-im"
XHTML: Final = "http://www.w3.org/1999/xhtml"
_KEPT: Final = frozenset("a blockquote br em li ol p span strong ul".split())
_SAME: Final = {"b": "strong", "i": "em", "div": "p"}
_HIDDEN: Final = frozenset("script style head title".split())
DEEPEST: Final = 16
MOST: Final = 2000
"""Elements of a text."""


class _Reader(HTMLParser):
    def __init__(self, body: Element) -> None:
        super().__init__(convert_charrefs=True)
        self.path = [body]
        self.hidden = 0
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element, if it is one that is kept."""
        if tag in _HIDDEN:
            self.hidden += 1
        tag = _SAME.get(tag, tag)
        if self.hidden or tag not in _KEPT or len(self.path) > DEEPEST or self.count > MOST:
            return
        self.count += 1
        made = SubElement(self.path[-1], f"{{{XHTML}}}{tag}")
        if tag == "a":
            href = (dict(attrs).get("href") or "").strip()
            if href.lower().startswith(("http://", "https://", "mailto:", "sip:", "sips:", "tel:", "xmpp:")):
                made.set("href", href)
        if tag != "br":
            self.path.append(made)

    def handle_endtag(self, tag: str) -> None:
        """End the element of that name, and those in it that were left open."""
        if tag in _HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        name = f"{{{XHTML}}}{_SAME.get(tag, tag)}"
        for index in range(len(self.path) - 1, 0, -1):
            if self.path[index].tag == name:
                del self.path[index:]
                return

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self.hidden:
            return
        parent = self.path[-1]
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + data
        else:
            parent.text = (parent.text or "") + data


def to_xhtml(html: str) -> Element:
    """The ``html`` element of XHTML-IM that says ``html``."""
    root = Element(f"{{{HTML_IM}}}html")
    reader = _Reader(SubElement(root, f"{{{XHTML}}}body"))
    reader.feed(html)
    reader.close()
    return root
