"""The text that Prometheus reads (its exposition format 0.0.4): families of samples, each named and labelled once.

Whatever names and values come from, the page can be read: letters that no name may have become ``_``, what stands in labels is
escaped, and of two samples that would look the same the first is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")

_BAD = re.compile("[^a-zA-Z0-9_:]")
_name = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch
_label_name = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch
_pair = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\[\\"n])*)"\s*(,|$)').match
_UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = tuple[tuple[str, str], ...]
Number = int | float


def name_of(text: str) -> str:
    """``text`` as the name of a metric."""
    name = _BAD.sub("_", text)
    return f"_{name}" if not name or name[0].isdigit() else name


def is_name(text: str) -> bool:
    """Whether a metric may be called so."""
    return _name(text) is not None


def is_label(text: str) -> bool:
    """Whether a label may be called so."""
    return _label_name(text) is not None and not text.startswith("__")


def parse_labels(text: str) -> Labels:
    """Read ``name="value",...``; ``ValueError`` if it is no such thing."""
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        match = _pair(text, place)
        if match is None or (not match[3] and match.end() < len(text)) or match[1] in dict(found) or not is_label(match[1]):
            raise ValueError(f'{text!r} is no list of labels: write name="value", with commas between')
        found.append((match[1], re.sub(r"\\.", lambda escaped: _UNESCAPED[escaped[0]], match[2])))
        place = match.end()
    return tuple(found)


class Family:
    """All samples of one name."""

    __slots__ = ("help", "kind", "name", "samples")

    def __init__(self, name: str, kind: str, help: str) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.samples: dict[Labels, Number] = {}


class Page:
    """What is told at one request."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def family(self, name: str, kind: str = "gauge", help: str = "") -> Family:
        """The family of that name, begun now if it is new; the first who begins it says what it is."""
        found = self._families.get(name)
        if found is None:
            found = self._families[name] = Family(name, kind, help)
        return found

    def add(self, family: Family, value: Number, labels: Labels = ()) -> bool:
        """Add one sample; False if there is one with these labels already, in whatever order."""
        key = tuple(sorted(labels))
        if key in family.samples:
            return False
        family.samples[key] = value
        return True

    def lines(self) -> Iterator[str]:
        """The page; families without a sample are left out."""
        for family in self._families.values():
            if not family.samples:
                continue
            if family.help:
                escaped = family.help.replace("\\", "\\\\").replace("\n", "\\n")
                yield f"# HELP {family.name} {escaped}"
            yield f"# TYPE {family.name} {family.kind}"
            for labels, value in family.samples.items():
                inside = ",".join(f'{name}="{_escape(text)}"' for name, text in labels)
                yield f"{family.name}{{{inside}}} {_number(value)}" if inside else f"{family.name} {_number(value)}"

    def write(self) -> bytes:
        """The page in octets."""
        return "".join(f"{line}\n" for line in self.lines()).encode("utf-8", "backslashreplace")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: Number) -> str:
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return repr(value)
