"""Tests of management over AMP, by Twisted's own client."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols import amp

from sipgw.manhole import boxes
from sipgw.manhole.amp import MAX_BUSY
from sipgw.manhole.outlet import MAX_WAITING, WINDOW
from sipgw.mi.jsonrpc import LIMIT
from tests.manhole.door import DoorTests


class CallTests(DoorTests):
    """Commands and answers."""

    async def refused(self, kind: type[Exception], command: str, *params: Any) -> dict[str, Any]:
        """What the error says, which must be of that kind."""
        try:
            await self.client.call(command, *params)
        except boxes.CallError as error:
            self.assertIs(type(error), kind)
            described: dict[str, Any] = json.loads(str(error))
            return described
        self.fail("it was not refused")

    async def test_call(self) -> None:
        """A command is called by position and by name, by each of its names."""
        self.assertEqual(await self.client.call("echo:say", "hällo"), "hällo")
        self.assertEqual(await self.client.call("say", text="x"), "x")
        self.assertEqual(await self.client.call("pwd"), {"WD": os.getcwd()})
        answer = await self.client.callRemote(boxes.Call, command="pwd")
        self.assertEqual(answer["rest"], 0)

    async def test_octets(self) -> None:
        """Octets that are not UTF-8 come in as SIP has them, and go out as U+FFFD."""
        answer = await self.client.callRemote(boxes.Call, command="say", params=b'["\xff"]')
        self.assertEqual(json.loads(answer["data"]), "\ufffd")

    async def test_errors(self) -> None:
        """Each kind of error has its AMP error, which says code and message."""
        self.assertEqual(await self.refused(boxes.NotFound, "nosuch"), {"code": -32601, "message": "Method not found"})
        self.assertEqual((await self.refused(boxes.InvalidParams, "say"))["code"], -32602)
        self.assertEqual((await self.refused(boxes.ServerFault, "fail")), {"code": -32000, "message": "Server error"})
        self.assertEqual((await self.refused(boxes.CommandRefused, "which", "none:"))["code"], 404)
        for bad in (b"{", b"1", b'["\\ud800"]', b"[NaN]", b"[" * 5000):
            with self.assertRaises(boxes.BadRequest):
                await self.client.callRemote(boxes.Call, command="say", params=bad)
        self.assertEqual(await self.client.call("say", "still here"), "still here")
        self.assertIn("KeyError", "".join(text for _, text in self.server.lines))

    async def test_bad_boxes(self) -> None:
        """A box with a field too few or too wrong is refused; one that answers nothing costs the connection; no traceback."""
        for fields in ({}, {"command": b"\xff"}, {"command": b"pwd", "parts": b"x"}, {"command": b"pwd", "parts": b"9" * 5000}):
            box = amp.AmpBox({b"_command": b"Call", **{name.encode(): value for name, value in fields.items()}})
            answered: Any = self.client._sendBoxCommand(b"Call", box)
            with self.assertRaises(amp.RemoteAmpError) as caught:
                await answered
            self.assertEqual(caught.exception.errorCode, b"BAD_REQUEST")
            self.assertEqual(json.loads(caught.exception.description)["code"], -32600)
        self.assertEqual(await self.client.call("say", "still here"), "still here")
        for box in (amp.AmpBox(_answer=b"99", x=b"y"), amp.AmpBox(_error=b"99"), amp.AmpBox(foo=b"bar")):
            other = await self.connect()
            other.sendBox(box)
            while other.transport is not None and other.transport.connected:
                await deferLater(self.reactor, 0.01)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_long_answer(self) -> None:
        """Answers of many times 64 KiB come in pieces, whether of many members or of one text."""
        counted = await self.client.call("count", 20000)
        self.assertEqual((len(counted), counted[-1]["number"]), (20000, 19999))
        self.server.commands.find("say").call("x")
        text = "y" * 300_000
        for start in range(0, 300_000, 50_000):
            piece = text[start : start + 50_000]
            data = (b'["' if not start else b"") + piece.encode()
            await self.client.callRemote(boxes.Part, parts=7, data=data)
        answer = await self.client.callRemote(boxes.Call, command="say", params=b'"]', parts=7)
        self.assertEqual(len(answer["data"]), boxes.PIECE)
        data = answer["data"]
        while answer["rest"]:
            answer = await self.client.callRemote(boxes.More, rest=answer["rest"])
            data += answer["data"]
        self.assertEqual(json.loads(data), text)

    async def test_bounds(self) -> None:
        """Parts have an end, answers that nobody reads are few, one that is forgotten makes room."""
        for _ in range(LIMIT // 60_000):
            await self.client.callRemote(boxes.Part, parts=1, data=b"x" * 60_000)
        with self.assertRaises(boxes.BadRequest):
            await self.client.callRemote(boxes.Part, parts=1, data=b"x" * 60_000)
        with self.assertRaises(boxes.BadRequest):
            await self.client.callRemote(boxes.Call, command="say", params=b"", parts=1)
        rests = []
        for _ in range(16):
            answer = await self.client.callRemote(boxes.Call, command="count", params=b"[5000]")
            rests.append(answer["rest"])
        with self.assertRaises(boxes.BadRequest):
            await self.client.callRemote(boxes.Call, command="count", params=b"[5000]")
        await self.client.callRemote(boxes.Forget, rest=rests[0])
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.More, rest=rests[0])
        self.assertEqual(len(await self.client.call("count", 5000)), 5000)

    async def test_breaks_off(self) -> None:
        """An answer that breaks in the middle ends with an error, and is not taken for whole."""
        with self.assertRaises(boxes.ServerFault):
            await self.client.call("breaks")
        self.assertIn("ZeroDivisionError", "".join(text for _, text in self.server.lines))
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.More, rest=1)

    async def test_describe(self) -> None:
        """A command tells what it takes."""
        described = json.loads((await self.client.callRemote(boxes.Describe, command="get_statistics"))["data"])
        self.assertEqual(described["name"], "statistics:get")
        self.assertEqual(described["parameters"], [{"name": "statistics", "kind": "list of str", "optional": False}])
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.Describe, command="nosuch")

    async def test_who_does_not_read(self) -> None:
        """A client that asks and does not read is not read from for ever, and others are served."""
        self.client.transport.pauseProducing()
        answered = [self.client.callRemote(boxes.Call, command="count", params=b"[500]") for _ in range(400)]
        other = await self.connect()
        self.assertEqual(await other.call("say", "x"), "x")
        await deferLater(self.reactor, 0.05)
        waiting = [sum(map(len, e.transport._tempDataBuffer)) + len(e.transport.dataBuffer) for e in self.module._clients]
        self.assertLess(max(waiting), 2_000_000)
        self.assertGreater(max(waiting), 1000)
        self.client.transport.resumeProducing()
        self.assertEqual({(await each)["rest"] for each in answered}, {0})

    async def test_many_at_once(self) -> None:
        """So many commands run at a time, the others after them."""
        waiting = self.echo.waiting = Deferred()
        answered = [self.client.callRemote(boxes.Call, command="wait") for _ in range(MAX_BUSY + 20)]
        other = await self.connect()
        await other.call("say", "x")
        self.assertEqual(self.echo.asked, MAX_BUSY)
        waiting.callback(None)
        self.assertEqual({(await each)["data"] for each in answered}, {b'"OK"'})


class ToldTests(DoorTests):
    """Events, statistics, the log."""

    async def test_events(self) -> None:
        """Events come with their parameters, however long; not before, and not afterwards."""
        self.echo.rang.emit(text="before")
        number = (await self.client.callRemote(boxes.Subscribe, events=["E_ECHO_RANG"]))["subscription"]
        self.echo.rang.emit(text="now")
        self.echo.rang.emit(text="z" * 200_000)
        await self.until(lambda: len(self.client.heard) == 2)
        self.assertEqual(self.client.heard[0], ({"event": "E_ECHO_RANG", "params": {"text": "now"}}, 0))
        self.assertEqual(len(self.client.heard[1][0]["params"]["text"]), 200_000)
        await self.client.callRemote(boxes.Unsubscribe, subscription=number)
        self.assertFalse(self.echo.rang.heard)
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.Unsubscribe, subscription=number)
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.Subscribe, events=["E_NOSUCH"])

    async def test_pattern(self) -> None:
        """A name that ends with a star stands for all that begin so; who goes is told nothing."""
        await self.client.callRemote(boxes.Subscribe, events=["E_ECHO*"])
        self.assertTrue(self.echo.rang.heard)
        await self.part(self.client)
        await self.until(lambda: not self.echo.rang.heard)

    async def test_statistics(self) -> None:
        """The values come at once, then those that change."""
        await self.client.callRemote(boxes.Subscribe, statistics=["echo:"], every=0.1)
        await self.until(lambda: self.client.heard)
        self.assertEqual(self.client.heard.pop(0)[0], {"statistics": {"echo:said": 0}})
        await self.client.call("say", "x")
        await self.until(lambda: self.client.heard)
        self.assertEqual(self.client.heard[0][0], {"statistics": {"echo:said": 1}})
        with self.assertRaises(boxes.NotFound):
            await self.client.callRemote(boxes.Subscribe, statistics=["echo:nosuch"])

    async def test_tail(self) -> None:
        """Lines of the log come that are as grave as asked, and match."""
        await self.client.callRemote(boxes.Tail, level=1, match="fr[ao]m")
        for level, text in ((3, "from far"), (1, "from here"), (-1, "nothing"), (-1, "an error FRAM b")):
            for tap in self.server.log_taps:
                tap(level, text)
        await self.until(lambda: len(self.client.heard) == 2)
        self.assertEqual([each["log"] for each, _ in self.client.heard], ["from here", "an error FRAM b"])
        with self.assertRaises(boxes.BadRequest):
            await self.client.callRemote(boxes.Tail, match="(")
        await self.part(self.client)
        await self.until(lambda: not self.server.log_taps)

    async def test_slow(self) -> None:
        """What a slow client does not take is lost, oldest first, and it is told how much."""
        held: list[Any] = []
        self.client.held = held
        await self.client.callRemote(boxes.Subscribe, events=["E_ECHO_RANG"])
        for number in range(MAX_WAITING + WINDOW + 10):
            self.echo.rang.emit(text=str(number))
        await self.until(lambda: len(self.client.heard) == WINDOW)
        self.client.held = None
        for each in held:
            each.callback({})
        await self.until(lambda: len(self.client.heard) == MAX_WAITING + WINDOW)
        lost = [each for each in self.client.heard if each[1]]
        self.assertEqual(lost, [({"event": "E_ECHO_RANG", "params": {"text": str(WINDOW + 10)}}, 10)])


class SocketTests(DoorTests):
    """The unix socket."""

    async def test_mode(self) -> None:
        """It is its owner's, unless said; a second server does not take it; it goes with the server."""
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with self.assertRaisesRegex(OSError, "another server listens"):
            await self.door(socket_name=self.path)
        await self.module.stop()
        self.assertFalse(os.path.exists(self.path))

    async def test_stale(self) -> None:
        """One that a killed server has left behind is replaced."""
        path = f"{self.path}.2"
        module = await self.door(socket_name=path, unix_socket_mode=0o660)
        os.link(path, f"{path}.kept")
        await module.stop()
        os.rename(f"{path}.kept", path)
        again = await self.door(socket_name=path)
        self.assertEqual(again.path, path)

    async def test_default(self) -> None:
        """Without a name it is in the run folder, under another name if somebody is there."""
        folder = os.path.join(os.path.dirname(self.path), "run")
        before = os.environ.get("SIPGW_RUN")
        os.environ["SIPGW_RUN"] = folder
        try:
            first = await self.door()
            second = await self.door()
        finally:
            del os.environ["SIPGW_RUN"]
            if before is not None:
                os.environ["SIPGW_RUN"] = before
        self.assertEqual((first.path, second.path), (f"{folder}/mi.sock", f"{folder}/mi-{os.getpid()}.sock"))
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        await first.stop()
        await second.stop()
