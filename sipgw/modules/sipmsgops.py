"""sipmsgops: what scripts ask of a message and change in it; the work is done in ``proxy/headers``, ``bodies`` and ``validate``.

Text that becomes part of a head is ``HeaderText``: no variable can bring a line end into it (hardening P5), and the whole must be
header lines. Header names are compared without case and with their compact forms, so no spelling gets past ``remove_hf``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from email.utils import formatdate
from typing import Annotated, Any

from sipgw.exports import BRANCH, ERROR, FAILURE, LOCAL, ONREPLY, REQUEST, HeaderText, Module, Regex, Writable, function
from sipgw.modules.sl import check_status, refuses_line
from sipgw.proxy import bodies, headers
from sipgw.proxy.validate import check_flags, validate
from sipgw.script.run import Run
from sipgw.sip.body import MediaType, Part
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.headers import canonical
from sipgw.sip.message import METHODS, Request, Response
from sipgw.sip.sdp import Codec, SessionDescription
from sipgw.sip.uri import Uri

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL
MAX_KNOWN = 500
"""How many different arguments are remembered in parsed form."""
PRIVACIES = frozenset({"none", "user", "header", "session", "id", "critical", "history"})

_e164 = re.compile(r"\+[0-9]{2,15}").fullmatch


def parse_methods(text: str) -> frozenset[str]:
    """The methods in ``A|B``; in a list all must be known ones (``ValueError``)."""
    methods = [method.strip().upper() for method in text.split("|")]
    for method in methods:
        if not method:
            raise ValueError("empty method name")
        if len(methods) > 1 and method not in METHODS:
            raise ValueError(f"unknown method {method!r} in a list")
    return frozenset(methods)


def check_mime(text: str) -> None:
    """Refuse what is no media type."""
    try:
        MediaType.parse(text)
    except MalformedMessage:
        raise ValueError(f"{text!r} is no media type: write type/subtype") from None


def check_revert(text: str) -> None:
    """Refuse all but ``revert``."""
    if text != "revert":
        raise ValueError(f"unknown flag {text!r}: write revert")


def check_privacy(text: str) -> None:
    """Refuse what is no value of Privacy (RFC 3323 4.2, RFC 3325 9.3, RFC 7044 10.1)."""
    if text.lower() not in PRIVACIES:
        raise ValueError(f"unknown privacy {text!r}: write one of {', '.join(sorted(PRIVACIES))}")


Mime = Annotated[str, check_mime]


class Sipmsgops(Module):
    """Operations on headers, bodies and session descriptions."""

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._methods: dict[str, frozenset[str]] = {}

    # -- questions

    @function(EVERYWHERE)
    def is_method(self, run: Run, name: Annotated[str, parse_methods]) -> bool:
        """Whether the method is ``name``, or one of ``A|B``; of a reply, that of its CSeq."""
        methods = self._methods.get(name)
        if methods is None:
            try:
                methods = parse_methods(name)
            except ValueError as error:
                run.user.log(-1, f"is_method: {error}")
                return False
            if len(self._methods) >= MAX_KNOWN:
                self._methods.clear()
            self._methods[name] = methods
        method = run.message.method
        return method in methods or method.upper() in methods

    @function(EVERYWHERE)
    def has_totag(self, run: Run) -> bool:
        """Whether To has a tag: the message belongs to a dialog."""
        return run.message.to_tag is not None

    @function(EVERYWHERE)
    def is_present_hf(self, run: Run, hf_name: str) -> bool:
        """Whether the received message has that header, in any spelling."""
        return canonical(hf_name) in run.message.names

    @function(EVERYWHERE)
    def is_privacy(self, run: Run, privacy_type: Annotated[str, check_privacy]) -> bool:
        """Whether the caller asks for that kind of privacy (RFC 3323 4.2)."""
        wanted = privacy_type.lower()
        values = re.split("[;,]", ";".join(run.message.headers("privacy")))
        return any(value.strip().lower() == wanted for value in values)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def sipmsg_validate(
        self, run: Run, flags: Annotated[str, check_flags] | None = None, result_pvar: Writable | None = None
    ) -> int:
        """1 if the message is good, else one of OpenSIPS's negative codes; ``result_pvar`` receives the reason."""
        code, text = validate(run, flags or "")
        if text and result_pvar is not None:
            result_pvar.set(run, text)
        return code

    @function(EVERYWHERE)
    def get_glob_headers_values(
        self, run: Run, hdr_name_glob: str, hdr_names_avp: Writable, hdr_vals_avp: Writable
    ) -> bool:
        """Give the AVPs the names and values of all headers that match, one by one in order."""
        found = False
        message = run.message
        for line in headers.matching(message, headers.glob(hdr_name_glob)):
            hdr_names_avp.set(run, headers.written_name(message, line))
            hdr_vals_avp.set(run, message.value(line))
            found = True
        return found

    @function(EVERYWHERE)
    def sip_to_json(self, run: Run, out_var: Writable) -> bool:
        """Give ``out_var`` the received message as JSON: ``first_line``, ``headers`` (each name with its values), ``body``."""
        message = run.message
        table: dict[str, list[str]] = {}
        for line in range(1, len(message.lines)):
            table.setdefault(headers.written_name(message, line), []).append(message.value(line))
        made: dict[str, object] = {"first_line": message.lines[0] + "\r\n", "headers": table}
        if message.body:
            made["body"] = message.body.decode("utf-8", "surrogateescape")
        out_var.set(run, json.dumps(made, separators=(",", ":")))
        return True

    # -- headers

    @function(EVERYWHERE)
    def append_hf(self, run: Run, txt: HeaderText, hdr_anchor: str | None = None) -> bool:
        """Put ``txt`` behind the last header, or behind the first ``hdr_anchor``."""
        if not headers.header_text(run, "append_hf", txt):
            return not txt
        if hdr_anchor is not None:
            lines = run.message.positions(hdr_anchor)
            if lines:
                run.edits = run.edits.insert_after(lines[0], txt)
                return True
        run.edits = run.edits.append(txt)
        return True

    @function(EVERYWHERE)
    def insert_hf(self, run: Run, txt: HeaderText, hdr_anchor: str | None = None) -> bool:
        """Put ``txt`` before the first header, or before the first ``hdr_anchor``."""
        if not headers.header_text(run, "insert_hf", txt):
            return not txt
        lines = run.message.positions(hdr_anchor) if hdr_anchor is not None else None
        run.edits = run.edits.insert_before(lines[0] if lines else 1, txt)
        return True

    @function(REQUEST | FAILURE | BRANCH)
    def append_urihf(self, run: Run, prefix: HeaderText, suffix: HeaderText) -> bool:
        """Add the header made of ``prefix``, the received Request-URI and ``suffix``."""
        message = run.message
        if not isinstance(message, Request):
            return False
        return self.append_hf(run, f"{prefix}{message.uri}{suffix}")

    @function(EVERYWHERE)
    def remove_hf(self, run: Run, hname: str) -> bool:
        """Take away every received header of that name, in any spelling."""
        return headers.delete_named(run, canonical(hname))

    @function(EVERYWHERE)
    def remove_hf_re(self, run: Run, hname_expr: Regex) -> bool:
        """Take away every received header whose name matches."""
        return headers.delete_matching(run, lambda name: bool(hname_expr.search(name)))

    @function(EVERYWHERE)
    def remove_hf_glob(self, run: Run, hname_pattern: str) -> bool:
        """Take away every received header whose name matches the shell pattern."""
        return headers.delete_matching(run, headers.glob(hname_pattern))

    @function(EVERYWHERE)
    def list_hdr_has_option(self, run: Run, hdr_name: str, option: str) -> bool:
        """Whether one of the received headers of that name lists ``option``."""
        return headers.has_option(run.message, hdr_name, option)

    @function(EVERYWHERE)
    def list_hdr_add_option(self, run: Run, hdr_name: str, option: HeaderText) -> bool:
        """Put ``option`` at the end of the first header of that name; false if there is none."""
        if refuses_line(run, "list_hdr_add_option", option):
            return False
        return headers.add_option(run, hdr_name, option)

    @function(EVERYWHERE)
    def list_hdr_remove_option(self, run: Run, hdr_name: str, option: str) -> bool:
        """Take ``option`` out of every header of that name; one left empty goes whole."""
        return headers.remove_option(run, hdr_name, option)

    # -- replies

    @function(REQUEST | FAILURE | BRANCH | ERROR)
    def append_to_reply(self, run: Run, txt: HeaderText) -> bool:
        """Put ``txt`` into every reply that is made here to this request."""
        if not headers.header_text(run, "append_to_reply", txt):
            return not txt
        line = txt if txt.endswith("\r\n") else f"{txt}\r\n"
        run.reply_edits = [*(run.reply_edits or ()), line]
        return True

    @function(REQUEST | FAILURE | BRANCH | ERROR)
    def append_body_to_reply(self, run: Run, txt: str) -> bool:
        """Give every reply that is made here to this request the body ``txt``; its Content-Type comes by ``append_to_reply``."""
        run.keep()["reply_body"] = txt.encode("utf-8", "surrogateescape")
        return True

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def append_time(self, run: Run) -> bool:
        """Put a Date into every reply that is made here to this request."""
        return self.append_to_reply(run, f"Date: {formatdate(run.user.wall_clock(), usegmt=True)}\r\n")

    @function(ONREPLY)
    def change_reply_status(self, run: Run, code: Annotated[int, check_status], reason: str) -> bool:
        """Give the reply another status and reason; from or to a status below 300 only within its class."""
        message = run.message
        if not isinstance(message, Response) or refuses_line(run, "change_reply_status", reason):
            return False
        if not 100 <= code <= 699:
            run.user.log(-1, f"change_reply_status: {code} is no status")
            return False
        if min(message.status, code) < 300 and message.status // 100 != code // 100:
            run.user.log(-1, f"change_reply_status: a {message.status} cannot become a {code}")
            return False
        message.status = code
        message.reason = reason
        run.edits = run.edits.first_line(f"SIP/2.0 {code} {reason}")
        return True

    # -- bodies

    @function(EVERYWHERE)
    def has_body(self, run: Run, mime: Mime | None = None) -> bool:
        """Whether there is a body that has the type ``mime``, or a part of it has; the older name of ``has_body_part``."""
        return self.has_body_part(run, mime)

    @function(EVERYWHERE)
    def has_body_part(self, run: Run, mime: Mime | None = None) -> bool:
        """Whether the body, or a part of it, has the type ``mime``."""
        body = bodies.read(run, "has_body_part")
        return body is not None and (body.has(mime) if mime is not None else bool(body.parts))

    @function(EVERYWHERE)
    def remove_body_part(
        self, run: Run, mime: Mime | None = None, revert: Annotated[str, check_revert] | None = None
    ) -> bool:
        """Take away the parts of type ``mime``, or with "revert" all others; without ``mime`` the whole body."""
        body = bodies.read(run, "remove_body_part")
        if body is None or not body.parts:
            return False
        before = len(body.parts)
        keep = revert is not None
        body.parts[:] = [
            part for part in body.parts if mime is not None and part.media_type.matches(mime) is keep
        ]
        if len(body.parts) == before:
            return False
        body.save()
        return True

    @function(EVERYWHERE)
    def add_body_part(self, run: Run, body: str, mime: Mime, headers_: HeaderText | None = None) -> bool:
        """Add a part; a message that has a body becomes multipart/mixed."""
        now = bodies.read(run, "add_body_part")
        head = f"Content-Type: {mime}\r\n{headers_ or ''}"
        if now is None or not headers.header_text(run, "add_body_part", head):
            return False
        now.add(Part(body.encode("utf-8", "surrogateescape"), head=head.removesuffix("\r\n")))
        now.save()
        return True

    @function(EVERYWHERE)
    def get_updated_body_part(self, run: Run, mime: Mime | None, variable: Writable) -> bool:
        """Give ``variable`` the body as it will leave, or its part of type ``mime``."""
        body = bodies.read(run, "get_updated_body_part")
        if body is None:
            return False
        data = body.write()
        if mime is not None:
            found = next((part.body for part in body.parts if part.media_type.matches(mime)), None)
            if found is None:
                return False
            data = found
        variable.set(run, data.decode("utf-8", "surrogateescape"))
        return True

    # -- session descriptions

    @function(EVERYWHERE)
    def is_audio_on_hold(self, run: Run) -> int:
        """1 if an audio stream has the address 0.0.0.0 (RFC 2543's hold), 2 if one is sendonly or inactive, else -1."""
        audio = [
            stream
            for description in bodies.descriptions(run, "is_audio_on_hold")
            for stream in description.streams
            if stream.media == "audio"
        ]
        if any(stream.address == "0.0.0.0" for stream in audio):
            return 1
        return 2 if any(stream.is_on_hold for stream in audio) else -1

    @function(EVERYWHERE)
    def stream_exists(self, run: Run, regexp: Regex, regexp2: Regex | None = None) -> bool:
        """Whether a stream's media, and its transport, match."""
        return any(
            _is_stream(stream, regexp, regexp2)
            for description in bodies.descriptions(run, "stream_exists")
            for stream in description.streams
        )

    @function(EVERYWHERE)
    def stream_delete(self, run: Run, regexp: Regex, regexp2: Regex | None = None) -> bool:
        """Take away the streams whose media, and transport, match."""

        def change(description: SessionDescription) -> bool:
            before = len(description.streams)
            description.streams[:] = [s for s in description.streams if not _is_stream(s, regexp, regexp2)]
            return len(description.streams) != before

        return bodies.change_descriptions(run, "stream_delete", change)

    @function(EVERYWHERE)
    def codec_exists(self, run: Run, name: str, clock: str | None = None) -> bool:
        """Whether a stream offers the codec, at that clock rate."""
        return _codec_exists(run, _named(name, clock))

    @function(EVERYWHERE)
    def codec_exists_re(self, run: Run, regexp: Regex) -> bool:
        """Whether a stream offers a codec whose name matches."""
        return _codec_exists(run, _like(regexp))

    @function(EVERYWHERE)
    def codec_delete(self, run: Run, name: str, clock: str | None = None) -> bool:
        """Take the codec out of every stream; a stream left without any is refused (port 0)."""
        return _codec_delete(run, _named(name, clock))

    @function(EVERYWHERE)
    def codec_delete_re(self, run: Run, regexp: Regex) -> bool:
        """Take the codecs whose names match out of every stream."""
        return _codec_delete(run, _like(regexp))

    @function(EVERYWHERE)
    def codec_delete_except_re(self, run: Run, regexp: Regex) -> bool:
        """Take all codecs out of every stream but those whose names match."""
        like = _like(regexp)
        return _codec_delete(run, lambda codec: not like(codec))

    @function(EVERYWHERE)
    def codec_move_up(self, run: Run, name: str, clock: str | None = None) -> bool:
        """Put the codec before all others, in every stream that has it."""
        return _codec_move(run, _named(name, clock), True)

    @function(EVERYWHERE)
    def codec_move_up_re(self, run: Run, regexp: Regex) -> bool:
        """Put the codecs whose names match before all others."""
        return _codec_move(run, _like(regexp), True)

    @function(EVERYWHERE)
    def codec_move_down(self, run: Run, name: str, clock: str | None = None) -> bool:
        """Put the codec behind all others, in every stream that has it."""
        return _codec_move(run, _named(name, clock), False)

    @function(EVERYWHERE)
    def codec_move_down_re(self, run: Run, regexp: Regex) -> bool:
        """Put the codecs whose names match behind all others."""
        return _codec_move(run, _like(regexp), False)

    # -- the Request-URI

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def ruri_has_param(self, run: Run, param: str, value: str | None = None) -> bool:
        """Whether the Request-URI has the parameter with that value; without ``value``, with none."""
        uri = _request_uri(run)
        found = None if uri is None else uri.param(param)
        return found is not None and found.lower() == (value or "").lower()

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def ruri_add_param(self, run: Run, param: str) -> bool:
        """Add the parameter ``name=value`` to the Request-URI."""
        added = param.removeprefix(";")
        if not added:
            return True
        return _change_uri(run, "ruri_add_param", lambda uri: uri.with_params(f"{uri.params};{added}" if uri.params else added))

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def ruri_del_param(self, run: Run, param: str) -> bool:
        """Take the parameter out of the Request-URI; false if it is not there."""
        uri = _request_uri(run)
        if uri is None or uri.param(param) is None:
            return False
        return _change_uri(run, "ruri_del_param", lambda uri: uri.without_param(param))

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def ruri_tel2sip(self, run: Run) -> bool:
        """Turn a tel Request-URI into a SIP one at the caller's domain (RFC 3261 19.1.6)."""
        uri = _request_uri(run)
        if uri is None:
            return False
        if uri.scheme != "tel":
            return True
        number = uri.text.partition(":")[2]
        return _change_uri(
            run, "ruri_tel2sip", lambda _uri: Uri.parse(f"sip:{number}@{run.message.from_.uri.host};user=phone")
        )

    @function(REQUEST | FAILURE | LOCAL)
    def is_uri_user_e164(self, run: Run, uri: str) -> bool:
        """Whether the user of ``uri`` is a "+" and 2 to 15 digits."""
        try:
            user = Uri.parse(uri).user
        except MalformedMessage as error:
            run.user.log_rarely("is_uri_user_e164", -1, f"is_uri_user_e164: {uri!r}: {error.reason}")
            return False
        return user is not None and _e164(user) is not None


