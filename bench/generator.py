"""The load of the loopback bench: a closed loop of SIP operations of a caller and a callee, with a socket each.

``python -m bench.generator SCENARIO SERVER OPERATIONS CALLER CALLEE [TRANSPORT [USERS]]`` (ports, three of them) keeps some
operations going at a time until that many have ended, and prints one JSON line: operations, seconds, messages, repeated,
refused. What is lost is sent again after a second; more than one refusal in a hundred ends the run. Over "tcp" the caller has
one connection, and the callee the one that the server opens to it; the users are others than over "udp"."""

from __future__ import annotations

import argparse
import json
import select
import time
from collections.abc import Callable
from hashlib import md5
from typing import Any

from bench.endpoints import Accepted, Connection, Datagrams

IN_FLIGHT = {"udp": 64, "tcp": 8}
"""Operations at a time. OpenSIPS 4.1-dev cuts messages wrongly where more of them come at once on one connection."""
PATIENCE = 8.0
"""Seconds of silence that end the run."""
USERS = 1000
STRIDE = 7919
"""From one operation to the next, so many users on: who is looked up was not looked up lately."""
LOST_AFTER = 1.0

HEAD = (
    "{method} {uri} SIP/2.0\r\n"
    "Via: SIP/2.0/{transport} 127.0.0.1:{port};branch=z9hG4bK{branch}\r\n"
    "Max-Forwards: 70\r\n"
    "{routes}"
    "From: \"Caller {user}\" <sip:caller{user}@{domain}>;tag=f{call}\r\n"
    "To: <sip:{callee}@{domain}>{to_tag}\r\n"
    "Call-ID: {call}@bench\r\n"
    "CSeq: {cseq} {method}\r\n"
    "Contact: <sip:caller{user}@127.0.0.1:{port}{params}>\r\n"
    "User-Agent: bench\r\n"
    "Allow: INVITE, ACK, CANCEL, BYE, MESSAGE, OPTIONS\r\n"
)
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
)
COPIED = (b"via:", b"from:", b"call-id:", b"cseq:", b"record-route:")


def value_of(data: bytes, name: bytes) -> bytes:
    """The value of the first header ``name`` (as b"Call-ID: "), b"" if there is none."""
    start = data.find(b"\r\n" + name)
    if start < 0:
        return b""
    start += 2 + len(name)
    return data[start : data.index(b"\r\n", start)]


