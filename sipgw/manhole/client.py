"""A small AMP client for programs that may wait: ``sipgw mi``, ``sipgw top``, scripts. It needs no reactor.

::

    with Client.unix("/run/sipgw/mi.sock") as client:
        print(client.call("uptime"))
        client.tail(level=1)
        for told in client.told():
            print(told)

Any AMP library can do the same (``boxes.py``). Here a value is one box and the next; what the server tells in between is kept
until ``told`` asks for it."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from sipgw.mi.jsonrpc import SERVER_ERROR, MIError

PIECE = 60_000
"""Octets of a piece at most."""
MAX_BOX = 1 << 20
"""Octets of one box at most: the server's are far smaller."""


class Lost(Exception):
    """The server is not there, or is no longer."""


def write_box(fields: Mapping[str, bytes]) -> bytes:
    """A box on the wire: each key and value behind its length, an empty key at the end."""
    parts = []
    for key, value in fields.items():
        name = key.encode()
        parts += [struct.pack("!H", len(name)), name, struct.pack("!H", len(value)), value]
    return b"".join(parts) + b"\0\0"


def read_box(buffer: bytearray) -> dict[str, bytes] | None:
    """Take one box off the beginning of ``buffer``; None if it is not whole yet."""
    fields: dict[str, bytes] = {}
    at = 0
    while len(buffer) >= at + 2:
        length = int.from_bytes(buffer[at : at + 2], "big")
        if not length:
            del buffer[: at + 2]
            return fields
        if length > 255 or at > MAX_BOX:
            raise Lost("what answers does not speak AMP")
        key_end = at + 2 + length
        if len(buffer) < key_end + 2:
            return None
        end = key_end + 2 + int.from_bytes(buffer[key_end : key_end + 2], "big")
        if len(buffer) < end:
            return None
        fields[buffer[at + 2 : key_end].decode("utf-8", "replace")] = bytes(buffer[key_end + 2 : end])
        at = end
    return None


