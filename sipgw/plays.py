"""Plays: whole conversations with a server, on a fake clock, written as one reads them (house 2.5)::

    config: household.cfg

    carol registers
    alice sends      INVITE sip:carol@192.0.2.1   Subject: lunch
    carol receives   INVITE   Max-Forwards: 69   Via: 2 values   no Route
    alice receives   100
    alice sends      CANCEL
    alice receives   200 to CANCEL
    carol hears nothing
    carol sends      180
    carol receives   CANCEL   Via: 1 value
    carol sends      200 to CANCEL, 487 to INVITE
    carol receives   ACK
    alice receives   487      then sends ACK
    32 s pass
    nothing is left

Columns are two or more blanks apart; ``#`` begins a comment. Everybody but the server is a phone at an address of its own, and
sends everything to the server. What a phone sends follows from what it has sent and received: a BYE belongs to its dialog, an
ACK to the last final response, a CANCEL to the INVITE. ``INVITE in dialog``, ``180 again`` (the same bytes once more),
``200 to CANCEL`` say which. A header in a column of ``sends`` is added (or put in place of the usual one); in a column of
``receives`` it is demanded, ``*`` standing for anything, ``2 values`` for how many. At the end nobody may have anything left
that no line took."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import reason_for
from sipgw.testing import Phone, WiredServer, pass_time

_COLUMNS = re.compile(r"\s{2,}")
_LINE = re.compile(r"(?P<who>[a-z]\w*)\s+(?P<verb>sends|receives|registers|hears nothing)\b\s*(?P<rest>.*)")
_PASS = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|h) pass(?:es)?")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_WHAT = re.compile(
    r"(?P<what>[A-Z]+|\d{3})(?P<dialog> in dialog)?(?: to (?P<to>[A-Z]+))?(?: (?P<uri>[a-z]+:\S+))?(?P<again> again)?"
)
_IN_DIALOG = {"BYE", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY"}


class PlayError(AssertionError):
    """A line of a play that did not go as written."""


@dataclass
class Line:
    """One line: its number, its text without comment."""

    number: int
    text: str


@dataclass
class Play:
    """A play as read: its configuration, and its lines."""

    file: str
    config: str
    lines: list[Line]

    @classmethod
    def read(cls, file: Path) -> Play:
        """Read a ``.play`` file."""
        config, lines = "", []
        for number, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            text = re.sub(r"(^|\s)#.*", "", raw).strip()
            if text.startswith("config:"):
                config = text.partition(":")[2].strip()
            elif text:
                lines.append(Line(number, text))
        return cls(str(file), config, lines)


def perform(play: Play, configs: Path) -> None:
    """Perform a play against the configuration that it names, in ``configs``; ``PlayError`` says which line failed."""
    stage = Stage(WiredServer(file=str(configs / play.config)))
    for line in play.lines:
        try:
            stage.perform(line.text)
        except AssertionError as error:
            raise PlayError(f"{play.file}:{line.number}: {line.text}\n{error}\n{stage.story()}") from None
    stage.end(play.file)


class Stage:
    """A server and the phones that a play has brought up so far."""

    def __init__(self, server: WiredServer) -> None:
        self.server = server
        self.actors: dict[str, Actor] = {}
        self.told: list[str] = []

    def actor(self, name: str) -> Actor:
        """A phone by its name, at an address of its own from its first line on."""
        if name not in self.actors:
            self.actors[name] = Actor(self, name, f"192.0.2.{101 + len(self.actors)}")
        return self.actors[name]

    def perform(self, text: str) -> None:
        """Perform one line."""
        self.told.append(f"> {text}")
        passed = _PASS.fullmatch(text)
        if passed:
            pass_time(self.server.clock, float(passed["number"]) * _UNITS[passed["unit"]])
            return
        if text == "nothing is left":
            left = self.server.left()
            if left:
                raise PlayError(f"there are {', '.join(left)}")
            return
        line = _LINE.fullmatch(text)
        if line is None:
            raise PlayError("this is no line of a play")
        actor = self.actor(line["who"])
        {
            "sends": actor.sends,
            "receives": actor.receives,
            "registers": actor.registers,
            "hears nothing": actor.hears_nothing,
        }[line["verb"]](line["rest"])

    def end(self, file: str) -> None:
        """Look whether all that was sent was told."""
        for actor in self.actors.values():
            if actor.phone.inbox:
                said = ", ".join(_word(message) for message in actor.phone.inbox)
                raise PlayError(f"{file}: at the end {actor.name} has also received {said}\n{self.story()}")

    def story(self) -> str:
        """The lines so far with what each phone sent and was sent, for whoever looks for a fault."""
        log = [f"log {level}: {text}" for level, text in self.server.lines if level <= 3]
        return "\n".join([*self.told[-20:], *log[-10:]])


def _word(message: Request | Response) -> str:
    if isinstance(message, Request):
        return message.method
    return f"{message.status} to {message.method}"


class Actor:
    """One phone: what it has sent and received, from which the next message follows."""

    def __init__(self, stage: Stage, name: str, host: str) -> None:
        self.stage = stage
        self.name = name
        self.phone = Phone(stage.server.wire, host)
        self.host = host
        self.server_host, self.server_port = stage.server.address
        self.calls = 0
        self.cseq = 0
        self.branches = 0
        self.last: dict[str, bytes] = {}
        """The bytes last sent, by word, for ``again``."""
        self.requests: dict[str, Request] = {}
        """The last request received, by method."""
        self.sent: dict[str, Request] = {}
        """The last request sent, by method."""
        self.final: Response | None = None
        """The last final response to an INVITE of ours."""
        self.dialog: Dialog | None = None

    # ---- lines ----

    def registers(self, rest: str) -> None:
        """``carol registers``: a REGISTER of its contact, answered 200."""
        self.sends(f"REGISTER sip:{self.server_host}  {rest}".rstrip())
        self.receives("200")

    def hears_nothing(self, _rest: str) -> None:
        """``carol hears nothing``: nothing has come that no line took."""
        message = self.phone.take()
        if message is not None:
            raise PlayError(f"{self.name} has received {_word(message)}")

    def sends(self, rest: str) -> None:
        """``alice sends INVITE sip:carol@x   Header: value``, or several, with commas between."""
        words, *columns = _COLUMNS.split(rest)
        headers = dict(_header(column) for column in columns)
        for one in words.split(", "):
            what = _WHAT.fullmatch(one)
            if what is None:
                raise PlayError(f"{one!r} cannot be sent")
            self._send(what, headers)

    def receives(self, rest: str) -> None:
        """``alice receives 487   Header: value   then sends ACK``."""
        rest, _, then = rest.partition("then sends ")
        words, *columns = _COLUMNS.split(rest.strip())
        for one in words.split(", "):
            what = _WHAT.fullmatch(one)
            if what is None:
                raise PlayError(f"{one!r} cannot be received")
            message = self.phone.take()
            if message is None:
                raise PlayError(f"{self.name} has received nothing")
            self.stage.told.append(f"  {self.name} received {_word(message)}")
            self._match(what, message)
            for column in columns:
                _demand(column, message)
            self._note(message)
        if then:
            self.sends(then)

    # ---- receiving ----

    def _match(self, what: re.Match[str], message: Request | Response) -> None:
        right = (
            what["what"] == message.method
            if isinstance(message, Request)
            else what["what"] == str(message.status) and what["to"] in (None, message.method)
        )
        if not right:
            raise PlayError(f"{self.name} has received {_word(message)}")
        if what["uri"] and isinstance(message, Request) and not fnmatch.fnmatchcase(message.uri, what["uri"]):
            raise PlayError(f"its Request-URI is {message.uri}")

    def _note(self, message: Request | Response) -> None:
        if isinstance(message, Request):
            self.requests[message.method] = message
            if message.method == "INVITE" and message.to_tag is None:
                self.dialog = Dialog.of_callee(message, self.tag)
        elif message.method == "INVITE" and message.status >= 200:
            self.final = message
            if message.status < 300:
                self.dialog = Dialog.of_caller(message)

    # ---- sending ----

    @property
    def tag(self) -> str:
        """Our tag in the calls that we answer."""
        return f"{self.name}-tag"

    def _send(self, what: re.Match[str], headers: dict[str, str]) -> None:
        word = what["what"]
        key = f"{word} to {what['to']}" if what["to"] else word
        if what["again"]:
            if key not in self.last:
                raise PlayError(f"{self.name} has not sent {key}")
            data = self.last[key]
        elif word.isdigit():
            data = self._response(int(word), what["to"], headers)
        else:
            data = self._request(word, what["uri"], bool(what["dialog"]), headers)
        self.last[key] = self.last[word] = data
        self.phone.send(data, (self.server_host, self.server_port))

    def _response(self, status: int, to: str | None, headers: dict[str, str]) -> bytes:
        answerable = [method for method in self.requests if method != "ACK"]
        method = to or (answerable[-1] if answerable else "")
        request = self.requests.get(method)
        if request is None:
            raise PlayError(f"{self.name} has received no {to or 'request'} to answer")
        lines = [f"SIP/2.0 {status} {reason_for(status)}"]
        lines += [f"Via: {value}" for value in request.headers("Via")]
        lines += [f"Record-Route: {value}" for value in request.headers("Record-Route")]
        tag = "" if status == 100 or request.to_tag is not None else f";tag={self.tag}"
        lines += [f"From: {request.header('From')}", f"To: {request.header('To')}{tag}"]
        lines += [f"Call-ID: {request.call_id}", f"CSeq: {request.header('CSeq')}"]
        if method in ("INVITE", "SUBSCRIBE", "UPDATE") and 100 < status < 300:
            headers = {"Contact": f"<sip:{self.name}@{self.host}:5060>", **headers}
        return _write(lines, headers)

    def _request(self, method: str, uri: str | None, in_dialog: bool, headers: dict[str, str]) -> bytes:
        if method == "CANCEL" or (method == "ACK" and (self.final is None or self.final.status >= 300)):
            target, lines = self._follow(method)
        elif in_dialog or method == "ACK" or (method in _IN_DIALOG and uri is None):
            target, lines = self._within(method)
        elif uri is None:
            raise PlayError(f"to whom does {self.name} send {method}?")
        else:
            target, lines = uri, self._fresh(method, uri)
        data = _write([f"{method} {target} SIP/2.0", *lines], headers)
        request = parse(data)
        assert isinstance(request, Request)
        self.sent[method] = request
        return data

    def _via(self) -> str:
        self.branches += 1
        return f"Via: SIP/2.0/UDP {self.host}:5060;branch=z9hG4bK-{self.name}-{self.branches}"

    def _fresh(self, method: str, uri: str) -> list[str]:
        """The lines of a request outside any dialog."""
        register = method == "REGISTER"
        if not register or self.calls == 0 or "REGISTER" not in self.sent:
            self.calls += 1
        call = f"{self.name}-registrations" if register else f"{self.name}-{self.calls}"
        self.cseq += 1
        own = f"sip:{self.name}@{self.server_host}"
        lines = [
            self._via(),
            "Max-Forwards: 70",
            f"From: <{own}>;tag={self.name}-{self.calls}",
            f"To: <{own if register else uri}>",
            f"Call-ID: {call}@{self.host}",
            f"CSeq: {self.cseq} {method}",
        ]
        if method in ("INVITE", "REGISTER", "SUBSCRIBE"):
            lines.append(f"Contact: <sip:{self.name}@{self.host}:5060>")
        return lines

    def _follow(self, method: str) -> tuple[str, list[str]]:
        """A CANCEL, or the ACK of a failure: in the transaction of the INVITE (RFC 3261 9.1, 17.1.1.3)."""
        invite = self.sent.get("INVITE")
        if invite is None:
            raise PlayError(f"{self.name} has sent no INVITE")
        to = self.final if method == "ACK" and self.final is not None else invite
        lines = [f"Via: {invite.header('Via')}", "Max-Forwards: 70"]
        lines += [f"Route: {value}" for value in invite.headers("Route")]
        lines += [f"From: {invite.header('From')}", f"To: {to.header('To')}"]
        lines += [f"Call-ID: {invite.call_id}", f"CSeq: {invite.cseq.number} {method}"]
        return invite.uri, lines

    def _within(self, method: str) -> tuple[str, list[str]]:
        """A request inside the dialog, the ACK of a 2xx among them (RFC 3261 12.2.1.1, 13.2.2.4)."""
        dialog = self.dialog
        if dialog is None:
            raise PlayError(f"{self.name} has no dialog")
        if method == "ACK":
            number = self.sent["INVITE"].cseq.number
        else:
            self.cseq += 1
            number = self.cseq
        lines = [self._via(), "Max-Forwards: 70", *(f"Route: {value}" for value in dialog.routes)]
        lines += [f"From: {dialog.local}", f"To: {dialog.remote}", f"Call-ID: {dialog.call_id}", f"CSeq: {number} {method}"]
        if method in ("INVITE", "UPDATE"):
            lines.append(f"Contact: <sip:{self.name}@{self.host}:5060>")
        return dialog.target, lines


@dataclass
class Dialog:
    """The state of RFC 3261 12, as one side sees it."""

    call_id: str
    local: str
    remote: str
    target: str
    routes: list[str]

    @classmethod
    def of_caller(cls, response: Response) -> Dialog:
        """What the 2xx to our INVITE makes."""
        routes = [str(route) for route in reversed(response.record_routes)]
        target = response.contacts[0].uri_text if response.contacts else ""
        return cls(response.call_id, response.header("From") or "", response.header("To") or "", target, routes)

    @classmethod
    def of_callee(cls, request: Request, tag: str) -> Dialog:
        """What our 2xx to ``request`` will make."""
        routes = [str(route) for route in request.record_routes]
        target = request.contacts[0].uri_text if request.contacts else ""
        return cls(request.call_id, f"{request.header('To')};tag={tag}", request.header("From") or "", target, routes)


def _header(column: str) -> tuple[str, str]:
    name, colon, value = column.partition(":")
    if not colon:
        raise PlayError(f"{column!r} is no header")
    return name.strip(), value.strip()


def _write(lines: list[str], headers: dict[str, str]) -> bytes:
    """The bytes of a message: ``headers`` take the place of those of the same name, or come after; ``Body`` is the body."""
    given = dict(headers)
    body = given.pop("Body", "").encode()
    kept = []
    for line in lines:
        name = line.partition(":")[0]
        kept.append(f"{name}: {given.pop(name)}" if name in given else line)
    kept += [f"{name}: {value}" for name, value in given.items()]
    return ("\r\n".join(kept) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def _demand(column: str, message: Request | Response) -> None:
    """Check what one column of ``receives`` demands."""
    if column.startswith("no "):
        name = column[3:].strip()
        if message.header(name) is not None:
            raise PlayError(f"there is a {name}: {message.header(name)}")
        return
    name, wanted = _header(column)
    if name == "Body":
        found = message.body.decode(errors="replace")
    else:
        values = message.values(name)
        count = re.fullmatch(r"(\d+) values?", wanted)
        if count:
            if len(values) != int(count[1]):
                raise PlayError(f"{name} has {len(values)} values: {values}")
            return
        if not values:
            raise PlayError(f"there is no {name}")
        found = ", ".join(values)
    if not fnmatch.fnmatchcase(found, wanted.replace("[", "[[]")):
        raise PlayError(f"{name} is {found!r}")
