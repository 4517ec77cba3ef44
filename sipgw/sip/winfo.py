"""Watcher information (RFC 3858): who watches somebody, and how far that has come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.trees import local_name, parse_tree

__all__ = ["WINFO", "Watching", "Winfo"]

WINFO: Final = "application/watcherinfo+xml"
MOST: Final = 1000
"""Watchers that are read of a document."""


class Watching(NamedTuple):
    """One subscription. ``status``: pending, active, waiting or terminated."""

    id: str
    uri: str
    status: str


class Winfo(NamedTuple):
    """One document about ``resource``, a URI. ``full``: whoever is not in it does not watch; else it says what has changed."""

    resource: str
    full: bool
    watchers: Sequence[Watching] = ()

    @classmethod
    def parse(cls, data: bytes) -> Winfo:
        """Read it, for the package presence; ``MalformedMessage`` if it is none."""
        root = parse_tree(data)
        if local_name(root) != "watcherinfo" or root.get("state") not in ("full", "partial"):
            raise MalformedMessage("Bad watcherinfo document")
        resource, found = "", []
        for each in root:
            if local_name(each) != "watcher-list" or each.get("package", "presence") != "presence":
                continue
            resource = resource or each.get("resource", "")
            for watcher in each:
                if local_name(watcher) == "watcher":
                    uri = (watcher.text or "").strip()
                    found.append(Watching(watcher.get("id") or uri, uri, watcher.get("status", "").lower()))
        return cls(resource, root.get("state") == "full", found[:MOST])
