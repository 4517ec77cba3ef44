"""A presence server between us and phones, as OpenSIPS's pua_xmpp has it: watcher information, publications, subscriptions there.

With ``SIPGW_OPENSIPS=/path/of/its/source`` (built, with presence, presence_xml, xcap) the same is done with a real one."""

from __future__ import annotations

import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import deferToThread

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.pidf import PIDF, Pidf, Tuple
from sipgw.sip.replies import respond_to
from sipgw.sip.uri import Uri
from tests.children import free_port
from tests.servers.prosody import DOMAIN
from tests.xmpp.test_subscribe import Seeing

OPENSIPS = os.environ.get("SIPGW_OPENSIPS", "")
SERVED = """
	if (is_method("SUBSCRIBE") && $xmpp.from == NULL && has_totag()) {
		$du = "sip:127.0.0.1:%d";
		t_relay();
		exit;
	}
	if (is_method("SUBSCRIBE") && $xmpp.from == NULL) {
		if ($rd == "jabber.test" && $hdr(Event) == "presence")
			pua_xmpp_req_winfo("$ru", $(hdr(Expires){s.int}));
		$du = "sip:127.0.0.1:%d";
		t_relay();
		exit;
	}
	if (is_method("PUBLISH")) {
		$du = "sip:127.0.0.1:%d";
		t_relay();
		exit;
	}
"""
REAL = """
log_level = 3
stderror_enabled = yes
syslog_enabled = no
udp_workers = 2
socket = udp:127.0.0.1:{port}
mpath = "{source}/modules/"
loadmodule "proto_udp.so"
loadmodule "db_sqlite/db_sqlite.so"
loadmodule "tm/tm.so"
loadmodule "sl/sl.so"
loadmodule "signaling/signaling.so"
loadmodule "sipmsgops/sipmsgops.so"
loadmodule "xcap/xcap.so"
modparam("xcap", "db_url", "{url}")
loadmodule "presence/presence.so"
modparam("presence", "db_url", "{url}")
modparam("presence", "fallback2db", 1)
loadmodule "presence_xml/presence_xml.so"
modparam("presence_xml", "force_active", 1)
route {{
	if (is_method("PUBLISH")) {{
		handle_publish();
		exit;
	}}
	if (is_method("SUBSCRIBE")) {{
		handle_subscribe();
		exit;
	}}
	sl_send_reply(405, "Method Not Allowed");
}}
"""


class PresenceServer(DatagramProtocol):
    """As much of one as is asked for: it takes subscriptions and publications, and tells who watches (RFC 3858)."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.documents: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.dialogs: dict[str, tuple[Dialog, str, str]] = {}
        """By Call-ID: the dialog, the event, and whose state is told."""
        self._numbers = count(1)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message."""
        message = parse(datagram)
        if isinstance(message, Response):
            return
        self.requests.append(message)
        status, headers, tag = 200, "", "pa"
        contact = f"Contact: <sip:pa@127.0.0.1:{self._port()}>\r\n"
        if message.method == "PUBLISH":
            status, headers = self.publish(message)
        elif message.method == "SUBSCRIBE":
            tag = self.subscribe(message)
            headers = f"{contact}Expires: {message.expires or 0}\r\n"
        data = respond_to(message, status, to_tag="" if message.to_tag else tag, headers=headers, record_route=True)
        transport: Any = self.transport
        transport.write(data, addr)
        transport.reactor.callLater(0.01, self.tell_all)

    def _port(self) -> int:
        transport: Any = self.transport
        return int(transport.getHost().port)

    def publish(self, request: Request) -> tuple[int, str]:
        """Take a document, or that it goes on, or that it is taken back."""
        etag = request.header("sip-if-match") or ""
        if etag and self.etags.get(request.uri) != etag:
            return 412, ""
        if not request.expires:
            self.documents.pop(request.uri, None)
            self.etags.pop(request.uri, None)
        elif request.body:
            self.documents[request.uri] = request.body
        self.etags[request.uri] = f"e{next(self._numbers)}"
        return 200, f"SIP-ETag: {self.etags[request.uri]}\r\nExpires: {request.expires}\r\n"

    def subscribe(self, request: Request) -> str:
        """Take a subscription, or its end."""
        if request.to_tag:
            if not request.expires:
                self.dialogs.pop(request.call_id, None)
            return ""
        dialog = Dialog.as_uas(request, f"pa{next(self._numbers)}")
        self.dialogs[request.call_id] = dialog, request.header("event") or "", request.uri
        return dialog.id.local_tag

    def tell_all(self) -> None:
        """Tell all that there is."""
        for call_id, (dialog, event, uri) in self.dialogs.items():
            kind, body = PIDF, self.documents.get(uri, b"")
            if event == "presence.winfo":
                kind, body = "application/watcherinfo+xml", self.winfo(uri)
            headers = f"Contact: <sip:pa@127.0.0.1:{self._port()}>\r\nEvent: {event}\r\n"
            headers += "Subscription-State: active;expires=600\r\n"
            via = f"SIP/2.0/UDP 127.0.0.1:{self._port()};branch=z9hG4bKpa{call_id}{next(self._numbers)}"
            data = dialog.request("NOTIFY", via, headers=headers, body=body, content_type=kind if body else "")
            hop = Uri.parse(dialog.next_hop)
            transport: Any = self.transport
            transport.write(data, (hop.host, hop.port))

    def winfo(self, uri: str) -> bytes:
        """Who watches somebody."""
        watchers = "".join(
            f'<watcher id="{dialog.id.remote_tag}" event="subscription" status="active">{dialog.remote[1:-1]}</watcher>'
            for dialog, event, whose in self.dialogs.values() if event == "presence" and whose == uri
        )
        return (
            f'<?xml version="1.0"?><watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo" version="0" state="full">'
            f'<watcher-list resource="{uri}" package="presence">{watchers}</watcher-list></watcherinfo>'
        ).encode()


