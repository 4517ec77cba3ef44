"""Tests of the small AMP client, against a server of another process."""

from __future__ import annotations

import json
import socket

from twisted.trial.unittest import SynchronousTestCase

from sipgw.manhole.client import Client, Lost, read_box, write_box
from sipgw.mi.jsonrpc import MIError
from tests.children import free_port
from tests.manhole.certificates import Authority
from tests.manhole.child import ChildTests
from tests.sipp.harness import Phone


class ClientTests(ChildTests):
    """A server with a unix socket and one for TLS."""

    more = """
modparam("mi_amp", "tls_address", "127.0.0.1:{tls}")
modparam("mi_amp", "tls_certificate", "FOLDER/server.pem")
modparam("mi_amp", "tls_ca_list", "FOLDER/ca.pem")
loadmodule "statistics.so"
modparam("statistics", "stat_groups", "many")
loadmodule "cfgutils.so"
startup_route {{
    $var(i) = 0;
    while ($var(i) < 3000) {{
        update_stat("many:a_name_of_forty_characters_and_a_few_$var(i)", $var(i));
        $var(i) = $var(i) + 1;
    }}
}}
"""
    route = 'xlog("seen $rm"); raise_event("E_TEST"); send_reply(200, "OK");'
    tls = 0

    @classmethod
    def prepare(cls) -> None:
        """Certificates."""
        cls.tls = free_port()
        cls.more = ClientTests.more.format(tls=cls.tls)
        authority = Authority(cls.folder)
        authority.sign("server")
        authority.sign("operator")
        Authority(cls.folder, "stranger").sign("intruder")

    def test_call(self) -> None:
        """A command, its errors, what it takes."""
        client = self.client()
        self.assertEqual(client.call("ps")["Processes"][0]["PID"], self.child.process.pid)
        self.assertEqual(client.call("log_level"), client.call("core:log_level", {}))
        with self.assertRaises(MIError) as caught:
            client.call("nosuch")
        self.assertEqual((caught.exception.code, caught.exception.message), (-32601, "Method not found"))
        self.assertEqual(client.describe("which")["recipes"], [[], ["command"]])

    def test_long(self) -> None:
        """Parameters and answers longer than a box (64 KiB) go through, up to the limit of all doors."""
        client = self.client()
        with self.assertRaises(MIError) as caught:
            client.call("help", ["x" * 500_000])
        self.assertEqual(caught.exception.message, "unknown MI command")
        with self.assertRaises(MIError) as caught:
            client.call("help", ["x" * 1_100_000])
        self.assertEqual(caught.exception.code, -32600)
        names = [f"stat{number}-{'y' * 200}" for number in range(1000)]
        self.assertEqual(client.call("statistics:get", {"statistics": names}), {})
        answer = client.call_text("statistics:get", [["many:"]])
        self.assertGreater(len(answer), 2 * 65536)
        values = {name[-4:].strip("_few"): value for name, value in json.loads(answer).items()}
        self.assertEqual(values, {str(number): number for number in range(3000)})
        core = client.call("statistics:list", [["core:"]])
        self.assertEqual(client.call("statistics:list", {"statistics": ["core:"] * 10}), core)

    def test_told(self) -> None:
        """The log, an event and a statistic are told when a request comes."""
        client = self.client()
        log = client.tail(3, "seen")
        event = client.subscribe(["E_TEST"])
        statistic = client.subscribe(statistics=["core:rcv_requests"], every=0.1)
        phone = Phone(self.port)
        self.addCleanup(phone.close)
        self.assertEqual(phone.request("OPTIONS", "sip:x@127.0.0.1"), 200)
        told: dict[int, list[object]] = {log: [], event: [], statistic: []}
        for number, value, lost in client.told(20):
            self.assertEqual(lost, 0)
            told[number].append(value)
            if len(told[log]) and len(told[event]) and len(told[statistic]) > 1:
                break
        self.assertEqual(told[event], [{"event": "E_TEST", "params": []}])
        self.assertIn("seen OPTIONS", str(told[log][0]))
        values = [each["statistics"]["core:rcv_requests"] for each in told[statistic]]  # type: ignore[index]
        self.assertEqual(values, [values[0], values[0] + 1])
        client.unsubscribe(log)
        self.assertEqual(list(client.told(0.01)), [])

    def test_tls(self) -> None:
        """Over TLS whoever has a certificate of ours is served, nobody else."""
        files = [str(self.folder / f"{name}.pem") for name in ("operator", "intruder", "ca")]
        with Client.tls("127.0.0.1", self.tls, files[0], "", files[2], patience=20) as client:
            self.assertEqual(client.call("ps")["Processes"][0]["PID"], self.child.process.pid)
            self.assertGreater(len(client.call_text("statistics:list")), 1000)
        with self.assertRaises(Lost), Client.tls("127.0.0.1", self.tls, files[1], "", files[2], patience=20) as client:
            client.call("ps")
        with self.assertRaises(Lost), Client.tls("127.0.0.1", self.tls, files[0], "", str(self.folder / "stranger.pem")):
            pass


class BoxTests(SynchronousTestCase):
    """The boxes themselves."""

    def test_boxes(self) -> None:
        """A box comes out as it went in, in whatever pieces it arrives."""
        fields = {"_ask": b"1", "empty": b"", "long": b"x" * 60_000}
        data, buffer = write_box(fields) * 2, bytearray()
        found = []
        for start in range(0, len(data), 997):
            buffer += data[start : start + 997]
            while (box := read_box(buffer)) is not None:
                found.append(box)
        self.assertEqual((found, buffer), ([fields, fields], bytearray()))

    def test_no_amp(self) -> None:
        """Something else at the other end is said to be something else."""
        with self.assertRaises(Lost):
            read_box(bytearray(b"HTTP/1.1 400 Bad Request\r\n"))

    def test_lost(self) -> None:
        """No server, one that goes, one that is silent."""
        with self.assertRaisesRegex(Lost, "No such file"):
            Client.unix("/nosuch/mi.sock")
        ours, theirs = socket.socketpair()
        theirs.close()
        with self.assertRaises(Lost), Client(ours) as client:
            client.call("ps")
        ours, theirs = socket.socketpair()
        with theirs, self.assertRaisesRegex(Lost, "does not answer"), Client(ours, 0.01) as client:
            client.call("ps")
