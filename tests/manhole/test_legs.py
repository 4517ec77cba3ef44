"""Tests of trace over all legs of a call: back to back, hidden, and texts to and from Jabber and mobiles, whole servers each."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from sipgw.configuration import reading_of
from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.manhole.beside import call_key
from sipgw.manhole.tap import Seen, Tap
from sipgw.manhole.trace import MOST_RECENT, RECENT, Trace
from sipgw.service import SipServer
from sipgw.testing import FakeSmsc, WireFlow
from tests.children import ROOT, free_port
from tests.manhole.test_trace import TraceTests as OneLeg
from tests.modules.calls import BOB
from tests.modules.test_b2b_logic import Back
from tests.modules.test_proto_smpp import Phone
from tests.modules.test_topology_hiding import Hidden
from tests.proxy.rig import response
from tests.servers.prosody import DOMAIN, missing, prosody
from tests.xmpp.rig import Jabber

DAVE = 7004


def arrows(lines: list[str]) -> list[str]:
    """The labels of a ladder, each with where it points."""
    found = []
    for line in "\n".join(lines).splitlines():
        if "-" in line and ("->" in line or "<-" in line):
            inner = line[18:].strip(" |")
            label = " ".join(word for word in inner.replace("|", " ").split() if word.strip("-<>"))
            found.append(f"{'>' if '->' in line else '<'} {label}")
    return found


class BackTests(Back):
    """A call back to back."""

    def test_legs(self) -> None:
        """Both legs stand in one ladder, whichever of them fits, also when it has begun before."""
        for conditions in ({"caller": "alice"}, {"ip": "127.0.0.1", "where": lambda message: "B2B" in (message.call_id or "")}):
            given: dict[str, Any] = dict(conditions)
            self.serve()
            shown: list[str] = []
            trace = Trace(Tap(self.wired.server, (WireFlow,)), shown.append)
            trace(given.pop("where", None), **given)
            self.addCleanup(trace.stop)
            self.dial()
            self.arrive(response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n"), BOB)
            said = arrows(shown)
            self.assertEqual(sum("INVITE" in line for line in said), 2 if "caller" in conditions else 1, said)
            self.assertIn("127.0.0.1:7002", shown[-1] + "".join(shown))
            self.assertEqual(sum(" 200 " in line for line in said), 2, said)
            trace.stop()
            late: list[str] = []
            again = Trace(Tap(self.wired.server, (WireFlow,)), late.append)
            again(call_id=self.invited.call_id)
            self.arrive(response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n"), BOB)
            self.assertTrue(late)
            again.stop()


class HiddenTests(Hidden):
    """A call whose Call-ID is hidden."""

    def test_legs(self) -> None:
        """The callee's leg has another Call-ID, and stands in the ladder."""
        self.serve('"C"')
        shown: list[str] = []
        trace = Trace(Tap(self.wired.server, (WireFlow,)), shown.append)
        trace(call_id="call@test")
        self.addCleanup(trace.stop)
        self.dial()
        self.assertNotEqual(self.invited.call_id, "call@test")
        self.pick_up()
        said = arrows(shown)
        self.assertEqual([sum(word in line for line in said) for word in ("INVITE", " 200 ")], [2, 2], said)
        self.assertIn("2 calls", repr(trace))