def write_list(texts: list[str]) -> bytes:
    """A list of texts as the value of a field."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("!H", len(each)) + each for each in encoded)


class Client:
    """One connection; ``patience``: seconds for an answer, None for ever."""

    def __init__(self, connection: socket.socket, patience: float | None = None) -> None:
        self._socket = connection
        self._patience = patience
        self._buffer = bytearray()
        self._last = 0
        self._told: deque[tuple[int, Any, int]] = deque()
        self._partial: dict[int, bytes] = {}

    @classmethod
    def unix(cls, path: str, patience: float | None = None) -> Client:
        """Connect to a unix socket; ``Lost`` says why that cannot be."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(path)
        except OSError as error:
            made.close()
            raise Lost(f"{path}: {error.strerror or error}") from None
        return cls(made, patience)

    @classmethod
    def tls(
        cls, host: str, port: int, certificate: str, key: str, ca_list: str, name: str = "", patience: float | None = None
    ) -> Client:
        """Connect over TLS, showing our certificate; ``name``: whom the server's must name, ``host`` unless said."""
        try:
            context = ssl.create_default_context(cafile=ca_list)
            context.load_cert_chain(certificate, key or None)
            plain = socket.create_connection((host, port), 10)
            made = context.wrap_socket(plain, server_hostname=name or host)
        except OSError as error:
            raise Lost(f"{host}:{port}: {error.strerror or error}") from None
        made.settimeout(None)
        return cls(made, patience)

    def close(self) -> None:
        """Part with the server."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # -- commands

    def call(self, command: str, params: list[Any] | dict[str, Any] | None = None) -> Any:
        """The result of a management command; ``MIError`` if it has none."""
        return json.loads(self.call_text(command, params))

    def call_text(self, command: str, params: list[Any] | dict[str, Any] | None = None) -> str:
        """The same as the JSON that came."""
        data = json.dumps(params or [], ensure_ascii=False).encode("utf-8", "surrogateescape")
        fields = {"command": command.encode("utf-8", "surrogateescape")}
        if len(data) > PIECE:
            self._last += 1
            fields["parts"] = parts = b"%d" % self._last
            while len(data) > PIECE:
                self.ask("Part", {"parts": parts, "data": data[:PIECE]})
                data = data[PIECE:]
        answer = self.ask("Call", {**fields, "params": data})
        gathered = [answer["data"]]
        while answer["rest"] != b"0":
            answer = self.ask("More", {"rest": answer["rest"]})
            gathered.append(answer["data"])
        return b"".join(gathered).decode()

    def describe(self, command: str) -> dict[str, Any]:
        """What a command is and takes."""
        answer = self.ask("Describe", {"command": command.encode("utf-8", "surrogateescape")})
        described: dict[str, Any] = json.loads(answer["data"])
        return described

    def subscribe(self, events: list[str] | None = None, statistics: list[str] | None = None, every: float = 1.0) -> int:
        """Hear of events and statistics; the number of the subscription."""
        fields = {"every": str(every).encode()}
        if events:
            fields["events"] = write_list(events)
        if statistics:
            fields["statistics"] = write_list(statistics)
        return int(self.ask("Subscribe", fields)["subscription"])

    def tail(self, level: int = 4, match: str = "") -> int:
        """Hear the lines of the log; the number of the subscription."""
        fields = {"level": b"%d" % level, **({"match": match.encode()} if match else {})}
        return int(self.ask("Tail", fields)["subscription"])

    def routes(self, count: int = 20) -> list[dict[str, Any]]:
        """The routes of the script that took the most time since this was first asked."""
        found: list[dict[str, Any]] = json.loads(self.ask("Routes", {"count": b"%d" % count})["data"])
        return found

    def unsubscribe(self, subscription: int) -> None:
        """Hear of it no more."""
        self.ask("Unsubscribe", {"subscription": b"%d" % subscription})

    def told(self, seconds: float | None = None) -> Iterator[tuple[int, Any, int]]:
        """What the server tells, as it comes: subscription, value, and how many values are lost before it.

        It ends after so many seconds, or never."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            while self._told:
                yield self._told.popleft()
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            box = self._read(left)
            if box is not None:
                self._take(box)

    # -- boxes

    def ask(self, command: str, fields: Mapping[str, bytes]) -> dict[str, bytes]:
        """Send a box and give its answer; an error in it becomes ``MIError``."""
        self._last += 1
        tag = b"%d" % self._last
        self._write(write_box({"_ask": tag, "_command": command.encode(), **fields}))
        while True:
            box = self._read(self._patience)
            if box is None:
                raise Lost("the server does not answer")
            if box.get("_answer") == tag:
                return box
            if box.get("_error") == tag:
                raise read_error(box)
            self._take(box)

    def _take(self, box: dict[str, bytes]) -> None:
        """Keep what the server tells, and tell it so."""
        if box.get("_command") != b"Told":
            return
        number = int(box["subscription"])
        data = self._partial.pop(number, b"") + box["data"]
        if box["last"] == b"True":
            self._told.append((number, json.loads(data), int(box["lost"])))
        else:
            self._partial[number] = data
        self._write(write_box({"_answer": box["_ask"]}))

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Lost(f"the server is gone: {error.strerror or error}") from None

    def _read(self, seconds: float | None) -> dict[str, bytes] | None:
        """The next box; None if none comes in so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        while (box := read_box(self._buffer)) is None:
            left = None if until is None else max(0.0, until - time.monotonic())
            waiting = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
            if not waiting and not select.select([self._socket], [], [], left)[0]:
                return None
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise Lost(f"the server is gone: {error.strerror or error}") from None
            if not data:
                raise Lost("the server has closed the connection")
            self._buffer += data
        return box


def read_error(box: Mapping[str, bytes]) -> MIError:
    """The error that a box tells of."""
    text = box.get("_error_description", b"").decode("utf-8", "replace")
    try:
        described = json.loads(text)
        return MIError(described["code"], described["message"], described.get("data"))
    except (ValueError, KeyError, TypeError):
        return MIError(SERVER_ERROR, text or box.get("_error_code", b"").decode("utf-8", "replace"))