class Served(Seeing):
    """A script that leads all presence of phones to the server."""

    server_port = 0

    def script(self, text: str) -> str:
        """Lead it there."""
        port = self.server_port
        more = f'modparam("pua_xmpp", "presence_server", "sip:127.0.0.1:{port}")\n'
        more += f'modparam("pua_xmpp", "server_address", "sip:gateway@127.0.0.1:{self.port}")\n'
        text = super().script(text).replace("\nroute {", f"\n{more}\nroute {{", 1)
        before = "\t# a phone wants to see whether a Jabber user is there"
        return text.replace(before, SERVED % (port, port, port) + before, 1)

    def told(self) -> list[list[Tuple]]:
        """What the phone was told of romeo."""
        return [
            list(Pidf.parse(each.body).tuples) for each in self.phone.messages if each.method == "NOTIFY" and each.body
        ]

    async def watch(self, expires: int, tag: str = "", target: str = "") -> Response:
        """The phone subscribes to romeo."""
        own = self.listening.getHost().port
        headers = f"Event: presence\r\nExpires: {expires}\r\nContact: <sip:{self.user}@127.0.0.1:{own}>\r\n"
        uri = f"sip:romeo@{DOMAIN}"
        response = await self.ask(
            "SUBSCRIBE", target or uri, headers, tag="w1", call_id=f"w{self.user}", to=f"<{uri}>;tag={tag}" if tag else "",
            sender=self.user,
        )
        self.assertIn(response.status, (200, 202))
        return response

    async def both_ways(self) -> None:
        """romeo sees what the phone publishes, the phone sees romeo: through the presence server."""
        document = Pidf(f"pres:{self.alice}", [Tuple("desk", True, "", "At work", None, f"sip:{self.alice}")]).write()
        headers = f"Event: presence\r\nExpires: 600\r\nContent-Type: {PIDF}\r\n"
        published = await self.ask("PUBLISH", f"sip:{self.alice}", headers, document, sender=self.user)
        self.assertEqual(published.status, 200)
        self.subscribe()
        await self.sees("subscribed", "available/tdesk")
        first = await self.watch(600)
        await self.until(lambda: any(each.open for tuples in self.told()[-1:] for each in tuples))
        self.jabbers["romeo"].send("<presence><show>away</show><status>In the garden</status></presence>")
        await self.until(lambda: self.told()[-1][0].note == "In the garden")
        self.assertEqual(self.told()[-1][0].show, "away")
        await self.watch(0, first.to_tag or "", first.contacts[0].uri_text)
        closed = Pidf(f"pres:{self.alice}", [Tuple("desk", False)]).write()
        etag = published.header("sip-etag")
        response = await self.ask(
            "PUBLISH", f"sip:{self.alice}", f"{headers}SIP-If-Match: {etag}\r\n", closed, sender=self.user
        )
        self.assertEqual(response.status, 200)
        await self.sees("unavailable/tdesk")


class DoubleTests(Served):
    """The server is a double."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start it."""
        from twisted.internet import reactor

        self.server = PresenceServer()
        either: Any = reactor
        self.serving = either.listenUDP(0, self.server, interface="127.0.0.1")
        self.server_port = self.serving.getHost().port
        await super().setUp()

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop it."""
        await super().tearDown()
        await self.serving.stopListening()

    async def test_both_ways(self):
        """Both ways; when nobody watches any more, what was published is taken back, and watchers are not asked for."""
        await self.both_ways()

        def last(method: str, event: str) -> tuple[int | None, str | None]:
            found = [each for each in self.server.requests if each.method == method and each.header("event") == event]
            mine = [each for each in found if each.uri == f"sip:romeo@{DOMAIN}" or each.to_tag]
            return (mine[-1].expires, mine[-1].header("contact")) if mine else (None, None)

        await self.until(lambda: last("SUBSCRIBE", "presence.winfo") == (0, f"<sip:gateway@127.0.0.1:{self.port}>"))
        await self.until(lambda: last("PUBLISH", "presence")[0] == 0)
        self.assertNotIn(f"sip:romeo@{DOMAIN}", self.server.documents)


class RealTests(Served):
    """The server is OpenSIPS."""

    if not OPENSIPS:
        skip = "no SIPGW_OPENSIPS=/path/of/its/source"

    async def setUp(self) -> None:  # type: ignore[override]
        """Start it."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        url = f"sqlite://{folder}/presence.db"
        store = open_store(url, create=True)
        create(store, ["presentity", "active_watchers", "watchers", "xcap"])
        store.close()
        self.server_port = free_port()
        config = folder / "opensips.cfg"
        theirs = url.replace("sqlite://", "sqlite:///")
        config.write_text(REAL.format(port=self.server_port, source=OPENSIPS, url=theirs), "utf-8")
        self.log = folder / "log"
        with self.log.open("wb") as out:
            arguments = [f"{OPENSIPS}/opensips", "-F", "-f", str(config), "-m", "64", "-M", "8"]
            self.server = subprocess.Popen(arguments, stdout=out, stderr=out)
        await super().setUp()

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop it."""
        await super().tearDown()
        self.server.terminate()
        await deferToThread(self.server.wait)

    async def test_both_ways(self):
        """Both ways."""
        try:
            await self.both_ways()
        except self.failureException as error:
            raise self.failureException(f"{error}\n{self.log.read_text(errors='replace')[-4000:]}") from None