class Live(TestCase):
    """A server in this process on real sockets, a phone, and a trace."""

    port: int

    async def begin(self, text: str) -> None:
        """Start the server, and look at everything of Alice's."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.lines: list[str] = []
        self.server = SipServer(reading_of(text), reactor, log=lambda _level, line: self.lines.append(line))
        self.server.configure()
        self.assertEqual(self.server.configuration.in_order(), [])
        self.server.bind()
        await self.server.start()
        self.addCleanup(self.end)
        self.phone = Phone()
        self.listening = self.reactor.listenUDP(0, self.phone, interface="127.0.0.1")
        self.addCleanup(self.listening.stopListening)
        self.number = 0
        self.shown: list[str] = []
        self.trace = Trace(Tap(self.server), self.shown.append)
        self.addCleanup(self.trace.stop)

    async def end(self) -> None:
        """Stop the server, and the timers of its transactions."""
        await self.server.stopService()
        wake = self.server.user._wake
        if wake is not None:
            wake.cancel()

    async def until(self, condition: Any) -> None:
        """Wait for a condition."""
        end = self.reactor.seconds() + 20
        while not condition():
            if self.reactor.seconds() > end:
                self.fail("waited in vain\n" + "\n".join([*self.shown, *self.lines[-20:]]))
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.01, tick.callback, None)
            await tick

    def ask(self, method: str, uri: str, sender: str, more: str = "", body: str = "") -> None:
        """Send a request of the phone's."""
        self.number += 1
        own = self.listening.getHost().port
        transport: Any = self.phone.transport
        to = sender if method == "REGISTER" else uri
        transport.write((
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{self.number}\r\nMax-Forwards: 70\r\n"
            f"From: <{sender}>;tag=a{self.number}\r\nTo: <{to}>\r\nCall-ID: c{self.number}@x\r\n"
            f"CSeq: 1 {method}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode(), ("127.0.0.1", self.port))

    def clean(self, *secrets: str) -> None:
        """Nothing of a text or a password is in the ladder, nor in what is kept of what is no SIP."""
        everything = "\n".join(self.shown) + "".join(repr(seen) for seen in self.trace.messages if seen.message is None)
        for secret in secrets:
            self.assertNotIn(secret, everything)


class MobileTests(Live):
    """Texts to and from mobiles."""

    async def test_texts(self) -> None:
        """A MESSAGE with its PDUs and the receipt; a text with the MESSAGE that it becomes."""
        from twisted.internet import reactor

        smsc = FakeSmsc(reactor)
        self.addCleanup(smsc.stop)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        store = open_store(f"sqlite://{folder}/sms.db", create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        self.port = free_port()
        text = (ROOT / "examples" / "sms" / "opensips.cfg").read_text().replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        text = text.replace("port=2775", f"port={smsc.port}").replace("sqlite:///tmp/sipgw-sms.db", f"sqlite://{folder}/sms.db")
        text = text.replace("\nroute {", '\nmodparam("proto_smpp", "reports", "text")\nroute {', 1)
        await self.begin(text.replace('"domain", "127.0.0.1"', f'"domain", "127.0.0.1:{self.port}"'))
        await self.until(lambda: smsc.factory.links)
        domain = f"127.0.0.1:{self.port}"
        own = self.listening.getHost().port
        self.ask("REGISTER", f"sip:{domain}", f"sip:+4930@{domain}", f"Contact: <sip:+4930@127.0.0.1:{own}>\r\n")
        await self.until(lambda: self.phone.responses)
        self.trace(caller="+4930")
        plain = "Content-Type: text/plain\r\n"
        self.ask("MESSAGE", f"sip:+491701234567@{domain}", f"sip:+4930@{domain}", plain, "whisper")
        await self.until(lambda: all(any(word in line for line in self.shown) for word in ("202", "submit_sm_resp")))
        smsc.receipt("1")
        await self.until(lambda: any("200 OK" in line for line in self.shown))
        said = arrows(self.shown)
        self.assertEqual(sum(line.endswith("MESSAGE +4930") for line in said), 1, said)  # "was delivered", to who wrote it
        self.assertEqual(said[0], "> MESSAGE +491701234567")
        self.assertEqual([line[2:].split(" ")[0] for line in said].count("submit_sm"), 1, said)
        self.assertIn("submit_sm_resp ESME_ROK", "\n".join(said))
        self.assertIn("deliver_sm_resp ESME_ROK", "\n".join(said))
        self.assertIn("smpp provider", "\n".join(self.shown))
        saved = self.trace.save(str(folder / "x.pcap"))
        self.assertRegex(saved, r"^4 messages in .*; 4 of XMPP or SMPP are not in it, a ladder shows them$")
        self.shown.clear()
        self.trace(callee="+4930")
        for text in ("murmur", "murmur " * 30):  # the second in two parts
            smsc.say("491701234567", "4930", text)
        await self.until(lambda: sum("200 OK" in line for line in self.shown) >= 2)
        said = arrows(self.shown)
        found = [sum(line[2:].startswith(word) for line in said) for word in ("deliver_sm ", "MESSAGE +4930")]
        self.assertEqual(found, [3, 2], said)
        self.assertTrue(said[0].endswith("deliver_sm 4930"), said)
        self.clean("whisper", "murmur", "secret")


class JabberTests(Live):
    """Texts to and from Jabber."""

    if missing():
        skip = missing()

    async def test_texts(self) -> None:
        """A MESSAGE with the stanza that it becomes, and the other way round; an error comes back as both."""
        prosody().restore()
        self.port = free_port()
        text = (ROOT / "examples" / "xmpp" / "opensips.cfg").read_text().replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        await self.begin(text.replace('"xmpp_port", 5347', f'"xmpp_port", {prosody().components}'))
        romeo = Jabber("romeo")
        romeo.start(self.reactor)
        self.addCleanup(romeo.stop)
        await self.until(lambda: romeo.online and any("connected to" in line for line in self.lines))
        own = self.listening.getHost().port
        self.ask("REGISTER", "sip:sip.test", "sip:alice@sip.test", f"Contact: <sip:alice@127.0.0.1:{own}>\r\n")
        await self.until(lambda: self.phone.responses)
        self.trace(caller="alice")
        self.ask("MESSAGE", f"sip:romeo@{DOMAIN}", "sip:alice@sip.test", "Content-Type: text/plain\r\n", "whisper")
        await self.until(lambda: any("202" in line for line in self.shown))
        self.assertEqual(arrows(self.shown), ["> MESSAGE romeo", "> message romeo", "< 202 Accepted"])
        self.assertIn("xmpp 127.0.0.1", "\n".join(self.shown))
        self.shown.clear()
        self.trace(callee="alice")
        romeo.send('<message to="alice@sip.test" type="chat" id="m1"><body>murmur</body></message>')
        romeo.send('<message to="nobody@sip.test" type="chat" id="m2"><body>murmur</body></message>')
        await self.until(lambda: any("200 OK" in line for line in self.shown))
        self.assertEqual(arrows(self.shown)[:3], ["> message alice", "> MESSAGE alice", "< 200 OK"])
        self.trace(callee="nobody")
        self.shown.clear()
        romeo.send('<message to="nobody@sip.test" type="chat" id="m3"><body>murmur</body></message>')
        await self.until(lambda: sum("message" in line for line in self.shown) >= 2)
        self.assertEqual(arrows(self.shown), ["> message nobody", "< message romeo error"])
        self.clean("whisper", "murmur", "s3cret")


class MemoryTests(OneLeg):
    """What is remembered of what is no SIP."""

    def test_recent(self) -> None:
        """So much, and for so long, in case that a call is known later."""
        self.trace(call_id="call1")
        now = self.scripted.server.user.wall_clock()

        def stanza(age: float, *keys: str) -> Seen:
            return Seen(now - age, True, "xmpp", ("", 0), ("", 0), None, b"", frozenset(keys), "xmpp here", f"age {age:g}")

        for seen in (
            stanza(RECENT + 1, call_key("call1")), stanza(3, "b"), stanza(2, call_key("call1"), "a"), stanza(1, "a", "b"),
            stanza(1, "other"),
        ):
            self.trace._seen(seen)
        self.assertEqual(self.shown, [])
        self.scripted.send()
        self.assertEqual(arrows(self.shown)[:3], ["> age 3", "> age 2", "> age 1"])
        self.trace._seen(stanza(0, "b"))
        self.assertIn("age 0", self.shown[-1])
        for _ in range(2 * MOST_RECENT):
            self.trace._seen(stanza(0, "x"))
        self.assertEqual(len(self.trace._recent), MOST_RECENT)
        self.assertEqual(deque(self.trace.messages)[-1].label, "age 0")


del OneLeg
