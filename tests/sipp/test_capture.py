"""Whole calls of sipp, traced to capture servers: a second sipgw that writes them to a database, and tshark, which reads what is
in each frame with its own dissector of SIP (through ``tests/data/hep.lua``: it has none for HEP)."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.manhole.pcap import pcap
from sipgw.manhole.tap import Seen
from sipgw.transport import hep
from tests.children import HOST, ROOT, Child, bound, free_port, twistd, wait_for
from tests.sipp.harness import CONFIG, Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase
from tests.transport.hep_reader import read

CALLS = 5
DATAGRAMS = 1_000_000 if os.environ.get("SIPGW_NIGHTLY") else 10_000
"""What is thrown at the port of a capture server."""
TRACE = """
loadmodule "proto_hep.so"
loadmodule "tracer.so"
{ids}
route {{
    trace("t", "t", "sip|xlog");
    if (is_method("INVITE"))
        xlog("L_INFO", "$rm of $fU\\n");
"""


class Recorder:
    """Listens over UDP and TCP, and keeps what comes with its time, as packets for a file."""

    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[Seen] = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((HOST, self.port))
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.tcp = socket.create_server((HOST, self.port))
        self.threads = [threading.Thread(target=self._datagrams, daemon=True), threading.Thread(target=self._stream, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _keep(self, transport: str, peer: Any, data: bytes) -> None:
        nothing: Any = None
        self.seen.append(Seen(time.time(), True, transport, (HOST, self.port), peer[:2], nothing, data))

    def _datagrams(self) -> None:
        while len(data := self.udp.recvfrom(65_535)[0]) > 4:
            self._keep("udp", (HOST, 9060), data)

    def _stream(self) -> None:
        link, peer = self.tcp.accept()
        with link:
            while data := link.recv(700):  # so that frames are cut
                self._keep("tcp", peer, data)

    def frames(self) -> list[Any]:
        """The datagrams, as frames."""
        return [read(each.data) for each in tuple(self.seen) if each.transport == "udp"]

    def close(self) -> None:
        """End."""
        self.udp.sendto(b"end", (HOST, self.port))
        self.threads[0].join()
        self.udp.close()
        self.tcp.close()


def capture_server(directory: Path) -> tuple[Child, int, str]:
    """A sipgw with ``examples/capture-server.cfg``, its port, and its database."""
    directory.mkdir(parents=True)
    file = directory / "captured.db"
    with closing(open_store(f"sqlite://{file}", create=True)) as store:
        create(store, ("version", "sip_capture", "rtcp_capture"))
    port = free_port()
    text = (ROOT / "examples" / "capture-server.cfg").read_text()
    text = text.replace("127.0.0.1:9060", f"{HOST}:{port}").replace("127.0.0.1:5070", f"{HOST}:{free_port()}")
    config = directory / "capture.cfg"
    config.write_text(text.replace("/var/lib/sipgw/captured.db", str(file)))
    child = twistd(["sipgw", "-c", str(config)], directory / "capture")
    try:
        wait_for(lambda: "listens on" in child.text() and bound(port), "the capture server starts", child)
    except AssertionError:
        child.kill()
        raise
    return child, port, str(file)


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    """What stands in a database."""
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(query).fetchall()


class CaptureTests(SippTestCase):
    """Calls through a proxy that traces each transaction."""

    def serve(self) -> Server:
        """Both servers, and a recorder."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        self.capture, self.capture_port, self.database = capture_server(self.directory / "database")
        self.addCleanup(self.capture.kill)
        self.recorder = Recorder()
        self.addCleanup(self.recorder.close)
        places = {
            "udp": f"{HOST}:{self.capture_port}; transport=udp", "tcp": f"{HOST}:{self.capture_port}; transport=tcp",
            "two": f"{HOST}:{self.recorder.port}; version=2", "three": f"{HOST}:{self.recorder.port}; transport=udp",
            "stream": f"{HOST}:{self.recorder.port}; transport=tcp",
        }
        ids = [f'modparam("proto_hep", "hep_id", "[{name}] {place}")' for name, place in places.items()]
        ids += [f'modparam("tracer", "trace_id", "[t]uri=hep:{name};")' for name in places]
        text = Path(CONFIG).read_text().replace("\nroute {\n", TRACE.format(ids="\n".join(ids)), 1)
        config = self.directory / "proxy.cfg"
        config.write_text(text)
        return Server(self.directory / "server", str(config))

    def test_calls(self) -> None:
        """Each frame is read by tshark, with nothing malformed, and each message is a row, over UDP and over TCP."""
        self.answering("callee-talks", calls=CALLS)
        self.calling("caller-talks", calls=CALLS, options=["-r", "50"]).finish()
        frames = self.recorder.frames()
        threes = [frame for frame in frames if frame.version == 3]
        messages = [frame for frame in threes if frame.kind == hep.SIP]
        self.assertGreater(len(messages), CALLS * 12)
        self.assertEqual(sum(frame.kind == hep.XLOG for frame in threes), CALLS)
        for table, wanted in (("sip_capture", 2 * len(messages)), ("rtcp_capture", 2 * CALLS)):
            count = f"select count(*) from {table}"
            wait_for(lambda: rows(self.database, count) == [(wanted,)], f"all rows of {table}", self.capture)  # noqa: B023
        starts = Counter(frame.payload.split(b" ")[0 if frame.payload[:4] != b"SIP/" else 1].decode() for frame in messages)
        written = dict(rows(self.database, "select method, count(*) from sip_capture group by method"))
        self.assertEqual(written, {start: 2 * count for start, count in starts.items()})
        calls = rows(self.database, "select distinct callid, correlation_id from sip_capture where method = 'INVITE'")
        self.assertEqual((len(calls), [one for one in calls if one[0] != one[1]]), (CALLS, []))
        said = "type = 100 and msg like '%INVITE of%'"
        lines = rows(self.database, f"select distinct correlation_id from rtcp_capture where {said}")
        self.assertEqual(sorted(lines), sorted((call,) for call, _ in calls))
        whole = rows(self.database, "select msg, source_port, destination_port, micro_ts from sip_capture where method = 'BYE'")
        self.assertIn(f"Call-ID: {calls[0][0]}", "".join(row[0] for row in whole))
        self.assertTrue(all(row[1] and row[2] and abs(row[3] / 1e6 - time.time()) < 300 for row in whole), whole)
        wait_for(self._streamed, "the stream has all frames")
        self.shark(starts, len(threes) - len(messages))

    def _streamed(self) -> bool:
        stream = b"".join(each.data for each in tuple(self.recorder.seen) if each.transport == "tcp")
        wanted: int = sum(frame.version == 3 for frame in self.recorder.frames())
        return stream.count(b"HEP3") == wanted

    def shark(self, starts: Counter[str], lines: int) -> None:
        """tshark finds all messages in each of the three ways, and nothing to complain of."""
        if shutil.which("tshark") is None:
            raise SkipTest("there is no tshark")
        file = self.directory / "hep.pcap"
        file.write_bytes(b"".join(pcap(self.recorder.seen)))
        port = self.recorder.port
        fields = "hep.version hep.whole sip.Method sip.Status-Code _ws.malformed hep.wrong _ws.lua.error".split()
        fields.append("_ws.expert.message")
        command = ["tshark", "-r", str(file), "-X", f"lua_script:{ROOT / 'tests' / 'data' / 'hep.lua'}"]
        command += ["-d", f"udp.port=={port},hep", "-d", f"tcp.port=={port},hep", "-T", "fields", "-E", "separator=|"]
        command += ["-E", "aggregator=,", *(word for field in fields for word in ("-e", field))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if "lua" in done.stderr.lower() and "not" in done.stderr.lower():
            raise SkipTest(f"this tshark has no Lua: {done.stderr}")
        versions: Counter[str] = Counter()
        found: Counter[str] = Counter()
        for line in done.stdout.splitlines():
            version, whole, methods, statuses, malformed, wrong, broken, expert = line.split("|")
            self.assertEqual((malformed, wrong, broken), ("", "", ""), line)
            self.assertNotIn("alformed", expert, line)
            versions.update(version.split(",") if version else ())
            self.assertEqual(len(whole), len(version), line)
            found.update(each for each in (methods + "," + statuses).split(",") if each)
        self.assertEqual(versions, {"2": starts.total() + lines, "3": 2 * (starts.total() + lines)}, done.stderr)
        self.assertEqual(found, {start: 3 * count for start, count in starts.items()})

    def test_anything(self) -> None:
        """Thousands of datagrams that are no HEP, or bent, and connections full of garbage: the capture server goes on."""
        payload = {"payload": "OPTIONS sip:a SIP/2.0\r\n\r\n"}
        good = hep.encode(hep.Frame(hep.SIP, 17, (HOST, 5060), (HOST, 5061), 1.0, payload), 3, hep.Style())
        dice = random.Random(20261123)
        before = memory(self.capture)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(DATAGRAMS):
                udp.sendto(anything(dice, good), (HOST, self.capture_port))
                if number % 200 == 199:
                    self.assertEqual(self.phone.request("OPTIONS", f"sip:{HOST}:{self.server.port}"), 200)
        for number in range(50):
            with socket.create_connection((HOST, self.capture_port)) as tcp:
                try:
                    tcp.sendall(good * 3 + anything(dice, good) + dice.randbytes(3000) * (number % 5))
                except OSError:
                    pass
        mine = f"select count(*) from sip_capture where method = 'MESSAGE' and callid like '{os.getpid()}-%'"

        def written() -> bool:
            self.phone.request("MESSAGE", f"sip:nobody@{HOST}:{self.server.port}")
            return bool(rows(self.database, mine)[0][0] >= 2)

        wait_for(written, "good frames are still written", self.capture)
        self.assertIsNone(self.capture.process.poll())
        self.assertLess(memory(self.capture) - before, 100 << 20)  # of which rows that wait may have 64
        self.assertNotIn("bug:", self.capture.text())
        self.assertNotIn("Traceback", self.capture.text())


def anything(dice: random.Random, good: bytes) -> bytes:
    """Octets of chance, or a good frame that is bent, cut off, or says another length."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(dice.randrange(20, 400))
    if kind == 1:
        return b"HEP3" + dice.randbytes(dice.randrange(16, 200))
    data = bytearray(good)
    for _ in range(dice.randrange(1, 6)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if kind == 3:
        del data[dice.randrange(20, len(data)) :]
    if kind == 4:
        data[4:6] = struct.pack("!H", dice.randrange(65_536))
    return bytes(data)


def memory(child: Child) -> int:
    """What a process has in memory, in octets."""
    return int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[1]) * 4096
