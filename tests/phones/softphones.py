"""Telephones as children: ``Baresip`` is steered over its ctrl_tcp (netstrings of JSON), ``Linphone`` by its standard input.

Each plays a tone of its own into a call and records what it hears; ``heard`` says how much of that is a given tone.

What they want to be told: baresip 1.0 takes ``net_interface`` as an address, binds the port after ``sip_listen`` too (TLS), and
dumps what it hears only with the module sndfile; linphonec needs its directories to be there, and registers only on command."""

from __future__ import annotations

import json
import math
import shutil
import socket
import struct
import subprocess
import wave
from pathlib import Path
from typing import Any

from tests.children import HOST, Child, bound, free_port, wait_for

BARESIP = shutil.which("baresip")
LINPHONEC = shutil.which("linphonec")

PASSWORD = "x"
"""Of all users."""
RATE = 8000
"""Samples in a second, each of 16 bits."""
ENOUGH = 1.5
"""Seconds that must have been heard; the last one is looked at."""


MODULES = "g711 sndfile aufile menu ctrl_tcp account contact uuid"
"""What each baresip loads."""
WINDOW = 800
"""Samples of a piece that is searched for a tone: 0.1 s, which tells tones apart that differ by 20 Hz."""


def write_tone(file: Path, frequency: int, seconds: int = 10) -> None:
    """Write a wav file with some seconds of a tone; baresip hangs up at its end."""
    samples = (round(12000 * math.sin(2 * math.pi * frequency * n / RATE)) for n in range(RATE))
    with wave.open(str(file), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(RATE)
        target.writeframes(b"".join(struct.pack("<h", sample) for sample in samples) * seconds)


def samples_of(file: Path) -> list[float]:
    """The samples of the last whole second of a wav file that may still be growing, so that its header is not to be believed."""
    data = file.read_bytes()
    form = data.find(b"fmt ") + 8
    start = data.find(b"data") + 8
    if form < 8 or start < 8:
        return []
    channels, rate = struct.unpack_from("<HI", data, form + 2)
    if rate != RATE:
        raise AssertionError(f"{file} has {rate} samples in a second")
    size = 2 * channels * rate
    seconds = data[start : len(data) - (len(data) - start) % (2 * channels)][-size:]
    samples = [float(value) for value in struct.unpack(f"<{len(seconds) // 2}h", seconds)]
    return samples[::channels]


def share(file: Path, frequency: int) -> float:
    """How much of the power of the last second is that frequency (Goertzel): 1.0 for a pure tone, about 0 for anything else.

    It is looked at in pieces of ``WINDOW``, each for itself: where a telephone makes up for a late packet the tone jumps."""
    samples = samples_of(file)
    total = tone = 0.0
    coefficient = 2 * math.cos(2 * math.pi * frequency / RATE)
    for start in range(0, len(samples) - WINDOW + 1, WINDOW):
        before = last = 0.0
        for sample in samples[start : start + WINDOW]:
            total += sample * sample
            before, last = last, sample + coefficient * last - before
        tone += 2 * (before**2 + last**2 - coefficient * before * last) / WINDOW
    return tone / total if total else 0.0


class Softphone:
    """A telephone of ``user`` at the server's ``port`` over ``transport``; it says ``tone`` (in Hz), and answers by itself."""

    child: Child

    def __init__(self, directory: Path, user: str, port: int, tone: int, transport: str = "udp") -> None:
        self.directory = directory
        self.user = user
        self.port = port
        self.tone = tone
        self.transport = transport
        self.address = f"sip:{user}@{HOST}:{port}"
        directory.mkdir(parents=True)
        write_tone(directory / "tone.wav", tone)
        self.start()

    def start(self) -> None:
        """Start it, and let it register."""
        raise NotImplementedError

    def call(self, other: Softphone) -> None:
        """Call another one, and wait until there is somebody to talk to."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """End the call."""
        raise NotImplementedError

    def alone(self) -> bool:
        """Whether its call has ended."""
        raise NotImplementedError

    def recordings(self) -> list[Path]:
        """The files of what it has heard, the latest last."""
        raise NotImplementedError

    def quit(self) -> int:
        """Leave in order; its exit status."""
        raise NotImplementedError

    def listen(self, number: int) -> None:
        """Wait until enough has been heard in its call of that number, from 1."""
        size = ENOUGH * 2 * RATE

        def enough() -> bool:
            files = self.recordings()
            return len(files) >= number and files[number - 1].stat().st_size > size

        wait_for(enough, f"{self.user} hears something", self.child)

    def heard(self, tone: int) -> float:
        """The share of ``tone`` in what it has heard last."""
        return share(self.recordings()[-1], tone)


class Baresip(Softphone):
    """baresip. ``contacts``: whom it knows; ``through_server``: requests to other domains go to the server, too.
    ``modules``: what it loads besides."""

    contacts = ""
    through_server = False
    modules = ""

    def start(self) -> None:
        """Start it, and connect to its control."""
        control = free_port()
        files = {
            "accounts": f"<{self.address};transport={self.transport}>;auth_pass={PASSWORD};regint=60;answermode=auto;ptime=20"
            + (f';outbound="sip:{HOST}:{self.port}"\n' if self.through_server else "\n"),
            "contacts": self.contacts,
            "config": f"""
                poll_method epoll
                sip_listen {HOST}:{adjacent_ports()}
                call_max_calls 4
                audio_player aufile,{self.directory}/played.wav
                audio_source aufile,{self.directory}/tone.wav
                audio_alert aufile,/dev/null
                audio_srate {RATE}
                audio_channels 1-1
                rtp_ports 31000-32000
                net_interface {HOST}
                module_path {module_path()}
                ctrl_tcp_listen {HOST}:{control}
                snd_path {self.directory}
            """
            + "".join(f"module {name}.so\n" for name in f"{MODULES} {self.modules}".split()),
        }
        for name, text in files.items():
            (self.directory / name).write_text("".join(line.strip() + "\n" for line in text.splitlines()))
        assert BARESIP is not None
        self.child = Child([BARESIP, "-4", "-f", str(self.directory)], self.directory)
        self.events: list[dict[str, Any]] = []
        self.buffer = b""
        wait_for(lambda: bound(control, "tcp"), "baresip takes commands", self.child)
        self.control = socket.create_connection((HOST, control))
        self.control.setblocking(False)
        wait_for(lambda: "\033[32mOK" in self.ask("reginfo"), f"{self.user} registers", self.child)

    def ask(self, command: str, params: str = "") -> str:
        """Give a command; what it answers."""
        known = len(self.events)
        text = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        self.control.sendall(b"%d:%s," % (len(text), text))

        def response() -> list[dict[str, Any]]:
            self.read()
            return [event for event in self.events[known:] if event.get("response")]

        answer = wait_for(response, f"baresip answers {command}", self.child)[0]
        if not answer["ok"]:
            raise AssertionError(f"{command} {params}: {answer}")
        return str(answer["data"])

    def read(self) -> None:
        """Take the events that have come."""
        try:
            while data := self.control.recv(65536):
                self.buffer += data
        except BlockingIOError:
            pass
        while b":" in self.buffer:
            size, _, rest = self.buffer.partition(b":")
            if len(rest) <= int(size):
                return
            self.events.append(json.loads(rest[: int(size)]))
            self.buffer = rest[int(size) + 1 :]

    def happened(self, kind: str) -> int:
        """How often an event of that type has come."""
        self.read()
        return sum(event.get("type") == kind for event in self.events)

    def call(self, other: Softphone) -> None:
        """Dial, and wait for the answer."""
        before = self.happened("CALL_ESTABLISHED")
        self.ask("dial", other.address)
        wait_for(lambda: self.happened("CALL_ESTABLISHED") > before, f"{other.user} answers", self.child)

    def hang_up(self) -> None:
        """Send BYE."""
        self.ask("hangup")

    def alone(self) -> bool:
        """Whether each call has ended."""
        return self.happened("CALL_ESTABLISHED") == self.happened("CALL_CLOSED")

    def recordings(self) -> list[Path]:
        """The dumps of what came in; their names begin with the time."""
        return sorted(self.directory.glob("dump-*-dec.wav"), key=lambda file: file.stat().st_mtime)

    def quit(self) -> int:
        """Unregister and end."""
        self.ask("quit")
        self.control.close()
        return self.child.wait()


class Linphone(Softphone):
    """linphonec."""

    def start(self) -> None:
        """Start it and let it register."""
        for name in (".local/share/linphone", ".config/linphone"):
            (self.directory / name).mkdir(parents=True)
        ports = {"udp": 0, "tcp": 0, self.transport: free_port()}
        config = self.directory / "linphonerc"
        config.write_text(
            f"[sip]\nsip_port={ports['udp']}\nsip_tcp_port={ports['tcp']}\nsip_tls_port=0\nuse_ipv6=0\nguess_hostname=0\n"
            f"default_proxy=-1\n[rtp]\naudio_rtp_port={adjacent_ports()}\n[video]\nenabled=0\n"
        )
        assert LINPHONEC is not None
        home = {"HOME": str(self.directory), "TERM": "dumb"}
        self.child = Child([LINPHONEC, "-a", "-c", str(config)], self.directory, home, stdin=subprocess.PIPE)
        self.records = 0
        wait_for(lambda: "linphonec>" in self.child.text(), "linphonec takes commands", self.child)
        self.say("soundcard use files")
        self.say(f"play {self.directory}/tone.wav")
        self.record()
        self.say(f"register sip:{self.user}@{HOST}:{self.port} sip:{HOST}:{self.port};transport={self.transport} {PASSWORD}")

        def registered() -> bool:
            self.say("status register")
            return "registered, identity=" in self.child.text()

        wait_for(registered, f"{self.user} registers", self.child)

    def say(self, line: str) -> None:
        """Type one line."""
        assert self.child.process.stdin is not None
        self.child.process.stdin.write(f"{line}\n".encode())
        self.child.process.stdin.flush()

    def record(self) -> None:
        """Record the next call in a file of its own."""
        self.records += 1
        self.say(f"record {self.directory}/heard-{self.records}.wav")

    def count(self, text: str) -> int:
        """How often it has written that."""
        return self.child.text().count(text)

    def call(self, other: Softphone) -> None:
        """Dial, and wait for the answer."""
        before = self.count("Media streams established")
        self.say(f"call {other.address}")
        wait_for(lambda: self.count("Media streams established") > before, f"{other.user} answers", self.child)

    def hang_up(self) -> None:
        """Send BYE."""
        self.say("terminate")

    def alone(self) -> bool:
        """Whether each call has ended; the next one is recorded in another file."""
        if self.count(" ended (") < self.records:
            return False
        self.record()
        return True

    def recordings(self) -> list[Path]:
        """What it was told to record, as far as it was."""
        return [file for file in (self.directory / f"heard-{n + 1}.wav" for n in range(self.records)) if file.exists()]

    def quit(self) -> int:
        """Unregister and end."""
        self.say("unregister")
        self.say("quit")
        return self.child.wait()


def module_path() -> Path:
    """Where the modules of baresip are: Debian puts them under ``/usr/lib``, others under the name of the machine there."""
    found = [path for pattern in ("", "*/") for path in Path("/usr/lib").glob(f"{pattern}baresip/modules")]
    return found[0] if found else Path("/usr/local/lib/baresip/modules")


def adjacent_ports() -> int:
    """The first of two adjacent ports that are free, for UDP and TCP."""

    def find() -> int:
        port = free_port()
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                try:
                    probe.bind((HOST, port + 1))
                except OSError:
                    return 0
        return port

    port: int = wait_for(find, "two adjacent ports are free")
    return port
