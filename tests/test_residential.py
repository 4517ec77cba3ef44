"""examples/residential.cfg, in a real twistd with a real database: who may register, call whom, and what is recorded."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from datetime import datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import Store, open_store
from sipgw.db.subscribers import Subscribers
from sipgw.interfaces import Value
from sipgw.sip.auth import Challenge, answer, hash_a1
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from tests.children import HOST, Child, bound, free_port, twistd, wait_for
from tests.servers.sql import sqlite

EXAMPLE = Path(__file__).parent.parent / "examples" / "residential.cfg"
GATEWAY = "127.0.0.2"
STRANGER = "127.0.0.3"
DOMAIN = "example.org"
SECRETS = {"alice": "a1", "bob": "b1"}
PATIENCE = 10.0
TABLES = (
    *("subscriber", "uri", "location", "domain", "dbaliases", "address", "dialplan", "grp", "userblacklist", "dialog", "acc"),
    "missed_calls",
)


class Line:
    """A phone, or a gateway, on one UDP socket."""

    def __init__(self, server: int, user: str, host: str = HOST) -> None:
        self.user, self.host, self.server = user, host, server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(PATIENCE)
        self.port: int = self.socket.getsockname()[1]
        self.count = 0

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        self.socket.sendto(data, (HOST, self.server))

    def hear(self) -> Request | Response:
        """The next message."""
        return parse(self.socket.recv(65535))

    def text(
        self, method: str, uri: str, more: str, *, domain: str = DOMAIN, to: str = "", call: str = "", cseq: int = 1
    ) -> bytes:
        """A request."""
        self.count += 1
        mark = f"{self.user}{self.port}n{self.count}"
        to = to or (f"<sip:{self.user}@{domain}>" if method == "REGISTER" else f"<{uri}>")
        return (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.host}:{self.port};rport;branch=z9hG4bK{mark}\r\n"
            "Max-Forwards: 70\r\n"
            f"From: <sip:{self.user}@{domain}>;tag={self.user}\r\nTo: {to}\r\n"
            f"Call-ID: {call or mark}\r\nCSeq: {cseq} {method}\r\n"
            f"Contact: <sip:{self.user}@{self.host}:{self.port}>\r\n{more}Content-Length: 0\r\n\r\n"
        ).encode()

    def final(self) -> Response:
        """The next final response."""
        while True:
            message = self.hear()
            if isinstance(message, Response) and message.status >= 200:
                return message

    def acknowledge(self, response: Response, uri: str, call: str) -> None:
        """Send the ACK of what is no 2xx, by the branch of the INVITE."""
        branch = response.via.params["branch"]
        data = self.text("ACK", uri, "", to=response.header("To") or "", call=call).decode()
        self.send(re.sub(r"branch=[^\r]*", f"branch={branch}", data).encode())

    def ask(self, method: str, uri: str, *, password: str = "", domain: str = DOMAIN, call: str = "", more: str = "") -> int:
        """Send a request, answer its challenge if there is one and ``password`` is given, and give its final status."""
        self.send(self.text(method, uri, more, domain=domain, call=call))
        found = self.final()
        if method == "INVITE" and found.status >= 300:
            self.acknowledge(found, uri, call)
        if found.status in (401, 407) and password:
            more += credentials(found, self.user, password, method, uri)
            self.send(self.text(method, uri, more, domain=domain, call=call, cseq=2))
            found = self.final()
            if method == "INVITE" and found.status >= 300:
                self.acknowledge(found, uri, call)
        self.last = found
        return found.status

    def pick_up(self) -> Request:
        """Answer the next INVITE with 200; the INVITE."""
        invite = self.hear()
        assert isinstance(invite, Request) and invite.method == "INVITE", invite
        headers = f"Contact: <sip:{self.user}@{self.host}:{self.port}>\r\n"
        self.send(respond_to(invite, 200, "OK", to_tag=self.user, headers=headers, record_route=True))
        return invite


def credentials(challenged: Response, user: str, password: str, method: str, uri: str) -> str:
    """The header line that answers a 401 or 407."""
    name, field = ("WWW-Authenticate", "") if challenged.status == 401 else ("Proxy-Authenticate", "Proxy-")
    challenge = Challenge.parse(challenged.header(name) or "")
    ha1 = hash_a1(user, challenge.realm, password, challenge.algorithm)
    return f"{field}Authorization: {answer(challenge, user, ha1, method, uri, cnonce='c')}\r\n"


class ResidentialTests(SynchronousTestCase):
    """One server for all that is asked of it."""

    def setUp(self) -> None:
        """Have the server, with two subscribers and a gateway."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.url = sqlite(str(directory))
        self.port = free_port()
        self.gateway = self.line("gateway", GATEWAY)
        with closing(open_store(self.url, create=True)) as store:
            create(store, TABLES)
            self.fill(store)
        text = EXAMPLE.read_text(encoding="utf-8").replace("sqlite:///var/lib/sipgw/opensips.sqlite", self.url)
        script = directory / "residential.cfg"
        script.write_text(text.replace("udp:127.0.0.1:5060", f"udp:{HOST}:{self.port}"))
        self.child: Child = twistd(["sipgw", "-c", str(script)], directory)
        self.addCleanup(self.child.kill)
        wait_for(lambda: "listens on" in self.child.text() and bound(self.port), "the server serves", self.child)
        self.alice, self.bob = self.line("alice"), self.line("bob")

    def fill(self, store: Store) -> None:
        """The rows."""
        for user, secret in SECRETS.items():
            Subscribers(store).add(user, DOMAIN, secret)
        store.insert("domain", {"domain": DOMAIN})
        alias = {"alias_username": "bobby", "alias_domain": DOMAIN}
        store.insert("dbaliases", {**alias, "username": "bob", "domain": DOMAIN})
        store.insert("address", {"grp": 1, "ip": GATEWAY, "mask": 32, "port": 0, "proto": "any"})
        rule: dict[str, Value] = {"dpid": 1, "pr": 0, "match_op": 1, "match_exp": "^0[1-9]", "subst_exp": "^0(.*)$"}
        store.insert("dialplan", {**rule, "repl_exp": r"+49\1", "attrs": f"{GATEWAY}:{self.gateway.port}"})
        store.insert("grp", {"username": "alice", "domain": DOMAIN, "grp": "pstn", "last_modified": datetime(2026, 11, 22)})
        store.insert("userblacklist", {"username": "alice", "domain": DOMAIN, "prefix": "0900", "whitelist": 0})

    def line(self, user: str, host: str = HOST) -> Line:
        """One more phone."""
        made = Line(self.port, user, host)
        self.addCleanup(made.socket.close)
        return made

    def register(self) -> None:
        """Have both subscribers reachable."""
        for line in (self.alice, self.bob):
            self.assertEqual(line.ask("REGISTER", f"sip:{DOMAIN}", password=SECRETS[line.user]), 200)

    def call(self, uri: str, call: str) -> None:
        """Have alice call somebody, with her password."""
        self.assertEqual(self.alice.ask("INVITE", uri, call=call), 407)
        more = credentials(self.alice.last, "alice", SECRETS["alice"], "INVITE", uri)
        self.alice.send(self.alice.text("INVITE", uri, more, call=call, cseq=2))

    def test_subscribers(self) -> None:
        """Subscribers register by password and under their own name, and call each other by any name; the call is recorded."""
        self.assertEqual(self.alice.ask("REGISTER", f"sip:{DOMAIN}", password="wrong"), 401)
        self.assertEqual(self.alice.ask("REGISTER", "sip:example.com", domain="example.com"), 403)
        self.assertEqual(self.alice.ask("REGISTER", f"sip:{DOMAIN}", password="a1"), 200)
        self.register()
        with closing(open_store(self.url)) as store:
            self.assertEqual({row[0] for row in store.select("location", ["username"]).rows}, {"alice", "bob"})
        self.call(f"sip:bobby@{DOMAIN}", "talk")
        invite = self.bob.pick_up()
        self.assertEqual((invite.uri, invite.header("Proxy-Authorization")), (f"sip:bob@{HOST}:{self.bob.port}", None))
        answered = self.alice.final()
        self.assertEqual(answered.status, 200)
        route = "".join(f"Route: {each}\r\n" for each in answered.headers("Record-Route"))
        to = answered.header("To") or ""
        target = f"sip:bob@{HOST}:{self.bob.port}"
        self.alice.send(self.alice.text("ACK", target, route, to=to, call="talk", cseq=2))
        self.assertEqual(self.bob.hear().method, "ACK")
        self.alice.send(self.alice.text("BYE", target, route, to=to, call="talk", cseq=3))
        bye = self.bob.hear()
        assert isinstance(bye, Request)
        self.bob.send(respond_to(bye, 200, "OK"))
        self.assertEqual(self.alice.final().status, 200)
        with closing(open_store(self.url)) as store:
            wait_for(lambda: len(store.select("acc", ["callid"]).rows) == 1, "the call is recorded", self.child)
            self.assertEqual(store.select("acc", ["method", "callid", "sip_code"]).rows, [("INVITE", "talk", "200")])

    def test_numbers(self) -> None:
        """Who may calls out through the gateway, with the number as it wants it; the gateway calls in without a password."""
        self.register()
        self.call(f"sip:030123@{DOMAIN}", "out")
        self.assertEqual(self.gateway.pick_up().request_uri.user, "+4930123")
        self.assertEqual(self.alice.final().status, 200)
        for line, number in ((self.bob, "030123"), (self.alice, "0900123")):
            self.assertEqual(line.ask("INVITE", f"sip:{number}@{DOMAIN}", password=SECRETS[line.user], call=f"no{number}"), 403)
        self.gateway.send(self.gateway.text("INVITE", f"sip:bob@{DOMAIN}", "", domain=GATEWAY))
        self.assertEqual(self.bob.pick_up().request_uri.user, "bob")

    def test_strangers(self) -> None:
        """Nobody is served who is no subscriber, nor where a subscriber wants to go elsewhere; floods are not heard."""
        stranger = self.line("mallory", STRANGER)
        self.assertEqual(stranger.ask("INVITE", f"sip:bob@{DOMAIN}", domain="example.com", call="s1"), 403)
        self.assertEqual(stranger.ask("INVITE", f"sip:bob@{DOMAIN}", password="guess", call="s2"), 407)
        self.assertEqual(self.alice.ask("INVITE", "sip:bob@example.com", password="a1", call="s3"), 403)
        self.assertEqual(self.alice.ask("SUBSCRIBE", f"sip:bob@{DOMAIN}"), 489)
        for _ in range(150):
            stranger.send(stranger.text("OPTIONS", f"sip:{HOST}:{self.port}", ""))
        self.assertEqual(self.alice.ask("OPTIONS", f"sip:{HOST}:{self.port}"), 200)
        stranger.socket.setblocking(False)
        heard = 0
        while True:
            try:
                heard += bool(stranger.socket.recv(65535))
            except BlockingIOError:
                break
        self.assertIn(heard, range(20, 80))
        self.assertIn(f"pike: {STRANGER} floods and is blocked", self.child.text())