def _request_uri(run: Run) -> Uri | None:
    try:
        return run.request_uri
    except MalformedMessage as error:
        run.user.log_rarely("ruri", -1, f"the Request-URI {run.uri!r} cannot be read: {error.reason}")
        return None


def _change_uri(run: Run, what: str, change: Callable[[Uri], Uri]) -> bool:
    try:
        run.uri = change(run.request_uri).text
    except SipError as error:
        run.user.log_rarely(what, -1, f"{what}: {run.uri!r} stays: {error.reason}")
        return False
    return True


def _is_stream(stream: Any, media: Any, transport: Any) -> bool:
    return bool(media.search(stream.media)) and (transport is None or bool(transport.search(stream.protocol)))


def _named(name: str, clock: str | None) -> Callable[[Codec], bool]:
    """A test for codecs; a clock rate that is no number matches none."""
    if not clock:
        return lambda codec: codec.is_named(name)
    rate = int(clock) if clock.isascii() and clock.isdigit() and len(clock) < 10 else -1
    return lambda codec: codec.is_named(name, rate)


def _like(pattern: Any) -> Callable[[Codec], bool]:
    return lambda codec: bool(codec.name) and bool(pattern.search(codec.name))


def _codec_exists(run: Run, wanted: Callable[[Codec], bool]) -> bool:
    return any(
        wanted(codec)
        for description in bodies.descriptions(run, "codec_exists")
        for stream in description.streams
        for codec in stream.codecs
    )


def _codec_delete(run: Run, wanted: Callable[[Codec], bool]) -> bool:
    """Take codecs away. COMPAT: OpenSIPS leaves an m= line without formats where none is left, which RFC 8866 9 forbids:
    here the last ones stay in a stream of port 0 (RFC 3264 6)."""

    def change(description: SessionDescription) -> bool:
        changed = False
        for stream in description.streams:
            gone = [codec.payload for codec in stream.codecs if wanted(codec)]
            if not gone:
                continue
            changed = True
            formats = stream.formats
            stream.remove_codecs(gone)
            if not stream.formats:
                stream.set_formats(formats)
                stream.set_port(0)
        return changed

    return bodies.change_descriptions(run, "codec_delete", change)


def _codec_move(run: Run, wanted: Callable[[Codec], bool], first: bool) -> bool:
    def change(description: SessionDescription) -> bool:
        changed = False
        for stream in description.streams:
            moved = [codec.payload for codec in stream.codecs if wanted(codec)]
            if moved:
                stream.move_codecs(moved, first=first)
                changed = True
        return changed

    return bodies.change_descriptions(run, "codec_move", change)