class Load:
    """One run of one scenario."""

    def __init__(
        self, scenario: str, server: int, operations: int, caller: int, callee: int, transport: str = "udp", users: int = USERS
    ) -> None:
        self.scenario = scenario
        self.server = server
        self.operations = operations
        self.transport = transport
        self.letter = transport[0]
        self.params = "" if transport == "udp" else f";transport={transport}"
        self.users = users
        self.domain = f"127.0.0.1:{server}"
        self.caller_port, self.callee_port = caller, callee
        self.callee, self.caller = self.open(callee, True), self.open(caller, False)
        self.first: Callable[[int], bytes] = getattr(self, f"{scenario}_first")
        self.answered: Callable[[int, int, bytes], bytes | None] = getattr(self, f"{scenario}_answered")
        self.begun = self.ended = self.messages = self.repeated = self.refused = 0
        self.waiting: dict[int, tuple[float, bytes]] = {}
        self.stamp = int(time.time() * 1000) % 10**9

    def open(self, port: int, waits: bool) -> Any:
        """An end at ``port``; ``waits``: for the server's connection."""
        kind = Datagrams if self.transport == "udp" else Accepted if waits else Connection
        return kind(port, self.server)

    def request(
        self, method: str, call: int, *, uri: str = "", cseq: int = 1, to_tag: str = "", routes: str = "", body: str = "",
        content_type: str = "", extra: str = "", branch: str = "",
    ) -> bytes:
        """A request of the caller for operation ``call``."""
        user = call * STRIDE % self.users
        callee = f"{self.letter}{user}"
        head = HEAD.format(
            method=method, uri=uri or f"sip:{callee}@{self.domain}", port=self.caller_port, user=user, domain=self.domain,
            call=f"{self.stamp}x{call}x", cseq=cseq, branch=branch or f"{self.stamp}.{call}.{cseq}.{method}", to_tag=to_tag,
            routes=routes, callee=callee, transport=self.transport.upper(), params=self.params,
        )
        kind = f"Content-Type: {content_type}\r\n" if body else ""
        return f"{head}{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    # -- the scenarios: the first message, and what follows a final answer (None: the operation has ended)

    def options_first(self, call: int) -> bytes:
        """Ask the server itself."""
        return self.request("OPTIONS", call, uri=f"sip:{self.domain}")

    def options_answered(self, call: int, cseq: int, data: bytes) -> bytes | None:
        """One answer is all."""
        return None

    def register_first(self, call: int) -> bytes:
        """Register a user at the callee's socket; From and To are the same user."""
        text = self.request("REGISTER", call, uri=f"sip:{self.domain}", extra="Expires: 3600\r\n").decode()
        user = call * STRIDE % self.users
        callee = f"sip:{self.letter}{user}@"
        text = text.replace(f"sip:caller{user}@127.0.0.1:{self.caller_port}", f"{callee}127.0.0.1:{self.callee_port}")
        return text.replace(f"sip:caller{user}@", callee).encode()

    register_answered = options_answered

    def digest_first(self, call: int) -> bytes:
        """Register a user of whom a password is asked."""
        return self.register_first(call).replace(b" sip:", b" sip:digest@", 1)

    def digest_answered(self, call: int, cseq: int, data: bytes) -> bytes | None:
        """Answer the challenge; the 200 is all."""
        if cseq == 2:
            return None
        uri = f"sip:digest@{self.domain}"
        nonce = value_of(data, b"WWW-Authenticate: ").partition(b'nonce="')[2].partition(b'"')[0].decode()
        ha1 = md5(b"bench:bench:secret").hexdigest()
        ha2 = md5(f"REGISTER:{uri}".encode()).hexdigest()
        response = md5(f"{ha1}:{nonce}:00000001:c:auth:{ha2}".encode()).hexdigest()
        line = (
            f'Authorization: Digest username="bench", realm="bench", nonce="{nonce}", uri="{uri}", response="{response}", '
            'algorithm=MD5, cnonce="c", qop=auth, nc=00000001\r\n'
        )
        first = self.digest_first(call).decode().replace("CSeq: 1 ", "CSeq: 2 ").replace(".1.REGISTER", ".2.REGISTER")
        return first.replace("Expires: ", f"{line}Expires: ").encode()

    def message_first(self, call: int) -> bytes:
        """Write to a registered user."""
        return self.request("MESSAGE", call, body="hello", content_type="text/plain")

    message_answered = options_answered

    def call_first(self, call: int) -> bytes:
        """Call a registered user."""
        return self.request("INVITE", call, body=SDP, content_type="application/sdp")

    def call_answered(self, call: int, cseq: int, data: bytes) -> bytes | None:
        """After the answer: ACK and, in the same breath, BYE; after the BYE the call has ended."""
        if cseq == 2:
            return None
        to_tag = b";tag=" + value_of(data, b"To: ").partition(b";tag=")[2]
        routes = "".join(f"Route: {route.decode()}\r\n" for route in reversed(self.all_values(data, b"Record-Route: ")))
        uri = value_of(data, b"Contact: ").strip(b"<>").decode()
        tag = to_tag.decode()
        self.send(self.caller, self.request("ACK", call, uri=uri, to_tag=tag, routes=routes))
        return self.request("BYE", call, cseq=2, uri=uri, to_tag=tag, routes=routes)

    def dialog_first(self, call: int) -> bytes:
        """A call that the server is to follow."""
        return self.request("INVITE", call, body=SDP, content_type="application/sdp", extra="X-Dialog: yes\r\n")

    dialog_answered = call_answered

    def b2b_first(self, call: int) -> bytes:
        """A call that the server answers and makes again."""
        return self.request("INVITE", call, body=SDP, content_type="application/sdp", extra="X-B2B: yes\r\n")

    b2b_answered = call_answered

    @staticmethod
    def all_values(data: bytes, name: bytes) -> list[bytes]:
        """The values of all headers ``name``."""
        return [line[len(name) :] for line in data.split(b"\r\n") if line.startswith(name)]

    # -- the callee

    def serve(self, data: bytes) -> None:
        """Answer as a callee: 180 and 200 to an INVITE, nothing to an ACK, 200 to the rest."""
        method = data[: data.index(b" ")]
        if method == b"ACK":
            return
        lines = [line for line in data.split(b"\r\n\r\n")[0].split(b"\r\n")[1:] if line.lower().startswith(COPIED)]
        to = value_of(data, b"To: ")
        if b";tag=" not in to:
            to += b";tag=callee"
        head = b"\r\n".join(lines) + b"\r\nTo: " + to + b"\r\n"
        if method == b"INVITE":
            head += b"Contact: <sip:callee@127.0.0.1:%d%s>\r\n" % (self.callee_port, self.params.encode())
            self.send(self.callee, b"SIP/2.0 180 Ringing\r\n" + head + b"Content-Length: 0\r\n\r\n")
            body = SDP.encode()
            rest = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            self.send(self.callee, b"SIP/2.0 200 OK\r\n" + head + rest)
        else:
            self.send(self.callee, b"SIP/2.0 200 OK\r\n" + head + b"Content-Length: 0\r\n\r\n")

    # -- the loop

    def send(self, via: Any, data: bytes) -> None:
        """Put one message on its way to the server."""
        self.messages += 1
        via.send(data)

    def begin(self) -> None:
        """Start one more operation."""
        call = self.begun
        self.begun += 1
        data = self.first(call)
        self.waiting[call] = (time.monotonic(), data)
        self.send(self.caller, data)

    def hear(self, data: bytes) -> None:
        """Take what came to the caller."""
        if not data.startswith(b"SIP/2.0 "):
            return
        self.messages += 1
        status = int(data[8:11])
        if status < 200:
            return
        call = int(value_of(data, b"Call-ID: ").split(b"x")[1])
        if call not in self.waiting:
            return
        cseq, _, method = value_of(data, b"CSeq: ").partition(b" ")
        waits_for = self.waiting[call][1]
        if not waits_for.startswith(method + b" "):
            return
        asked = status == 401 and self.scenario == "digest" and cseq == b"1"
        if status >= 300 and not asked:
            self.refused += 1
            if self.refused > 5 + self.operations // 100:
                raise SystemExit(f"the server answered {data[8:60]!r} to {waits_for[:200]!r}")
        more = None if status >= 300 and not asked else self.answered(call, int(cseq), data)
        if more is None:
            del self.waiting[call]
            self.ended += 1
            if self.begun < self.operations:
                self.begin()
        else:
            self.waiting[call] = (time.monotonic(), more)
            self.send(self.caller, more)

    def run(self) -> dict[str, float]:
        """Run all operations; the figures."""
        start = time.monotonic()
        for _ in range(min(IN_FLIGHT[self.transport], self.operations)):
            self.begin()
        quiet_since = start
        while self.ended < self.operations:
            ready, _, _ = select.select((self.caller, self.callee), (), (), 0.2)
            now = time.monotonic()
            if ready:
                quiet_since = now
            for via in ready:
                for data in via.receive():
                    if via is self.caller:
                        self.hear(data)
                    else:
                        self.messages += 1
                        self.serve(data)
            if now - quiet_since > PATIENCE:
                raise SystemExit(f"nothing has come for {PATIENCE:.0f} s; {self.ended} of {self.operations} ended")
            for call, (sent, data) in list(self.waiting.items()) if not ready else ():
                if now - sent > LOST_AFTER:
                    self.repeated += 1
                    self.waiting[call] = (now, data)
                    self.send(self.caller, data)
        seconds = time.monotonic() - start
        counts = {"operations": self.ended, "messages": self.messages, "repeated": self.repeated, "refused": self.refused}
        return {**counts, "seconds": seconds}


def main() -> None:
    """Run one load, print its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("scenario", choices=("options", "register", "digest", "message", "call", "dialog", "b2b"))
    for name in ("server", "operations", "caller", "callee"):
        options.add_argument(name, type=int)
    options.add_argument("transport", nargs="?", default="udp", choices=("udp", "tcp"))
    options.add_argument("users", nargs="?", type=int, default=USERS)
    print(json.dumps(Load(**vars(options.parse_args())).run()))


if __name__ == "__main__":
    main()
