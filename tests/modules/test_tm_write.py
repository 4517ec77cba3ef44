"""Tests of t_write_req and t_write_unix: what other programs are told of a request, and how they answer it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from sipgw.modules._tm_write import Appended
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB, Calls
from tests.proxy.rig import request

SCRIPT = """
modparam("tm", "fr_timeout", 5)
modparam("tm", "tw_append", "all: ua=$hdr(User-Agent) ;via=$(hdr(Via){s.select,1,;});none=$avp(none);$rb; port=$sp")
modparam("tm", "tw_append", "plain: method=$rm")
route {
    if (is_method("CANCEL")) { t_relay(); exit; }
    if ($rU != "early") t_newtran();
    t_on_failure("f");
    $var(path) = "PATH";
    if (!FUNCTION("voicemail/$ARGUMENT", $var(path))) {
        xlog("L_ALERT", "not written\\n");
        t_reply(500, "Nobody");
    }
}
failure_route[f] { xlog("L_ALERT", "failed $T_reply_code\\n"); }
"""
BODY = b"v=0\r\n"
MORE = (
    "User-Agent: test\r\nContact: <sip:alice@192.0.2.5>\r\nRecord-Route: <sip:192.0.2.7;lr>, <sip:192.0.2.8;lr>\r\n"
    "Record-Route: <sip:192.0.2.9;lr>\r\n"
)


class WriteCase(Calls):
    """A program that reads a pipe or a socket."""

    def setUp(self) -> None:
        self.path = Path("/tmp") / f"sipgw-{os.getpid()}-{id(self)}"  # short enough for a unix socket
        self.addCleanup(self.path.unlink, missing_ok=True)

    def begin(self, function: str, argument: str = "all") -> None:
        """Start the server."""
        script = SCRIPT.replace("FUNCTION", function).replace("PATH", str(self.path))
        self.start(script.replace("/$ARGUMENT", f"/{argument}" if argument else ""))

    def ask(self, method: str = "INVITE", user: str = "bob", **options: Any) -> None:
        """A request with a body comes."""
        options.setdefault("extra", MORE)
        data = request(method, f"sip:{user}@127.0.0.1:{BOB}", **options)
        self.arrive(data.replace(b"Content-Length: 0\r\n\r\n", b"Content-Length: 5\r\n\r\n" + BODY))

    def pipe(self) -> int:
        """The reading end of a pipe."""
        os.mkfifo(self.path)
        made = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, made)
        return made


class FormatTests(WriteCase):
    """The lines."""

    def test_lines(self) -> None:
        """They say what a user agent server must know to answer, then what is appended, then the body."""
        self.begin("t_write_req")
        reader = self.pipe()
        self.ask()
        lines = os.read(reader, 65536).decode().split("\n")
        name = lines.pop(15)
        self.assertRegex(name, r"^[0-9a-f]{8}\.[0-9a-f]{4}$")
        self.assertEqual(
            lines,
            ["0.3", "sip_request.voicemail", "INVITE", "bob", "127.0.0.1", "127.0.0.1", ".", f"sip:bob@127.0.0.1:{BOB}",
             "sip:alice@192.0.2.5", "<sip:alice@example.org>;tag=a1", "<sip:bob@example.org>", "call@test", "a1", "", "1",
             "<sip:192.0.2.7;lr>,<sip:192.0.2.8;lr>,<sip:192.0.2.9;lr>", "sip:192.0.2.7;lr", "P-MsgFlags: 0",
             "ua: test", "via: branch=z9hG4bKone", f"port: {ALICE}", ".", "v=0\r", "", ""],
        )
        self.assertEqual(self.said(ALICE), ["100"])
        params = {"code": 200, "reason": "Left a message", "trans_id": name, "to_tag": "vm"}
        self.assertEqual(finished(self.wired.server.commands.call("tm:reply", params)), "OK")
        self.assertEqual(self.said(ALICE), ["200"])
        self.arrive(request("ACK", f"sip:bob@127.0.0.1:{BOB}", to_tag="vm", branch="ack"))
        self.settle()

    def test_routes(self) -> None:
        """A strict router is the Request-URI; without Record-Route the contact is, without Contact the From."""
        contact = "Contact: <sip:alice@192.0.2.5>\r\n"
        for number, (more, expected) in enumerate((
            (contact + "Record-Route: <sip:192.0.2.7>, <sip:192.0.2.8;lr>\r\n",
             ["sip:192.0.2.7", "<sip:192.0.2.8;lr>,<sip:alice@192.0.2.5>", "."]),
            (contact, ["sip:alice@192.0.2.5", ".", "."]),
            ("", ["sip:alice@example.org", ".", "."]),
        )):
            self.begin("t_write_req", "plain")
            if not number:
                reader = self.pipe()
            self.ask("MESSAGE", extra=more)
            lines = os.read(reader, 65536).decode().split("\n")
            self.assertEqual([lines[8], lines[16], lines[17]], expected)
            self.assertEqual(lines[18:], ["P-MsgFlags: 0", "method: MESSAGE", ".", ".", ""])

    def test_refused(self) -> None:
        """What is no tw_append is refused when it is set."""
        for text in ("", "name", "name:", ":x=$ru", "name: ru", "name: $ru", "name: =$ru", "name: x=ru"):
            self.assertRaises(ValueError, Appended, text)
        self.assertRaises(AssertionError, self.begin, "t_write_req", "/x")


class WayTests(WriteCase):
    """Pipes and sockets that are there, full, or not there."""

    def test_timeout(self) -> None:
        """Who does not answer in fr_timeout has let the request fail."""
        self.begin("t_write_req")
        self.pipe()
        self.ask()
        self.wait(5.1)
        self.assertEqual(self.logged(), ["failed 408"])
        self.assertEqual(self.said(ALICE), ["100", "408"])
        self.arrive(request("ACK", f"sip:bob@127.0.0.1:{BOB}"))
        self.settle()

    def test_cancel(self) -> None:
        """The caller may give up meanwhile."""
        self.begin("t_write_req")
        self.pipe()
        self.ask()
        self.arrive(request("CANCEL", f"sip:bob@127.0.0.1:{BOB}"))
        self.assertEqual(self.said(ALICE), ["100", "200 CANCEL", "487"])

    def test_nobody(self) -> None:
        """Without a reader, a pipe, a transaction or such a tw_append it is false at once."""
        for function in ("t_write_req", "t_write_unix"):
            self.begin(function)
            self.ask()
            self.assertEqual(self.logged()[-1], "not written")
            self.assertEqual(self.said(ALICE), ["100", "500"])
        self.path.write_text("no pipe")
        self.begin("t_write_req")
        self.ask()
        self.assertIn("it is no FIFO", self.logged()[0])
        self.assertEqual(self.path.read_text(), "no pipe")
        self.begin("t_write_req", "nothing")
        self.ask("MESSAGE")
        self.assertIn("there is no tw_append nothing", self.logged()[0])
        self.begin("t_write_req")
        self.ask("MESSAGE", user="early")
        self.assertIn("there is no transaction", self.logged()[0])

    def test_socket(self) -> None:
        """A socket gets one datagram for each request; one that has no room gets it when it has, or never."""
        reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(reader.close)
        reader.bind(str(self.path))
        reader.setblocking(False)
        self.begin("t_write_unix")
        self.ask()
        self.assertTrue(reader.recv(65536).startswith(b"0.3\nsip_request.voicemail\nINVITE\n"))
        full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(full.close)
        full.setblocking(False)
        full.connect(str(self.path))

        def fill() -> None:
            while True:
                try:
                    full.send(b"x")
                except BlockingIOError:
                    return

        fill()
        self.ask("MESSAGE", branch="two")
        self.wait(1)
        self.assertEqual(self.said(ALICE)[1:], [])
        while reader.recv(65536) == b"x":
            self.wait(0.03)
        fill()
        self.logged()
        self.ask("MESSAGE", branch="three")
        self.wait(1.9)
        self.assertEqual(self.logged(), [])
        self.wait(0.2)
        self.assertEqual(self.logged()[-1], "not written")
        self.assertEqual(self.said(ALICE), ["500 MESSAGE"])
