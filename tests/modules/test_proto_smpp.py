"""The module proto_smpp in a real server, between SIP over UDP and a fake SMSC over TCP."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from pathlib import Path
from typing import Any
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from OpenSSL.crypto import FILETYPE_PEM
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.modules.proto_smpp import ProtoSmpp
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import NAMESPACE, Notification
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from sipgw.testing import FakeServer, FakeSmsc
from tests.children import ROOT, free_port, twistd
from tests.modules.test_mi_http import make_certificate

EXAMPLE = ROOT / "examples" / "sms" / "opensips.cfg"
PATIENCE = 20.0


class Phone(DatagramProtocol):
    """A SIP phone that answers MESSAGE with 200 and keeps what came."""

    def __init__(self) -> None:
        self.messages: list[Request] = []
        self.responses: deque[Response] = deque()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = parse(datagram)
        if isinstance(message, Response):
            self.responses.append(message)
            return
        known = [each for each in self.messages if each.call_id == message.call_id and each.cseq == message.cseq]
        if not known:
            self.messages.append(message)
        transport: Any = self.transport
        transport.write(respond_to(message, 200, "OK", to_tag="phone"), addr)


class ServerTests(TestCase):
    """The example of ``examples/sms`` as it is, but for its ports and its database."""

    def setUp(self) -> None:
        """Start an SMSC, a phone, and the server."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.url = f"sqlite://{self.folder}/sms.db"
        store = open_store(self.url, create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        self.smsc = FakeSmsc(self.reactor)
        self.port = free_port()
        self.phone = Phone()
        self.listening = self.reactor.listenUDP(0, self.phone, interface="127.0.0.1")
        self.number = 0
        self.start()

    def start(self, **changes: str) -> None:
        """Start the server, with other lines in the place of some."""
        text = EXAMPLE.read_text(encoding="utf-8").replace("port=2775", f"port={self.smsc.port}")
        text = text.replace("127.0.0.1:5060", f"127.0.0.1:{self.port}").replace("sqlite:///tmp/sipgw-sms.db", self.url)
        self.mi = free_port()
        text = text.replace('loadmodule "proto_smpp.so"', f'''loadmodule "httpd.so"
modparam("httpd", "ip", "127.0.0.1")
modparam("httpd", "port", {self.mi})
loadmodule "mi_http.so"
loadmodule "proto_smpp.so"''')
        usual = 'send_smpp_message("provider", , , , , 1)'
        text = text.replace(usual, changes.pop("call", usual))
        for old, new in changes.items():
            text = re.sub(rf'modparam\("proto_smpp", "{old}", .*', new, text)
        script = self.folder / "opensips.cfg"
        script.write_text(text.replace('"domain", "127.0.0.1"', f'"domain", "127.0.0.1:{self.port}"'), encoding="utf-8")
        self.child = twistd(["sipgw", "-c", str(script)], self.folder)

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop all."""
        self.child.process.terminate()
        status = await deferToThread(self.child.wait)
        await self.listening.stopListening()
        await self.smsc.stop()
        await self.until(lambda: not self.smsc.factory.links)
        self.assertEqual(status, 0, self.child.text())
        self.assertNotIn("Traceback", self.child.text())

    async def until(self, condition: Any) -> Any:
        """Wait until ``condition`` holds; its value."""
        end = self.reactor.seconds() + PATIENCE
        while not (value := condition()):
            if self.reactor.seconds() > end:
                self.fail(f"waited in vain\n{self.child.text()[-3000:]}")
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.01, tick.callback, None)
            await tick
        return value

    async def ask(self, method: str, uri: str, headers: str = "", body: bytes = b"", tries: int = 1) -> Response:
        """The final response to a request of the phone's; asked again while the server is not there yet."""
        self.number += 1
        own = self.listening.getHost().port
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{self.number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@127.0.0.1:{self.port}>;tag=a\r\nTo: <{uri}>\r\nCall-ID: c{self.number}\r\n"
            f"CSeq: {self.number} {method}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        end = self.reactor.seconds() + PATIENCE
        while self.reactor.seconds() < end:
            transport: Any = self.phone.transport
            transport.write(text.encode() + body, ("127.0.0.1", self.port))
            wait = self.reactor.seconds() + 0.5
            while self.reactor.seconds() < wait:
                for response in list(self.phone.responses):
                    if response.cseq.number == self.number and response.status >= 200:
                        return response
                tick: Deferred[None] = Deferred()
                self.reactor.callLater(0.01, tick.callback, None)
                await tick
        self.fail(f"no answer to {method}\n{self.child.text()[-3000:]}")

    async def register(self) -> None:
        """Register the phone as alice."""
        own = self.listening.getHost().port
        contact = f"Contact: <sip:alice@127.0.0.1:{own}>\r\nExpires: 600\r\n"
        response = await self.ask("REGISTER", f"sip:alice@127.0.0.1:{self.port}", contact)
        self.assertEqual(response.status, 200)

    async def test_demonstration(self) -> None:
        """A text each way, long and with emoji, a receipt as IMDN, a text for a phone that is away, one that SMSC refuses."""
        await self.register()
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        text = "Grüße, " + "long " * 60 + "\U0001f600"
        cpim = (
            f"From: <sip:alice@127.0.0.1>\r\nTo: <sip:+49170555@127.0.0.1>\r\nNS: imdn <{NAMESPACE}>\r\nimdn.Message-ID: m1\r\n"
            f"imdn.Disposition-Notification: positive-delivery\r\n\r\nContent-Type: text/plain\r\n\r\n{text}"
        ).encode()
        response = await self.ask("MESSAGE", f"sip:+49170555@127.0.0.1:{self.port}", "Content-Type: message/cpim\r\n", cpim)
        self.assertEqual(response.status, 202)
        await self.until(lambda: self.smsc.text() == text)
        for id in list(self.smsc.taken):
            self.smsc.receipt(id)
        note = (await self.until(lambda: self.phone.messages))[0]
        self.assertEqual(Notification.parse(Cpim.parse(note.body).body)[:3], ("m1", "delivery", "delivered"))
        self.phone.messages.clear()
        self.smsc.say("49170555", "alice", text, dest_addr_ton=5, dest_addr_npi=0)
        message = (await self.until(lambda: self.phone.messages))[0]
        self.assertEqual(message.body.decode(), text)
        self.assertEqual(message.from_.uri_text, f"sip:+49170555@127.0.0.1:{self.port}")
        self.assertIn("SMS from +49170555 to alice by provider", self.child.text())
        response = await self.ask("MESSAGE", f"sip:+49@127.0.0.1:{self.port}", "Content-Type: image/png\r\n", b"x")
        self.assertEqual(response.status, 480)

    async def test_phone_registers(self) -> None:
        """A text for a phone that is away waits, over a restart too, and comes when it registers."""
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        self.smsc.say("49170555", "alice", "Hello", dest_addr_ton=5, dest_addr_npi=0)
        await self.until(lambda: self.smsc.answers)
        await self.until(lambda: "480, it waits" in self.child.text() or re.search("SMS from", self.child.text()))
        self.child.process.kill()
        self.child.process.wait()
        self.start()
        await self.register()
        message = (await self.until(lambda: self.phone.messages))[0]
        self.assertEqual(message.body, b"Hello")
        self.assertEqual(len(self.phone.messages), 1)


    async def restart(self, **changes: str) -> None:
        """Start the server anew."""
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        self.child.process.terminate()
        await deferToThread(self.child.wait)
        await self.until(lambda: not self.smsc.factory.links)
        self.start(**changes)

    async def test_table(self) -> None:
        """SMSCs of the table that OpenSIPS's module has."""
        store = open_store(self.url)
        create(store, ["smpp"])
        store.insert("smpp", {
            "name": "provider", "ip": "127.0.0.1", "port": self.smsc.port, "system_id": "sipgw", "password": "secret",
            "system_type": "", "src_ton": 5, "src_npi": 8, "dst_ton": 2, "dst_npi": 1, "session_type": 1,
        })
        store.close()
        await self.restart(smsc=f'modparam("proto_smpp", "db_url", "{self.url}")')
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        uri = f"sip:+4917@127.0.0.1:{self.port}"
        response = await self.ask("MESSAGE", uri, "Content-Type: text/plain\r\n", b"Hello")
        self.assertEqual(response.status, 202)
        await self.until(lambda: self.smsc.text() == "Hello")

    async def test_tls(self) -> None:
        """An SMSC behind TLS, whose certificate is verified: one that nobody vouches for is not spoken to."""
        certificate, key = make_certificate(str(self.folder / "tls"))
        options = CertificateOptions(
            privateKey=KeyPair.load(Path(key).read_bytes(), FILETYPE_PEM).original,
            certificate=Certificate.loadPEM(Path(certificate).read_bytes()).original,
        )
        secure = FakeSmsc(self.reactor, options)
        line = f"name=provider;ip=localhost;port={secure.port};system_id=sipgw;password=secret;tls=1"
        await self.restart(smsc=f'modparam("proto_smpp", "smsc", "{line};tls_ca={certificate}")')
        await self.until(lambda: any(link.session.is_bound for link in secure.factory.links))
        self.child.process.terminate()
        await deferToThread(self.child.wait)
        self.start(smsc=f'modparam("proto_smpp", "smsc", "{line}")')
        await self.until(lambda: "not bound to provider: [('SSL routines'" in self.child.text())
        await secure.stop()

    async def ask_mi(self, method: str, **params: Any) -> Any:
        """What a management command answers."""
        body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": method, "params": params}).encode()

        def post() -> Any:
            request = HttpRequest(f"http://127.0.0.1:{self.mi}/mi", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=10) as answer:
                return json.load(answer)

        return await deferToThread(post)

    async def test_management(self) -> None:
        """A link is listed, left and bound again; what waits meanwhile is shown, tried and forgotten; statistics count it."""
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        uri = f"sip:+4917@127.0.0.1:{self.port}"
        await self.ask("MESSAGE", uri, "Content-Type: text/plain\r\n", b"one")
        await self.until(lambda: self.smsc.text() == "one")
        listed = (await self.ask_mi("smpp:list"))["result"]["Links"]
        self.assertEqual([(each["name"], each["state"], each["sent"]) for each in listed], [("provider", "bound", 1)])
        self.assertEqual((await self.ask_mi("smpp:unbind", name="provider"))["result"], "OK")
        await self.until(lambda: not self.smsc.factory.links)
        for text in (b"two", b"three"):
            self.assertEqual((await self.ask("MESSAGE", uri, "Content-Type: text/plain\r\n", text)).status, 202)
        self.assertEqual((await self.ask_mi("smpp:list"))["result"]["Links"][0]["state"], "stopped")
        queue = (await self.ask_mi("smpp:queue", link="provider"))["result"]["Messages"]
        waiting = [each["id"] for each in queue if each["state"] == "waiting"]
        self.assertEqual(len(waiting), 2)
        self.assertEqual((await self.ask_mi("smpp:remove", id=waiting[1]))["result"], "OK")
        self.assertEqual((await self.ask_mi("smpp:flush", id=waiting[0]))["result"], "OK")
        self.assertEqual((await self.ask_mi("smpp:flush", id="none"))["error"]["code"], 404)
        self.assertEqual((await self.ask_mi("smpp:bind", name="provider"))["result"], "OK")
        await self.until(lambda: len(self.smsc.taken) == 2)
        found = (await self.ask_mi("get_statistics", statistics=["smpp:"]))["result"]
        self.assertIn("smpp:provider_sent", found)

    async def test_arguments(self) -> None:
        """Who sends, to whom, what: as the script says; texts from mobiles go to ``outbound_uri`` where there is one."""
        own = self.listening.getHost().port
        await self.restart(
            call='send_smpp_message("provider", "+4911", "+4922", "fixed")',
            domain=f'modparam("proto_smpp", "outbound_uri", "sip:127.0.0.1:{own}")',
        )
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        uri = f"sip:+4917@127.0.0.1:{self.port}"
        self.assertEqual((await self.ask("MESSAGE", uri, "Content-Type: text/plain\r\n", b"one")).status, 202)
        await self.until(lambda: self.smsc.text() == "fixed")
        pdu = self.smsc.taken["1"]
        self.assertEqual((pdu["source_addr"], pdu["destination_addr"]), ("4911", "4922"))
        self.smsc.say("49170555", "4930", "Hello")
        message = (await self.until(lambda: self.phone.messages))[0]
        self.assertEqual((message.uri.partition("@")[0], message.body), ("sip:+4930", b"Hello"))

    async def test_ims_phone(self) -> None:
        """A phone that speaks RP-DATA: its text reaches the SMSC, it hears that it was taken, and then that it was delivered."""
        await self.register()
        await self.until(lambda: any(link.session.is_bound for link in self.smsc.factory.links))
        tpdu = bytes.fromhex("2105089194710755" + "0000" + "0ae8329bfd4697d9ec37")
        data = bytes.fromhex("00070000") + bytes((len(tpdu),)) + tpdu
        uri = f"sip:+4917@127.0.0.1:{self.port}"
        response = await self.ask("MESSAGE", uri, "Content-Type: application/vnd.3gpp.sms\r\n", data)
        self.assertEqual(response.status, 202)
        await self.until(lambda: self.smsc.text() == "hellohello")
        self.assertEqual(self.smsc.taken["1"]["destination_addr"], "49177055")
        acknowledged = (await self.until(lambda: self.phone.messages))[0]
        self.assertEqual((acknowledged.header("content-type"), acknowledged.body.hex()), ("application/vnd.3gpp.sms", "0307"))
        self.smsc.receipt("1")
        await self.until(lambda: len(self.phone.messages) == 2)
        report = self.phone.messages[1].body
        self.assertEqual((report[0], report[5:7].hex(), report[-1]), (1, "0605", 0))

    async def test_killed(self) -> None:
        """The server is killed while texts come: each that was answered 202 reaches the SMSC, and with a window of one at most
        one of them twice."""
        wanted = 5000 if os.environ.get("SIPGW_NIGHTLY") else 300
        line = f"name=provider;ip=127.0.0.1;port={self.smsc.port};system_id=sipgw;password=secret;window=1"
        narrow = f'modparam("proto_smpp", "smsc", "{line}")'
        await self.restart(smsc=narrow)
        await self.ask("MESSAGE", f"sip:+490@127.0.0.1:{self.port}", "Content-Type: text/plain\r\n", b"first")
        own = self.listening.getHost().port
        transport: Any = self.phone.transport
        for number in range(1000, 1000 + wanted):
            if number == 1000 + wanted // 2:
                self.child.process.kill()
                self.child.process.wait()
                self.start(smsc=narrow)
            text = (
                f"MESSAGE sip:+49{number}@127.0.0.1:{self.port} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:alice@127.0.0.1>;tag=a\r\nTo: <sip:+49@127.0.0.1>\r\nCall-ID: k{number}\r\n"
                f"CSeq: {number} MESSAGE\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n{number}"
            )
            transport.write(text.encode(), ("127.0.0.1", self.port))
            if number % 20 == 0:  # as many may be under way
                tick: Deferred[None] = Deferred()
                self.reactor.callLater(0.05, tick.callback, None)
                await tick
        await self.ask("MESSAGE", f"sip:+491@127.0.0.1:{self.port}", "Content-Type: text/plain\r\n", b"last")
        answered = {each.cseq.number for each in self.phone.responses if each.status == 202 and each.cseq.number >= 1000}
        await self.until(lambda: answered <= {int(pdu.message) for pdu in self.smsc.taken.values() if pdu.message.isdigit()})
        came = [pdu.message for pdu in self.smsc.taken.values()]
        twice = len(came) - len(set(came))
        print(f"{len(answered)} of {wanted} answered 202, all of them arrived, {twice} twice")
        self.assertGreater(len(answered), wanted // 4)
        self.assertLessEqual(twice, 1)


class ParameterTests(SynchronousTestCase):
    """What the script may say."""

    def test_refused(self) -> None:
        """Each mistake is told with what to write instead."""
        for name, value, said in [
            ("smsc", "name=a", "needs name=... and ip=..."), ("smsc", "nonsense", "write name=value"),
            ("smsc", "name=a;ip=b;port=x", "port='x' is no number"), ("smsc", "name=a;ip=b;session_type=6", "session_type=6"),
            ("smsc", "name=a;ip=b;country=Germany", "write two letters"), ("smsc", "name=a;ip=b;host=c", "'host=c'"),
            ("account", "system_id=a", "password"), ("account", "system_id=a;password=b;sources=c", "does not appear to be"),
            ("account", "system_id=a;password=b;kinds=d", "write transmitter"), ("smsc_group", "name=a", "members"),
            ("smsc_group", "name=a;members=b;mode=c", "'failover' or 'share'"), ("reports", "mail", "write 'imdn'"),
            ("national_languages", "klingon", "klingon"), ("country", "Germany", "two letters"),
        ]:
            server: Any = FakeServer()
            error = self.assertRaises(ValueError, ProtoSmpp(server).set_parameter, name, value)
            self.assertIn(said, str(error))
