"""HTML of phones as XHTML-IM (XEP-0071), and back: only what marks up text, nothing that acts. Pure."""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from typing import Final

from sipgw.xmpp.stanza import Element, SubElement, child, local_name

__all__ = ["HTML_IM", "to_html", "to_xhtml"]

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
            href = _link(dict(attrs).get("href") or "")
            if href:
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


def _link(href: str) -> str:
    """A link that may be followed; empty for one that may not."""
    href = href.strip()
    return href if href.lower().startswith(("http://", "https://", "mailto:", "sip:", "sips:", "tel:", "xmpp:")) else ""


def to_html(message: Element) -> str:
    """The HTML that a message stanza says beside its text; empty if it says none."""
    found = child(message, "html", HTML_IM)
    body = None if found is None else child(found, "body", XHTML)
    if body is None:
        return ""
    out: list[str] = []
    _show(body, out, DEEPEST)
    text = "".join(out)
    return f"<html><body>{text}</body></html>" if "<" in text else ""


def _show(parent: Element, out: list[str], depth: int) -> None:
    """What stands in an element, with the tags that are kept."""
    out.append(escape(parent.text or "", quote=False))
    for each in parent:
        name = local_name(each)
        name = _SAME.get(name, name)
        kept = each.tag.startswith(f"{{{XHTML}}}") and name in _KEPT and depth > 0 and len(out) < 6 * MOST
        if kept:
            href = _link(each.get("href", "")) if name == "a" else ""
            out.append(f'<{name} href="{escape(href)}">' if href else f"<{name}>")
        if local_name(each) not in _HIDDEN and depth > 0:
            _show(each, out, depth - 1)
        if kept and name != "br":
            out.append(f"</{name}>")
        out.append(escape(each.tail or "", quote=False))
