"""uuid: universally unique identifiers (RFC 9562)."""

from __future__ import annotations

import uuid
from os import urandom

from sipgw.exports import Module, Writable, function, pvar
from sipgw.script.run import Run

NAMED = (3, 5)
"""The versions that are made from a namespace and a name, by MD5 and SHA-1."""


class Uuid(Module):
    """Makes identifiers that nobody else has."""

    @pvar("uuid")
    def plain(self, run: Run) -> str | None:
        """``$uuid``: a new random identifier."""
        return self.versioned(run, "4")

    @pvar("uuid", named=True)
    def versioned(self, run: Run, version: str) -> str | None:
        """``$uuid(7)``: a new identifier of that version: 1, 4, 7, or 0 for the best; null for others."""
        if version not in ("0", "1", "4", "7"):
            run.user.log_rarely("uuid", -1, f"$uuid({version[:20]}): write version 0, 1, 4 or 7")
            return None
        return str(_make(run, int(version), "", ""))

    @function(name="uuid")
    def make(
        self, run: Run, out_var: Writable, version: int | None = None, namespace: str | None = None, name: str | None = None
    ) -> int:
        """Give ``out_var`` a new identifier: 1, or 2 if another process may make the same one; -1 if it cannot be made.

        Versions 3 and 5 are made from ``namespace``, an identifier itself, and ``name``."""
        made = _make(run, version or 0, namespace, name)
        if made is None:
            return -1
        out_var.set(run, str(made))
        return 2 if made.is_safe is uuid.SafeUUID.unsafe else 1


def _make(run: Run, version: int, namespace: str | None, name: str | None) -> uuid.UUID | None:
    if version in (0, 4):
        return uuid.uuid4()
    if version == 1:
        return uuid.uuid1()
    if version == 7:
        return _version_7(run.user.wall_clock())
    if version in NAMED and namespace and name:
        try:
            space = uuid.UUID(namespace)
        except ValueError:
            run.user.log(-1, f"uuid: the namespace {namespace!r} is no UUID")
            return None
        return uuid.uuid3(space, name) if version == 3 else uuid.uuid5(space, name)
    run.user.log(-1, f"uuid: version {version} " + ("needs a namespace and a name" if version in NAMED else "is not known"))
    return None


def _version_7(now: float) -> uuid.UUID:
    """Milliseconds since 1970, then chance (RFC 9562 5.7)."""
    number = int(now * 1000) << 80 | int.from_bytes(urandom(10), "big")
    number = number & ~(0xF000 << 64) & ~(0xC000 << 48) | 7 << 76 | 2 << 62
    return uuid.UUID(int=number)
