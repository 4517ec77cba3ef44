"""What the modules ``mi_*`` share: management commands and their answers shown to a capture server (``trace_destination``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from os import urandom
from typing import Any, ClassVar

from sipgw.exports import Module, param, requires
from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import MIError
from sipgw.transport.hep import MI, Frame

LONGEST = 128
"""Characters of the parameters and of an answer that are shown (OpenSIPS's MAX_TRACE_FIELD)."""
Ends = tuple[tuple[str, int], tuple[str, int]]
"""Who asks, and where: addresses and ports."""
NOWHERE: Ends = (("127.0.0.1", 0), ("127.0.0.2", 0))
"""Where a door has no addresses. COMPAT: what OpenSIPS writes then."""


def check_list(text: str) -> None:
    """Refuse what is no list of commands to be shown, or not to be."""
    kind, colon, names = text.partition(":")
    if kind.strip().lower() not in ("b", "w") or not colon or not names.strip():
        raise ValueError("write b: or w: and names of commands, separated by commas")


class MiTrace(Module):
    """A door for management commands that can show what passes through it."""

    name = "mi"
    backend: ClassVar[str] = ""
    """What OpenSIPS calls this door in what it shows."""

    proto_hep: Any = requires("proto_hep", optional=True)
    trace_destination: str = param("", "The hep_id of a capture server that is shown commands and answers")
    trace_bwlist: str = param("", "b:command,... are not shown, or w:command,... alone are", check=check_list)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._shown_to: Any = None
        self._listed: frozenset[str] = frozenset()
        self._white = False

    async def start(self) -> None:
        """Find the capture server and the commands that are named."""
        if self.trace_destination:
            self._shown_to = None if self.proto_hep is None else self.proto_hep.destination(self.trace_destination)
            if self._shown_to is None:
                raise ValueError(f"trace_destination: proto_hep has no hep_id {self.trace_destination}")
        if self.trace_bwlist:
            kind, _, names = self.trace_bwlist.partition(":")
            self._white = kind.strip().lower() == "w"
            self._listed = frozenset(self._full(name.strip()) for name in names.split(",") if name.strip())

    def _full(self, name: str) -> str:
        try:
            return self.server.commands.find(name).full
        except MIError:
            raise ValueError(f"trace_bwlist: there is no command {name}") from None

    def show_command(self, method: str, params: Any, ends: Ends = NOWHERE) -> str:
        """Show a command; by what this gives its answer is known to belong to it, "" if it is not to be shown."""
        if self._shown_to is None:
            return ""
        try:
            full = self.server.commands.find(method).full
        except MIError:
            full = method
        if (full in self._listed) is not self._white:
            return ""
        correlation = f"MICORR{urandom(8).hex()}"
        values = params.values() if isinstance(params, dict) else params or ()
        text = ",".join(str(value) for value in values if isinstance(value, str | int))[:LONGEST]
        parts = {"command": method, "backend": self.backend} | ({"parameters": text} if text else {})
        self._show(parts, correlation, ends)
        return correlation

    def show_answer(self, correlation: str, answer: Any, ends: Ends = NOWHERE) -> None:
        """Show the answer to a command that was shown: its text, or what it says."""
        if correlation:
            text = answer if isinstance(answer, str) else json.dumps(answer, default=str)
            self._show({"reply": text[:LONGEST]}, correlation, (ends[1], ends[0]))

    def _show(self, parts: dict[str, str], correlation: str, ends: Ends) -> None:
        self._shown_to.send(Frame(MI, 6, *ends, self.server.user.wall_clock(), parts, correlation))

    async def answer_shown(self, data: bytes, pretty: bool, ends: Ends = NOWHERE) -> Iterator[bytes] | None:
        """Answer one JSON-RPC request as ``Commands.answer`` does, and show both."""
        if self._shown_to is None:
            return await self.server.commands.answer(data, pretty)
        try:
            call = jsonrpc.decode(data)
        except jsonrpc.Refused:
            return await self.server.commands.answer(data, pretty)
        correlation = self.show_command(call.method, call.params, ends)
        pieces = await self.server.commands.answer(data, pretty)
        if pieces is None or not correlation:
            return pieces
        first = next(pieces, b"")
        self.show_answer(correlation, first.decode("utf-8", "replace"), ends)
        return chain((first,), pieces)
