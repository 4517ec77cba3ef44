"""Tests of sipgw.modules.permissions: tables of addresses on each engine, files of rules, commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import DatabaseError
from sipgw.exports import Writable
from sipgw.interfaces import Value
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.permissions import Permissions, check_transport
from sipgw.testing import FakeServer, finished
from tests.doubles import FakeFlow, FakeVariable, request, run_of
from tests.modules.scripted import Scripted
from tests.modules.tables import TableCases, engines


def address(
    group: int, ip: str, mask: int = 32, port: int = 0, proto: str = "any", pattern: str | None = None, info: str = ""
) -> dict[str, Value]:
    """A row of the table."""
    return {"grp": group, "ip": ip, "mask": mask, "port": port, "proto": proto, "pattern": pattern, "context_info": info}


class AddressCases(TableCases):
    """A table of addresses"""

    tables = ("address",)

    async def make(self, *rows: dict[str, Value], **parameters: Any) -> Permissions:
        """A started module."""
        await self.rows("address", *rows)
        made = Permissions(self.server, db_url=self.url, **parameters)
        await made.start()
        return made

    async def test_functions(self) -> None:
        """Addresses are found by group, transport, port and pattern; what stands with them is given."""
        made = await self.make(
            address(1, "192.0.2.1", info="phone"),
            address(2, "2001:db8::", 32, 0, "udp", "a*", "net"),
            address(3, "192.0.2.0", 24, 5062, "tcp"),
        )
        run, info = self.run_(), FakeVariable()
        for group, ip, port, proto, pattern, answer in (
            (1, "192.0.2.1", 5060, "udp", None, 1),
            (1, "192.0.2.2", 5060, "udp", None, -1),
            (4, "192.0.2.1", 5060, "udp", None, -2),
            (0, "192.0.2.1", 5060, "any", None, 1),
            (2, "2001:db8::1", 5060, "UDP", "abc", 1),
            (2, "2001:db8::1", 5060, "tcp", "abc", -1),
            (2, "2001:db8::1", 5060, "udp", "bc", -1),
            (3, "192.0.2.9", 5062, "tcp", None, 1),
            (3, "192.0.2.9", 5061, "tcp", None, -1),
        ):
            asked = made.check_address(run, group, ip, port, proto, info, pattern)
            self.assertEqual(asked, answer, (group, ip, port, proto, pattern))
        self.assertEqual(info.values, ["phone", "phone", "net", ""])
        self.assertEqual(made.check_source_address(run, 1, info), 1)
        self.assertEqual(made.check_source_address(run, 3, info), -1)
        found = FakeVariable()
        self.assertTrue(made.get_source_group(run, found))
        run.flow = FakeFlow("2001:db8::7", transport="udp")
        self.assertTrue(made.get_source_group(run, found))
        run.flow = FakeFlow("198.51.100.1")
        self.assertFalse(made.get_source_group(run, found))
        self.assertEqual(found.values, [1, 2])

    async def test_reload(self) -> None:
        """A reload takes the new rows; one that fails changes nothing, and says so; rows that mean nothing are left out."""
        made = await self.make(address(1, "192.0.2.1"), address(1, "nonsense"), address(1, "192.0.2.2", 99))
        said = "permissions: 2 rows of address mean nothing and are left out; the first: 'nonsense' is no IP address"
        self.assertEqual(self.logged(), [said])
        run = self.run_()
        await self.db.delete("address", {"ip": "192.0.2.1"})
        await self.rows("address", address(5, "192.0.2.1"))
        self.assertEqual([made.check_source_address(run, group) for group in (1, 5)], [1, -2])
        await made.address_reload()
        self.assertEqual([made.check_source_address(run, group) for group in (1, 5)], [-2, 1])
        made.partitions["default"].table_name = "no_such_table"
        if self.engine == "memory":
            self.db.down = True
        self.server.lines.clear()
        try:
            await made.address_reload("default")
            self.fail("it was reloaded")
        except MIError as error:
            self.assertEqual((error.code, error.message), (400, "failed to reload partition default"))
        self.assertEqual(len(self.logged()), 1)
        self.assertEqual(made.check_source_address(run, 5), 1)

    async def test_partitions(self) -> None:
        """Other tables have other rows; a name that is none is told."""
        if self.engine != "memory":
            from sipgw.db.schema import VERSION_TABLE, create_statements, tables

            for text in create_statements(tables()["address"], self.db.dialect, "carriers"):
                await self.db.query(text)
            await self.db.insert(VERSION_TABLE, {"table_name": "carriers", "table_version": 5})
        await self.rows("carriers", address(7, "192.0.2.1", info="carrier"), address(8, "192.0.2.0", 30))
        made = await self.make(address(1, "192.0.2.1"), partition="other: table_name = carriers")
        run, info = self.run_(), FakeVariable()
        self.assertEqual(made.check_source_address(run, 7, info, None, "other"), 1)
        self.assertEqual(made.check_address(run, 1, "192.0.2.1", 0, "", None, None, "other"), -2)
        self.assertEqual(made.check_source_address(run, 1), 1)
        self.assertEqual(made.check_source_address(run, 1, None, None, "none"), -1)
        self.assertEqual(self.logged(), ["check_source_address: there is no partition 'none'"])
        self.assertEqual([part["name"] for part in made.address_dump()["Partitions"]], ["other", "default"])
        row: dict[str, Any] = {"ip": "192.0.2.1", "mask": "32", "port": 0, "proto": "any", "pattern": ""}
        row |= {"grp": 7, "context_info": "carrier"}
        self.assertEqual(made.address_dump("other"), {"part": "other", "Destinations": [row]})
        nets = made.subnet_dump("other")["Destinations"]
        self.assertEqual([(net["grp"], net["ip"], net["mask"]) for net in nets], [(8, "192.0.2.0", "255.255.255.252")])
        for name, code in (("none", 404),):
            with self.assertRaises(MIError) as caught:
                made.address_dump(name)
            self.assertEqual(caught.exception.code, code)
        try:
            await made.address_reload("none")
            self.fail("it was reloaded")
        except MIError as error:
            self.assertEqual(error.code, 400)


globals().update(engines(AddressCases))
del AddressCases


class SmallTests(SynchronousTestCase):
    """What needs no table."""

    def test_transport(self) -> None:
        """A transport is one, or any."""
        self.assertEqual([check_transport(text) for text in ("UDP", "any", "ANY", "", "wss")], ["udp", "", "", "", "wss"])
        self.assertRaises(ValueError, check_transport, "bogus")

    def test_no_table(self) -> None:
        """Without a database no address is known, and the log says what to set."""
        server: Any = FakeServer(db_default_url="sqlite:///nowhere")
        made = Permissions(server)
        finished(made.start())
        run = run_of(request())
        self.assertEqual(made.check_source_address(run, 0), -1)
        variable: Writable = FakeVariable()
        self.assertFalse(made.get_source_group(run, variable))
        self.assertEqual(run.user.logged[0][1], "check_source_address: there is no partition 'default': set db_url")
        self.assertEqual(made.check_address(run, 1, "bad", 0, "udp"), -1)
        self.assertEqual(made.check_address(run, 1, "192.0.2.1", 0, "bogus"), -1)

    def test_refused(self) -> None:
        """A database that is not there ends the start."""
        server: Any = FakeServer()
        with self.assertRaisesRegex(DatabaseError, "no module is loaded"):
            finished(Permissions(server, db_url="nosuch://x").start())

    def test_many_rows(self) -> None:
        """A large table is read in turns, between which others have theirs."""
        from tests.db.memory import MemoryDatabases

        server: Any = FakeServer()
        server.databases = MemoryDatabases()
        server.databases.database.tables["address"] = [address(1, f"10.0.{n >> 8}.{n & 255}") for n in range(12_000)]
        made = Permissions(server, db_url="memory:")
        started = ensureDeferred(made.start())
        self.assertNoResult(started)
        self.assertEqual(len(made.partitions["default"].table), 0)
        server.reactor.advance(0)
        self.successResultOf(started)
        self.assertEqual(len(made.partitions["default"].table), 12_000)


class FileTests(SynchronousTestCase):
    """Files of rules in a folder of the test, used by a script."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def make(self, body: str, rest: str = "", **files: str) -> Scripted:
        """A server whose files are named x_allow, x_deny."""
        for name, text in files.items():
            (self.folder / name.replace("_", ".")).write_text(text)
        made = Scripted(f'{body}\nxlog("L_ALERT", "$rc");', "permissions", "sipmsgops", rest=rest)
        made.server.user.directory = str(self.folder)
        return made

    def ask(
        self, made: Scripted, method: str = "OPTIONS", uri: str = "sip:3611@abc.com;user=phone", more: str = "", to: str = ""
    ) -> str:
        """What a request comes to."""
        data = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{abs(hash((uri, more, to)))}\r\n"
            f"From: <sip:alice@example.org>;tag=a1\r\nTo: {to or '<sip:bob@example.org>'}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n"
            f"{more}Content-Length: 0\r\n\r\n"
        )
        return " ".join(made.send(data.encode()))

    def test_routing(self) -> None:
        """All destinations count, or only the first."""
        body = 'if ($hdr(Subject) != NULL) append_msg_branch("$hdr(Subject)");\nallow_routing("x");'
        files = {"x_allow": 'ALL : "^sip:361[0-9]*@abc.com$" EXCEPT "3613"\n', "x_deny": "ALL : ALL\n"}
        made = self.make(body, **files)
        self.assertEqual(self.ask(made), "1")
        self.assertEqual(self.ask(made, uri="sip:9@abc.com"), "-1")
        for branch, answer in (("sip:3612@abc.com:99", "1"), ("sip:3613@abc.com", "-1"), ("sips:3612@abc.com", "1")):
            self.assertEqual(self.ask(made, more=f"Subject: {branch}\r\n"), answer, branch)
        made = self.make(body, 'modparam("permissions", "check_all_branches", 0)', **files)
        self.assertEqual(self.ask(made, more="Subject: sip:3613@abc.com\r\n"), "1")

    def test_default(self) -> None:
        """Without a name the default files count; files that are not there have no rules; bad lines are told."""
        made = self.make("allow_routing();")
        self.assertEqual(self.ask(made), "1")
        rest = 'modparam("permissions", "default_deny_file", "no.deny")'
        body = 'if ($rU == "1") allow_routing("no"); else allow_routing("gone");'
        made = self.make(body, rest, no_deny="ALL ALL\nalice : 3611, ^sip:1@\n")
        self.assertEqual(self.ask(made), "1")
        said = self.ask(made, uri="sip:1@abc.com")
        fault = "there is no : between who and what; the line does not count"
        self.assertEqual(said, f"permissions: {self.folder}/no.deny:1: {fault} -1")

    def test_register(self) -> None:
        """Each contact is looked at, with the To; the star is none."""
        made = self.make('allow_register("r");', r_allow='"^sip:bob@example.org$" : "3611"\n', r_deny="ALL : ALL\n")
        for contact, answer in (
            ("<sip:3611@a>", "1"),
            ("<sip:3611@a>, <sip:9@a>", "-1"),
            ("*", "1"),
            ("", "1"),
            ("<tel:3611>", "1"),
            ("<tel:9>", "-1"),
        ):
            more = f"Contact: {contact}\r\n" if contact else ""
            self.assertEqual(self.ask(made, "REGISTER", "sip:a", more), answer, contact)
        self.assertEqual(self.ask(made, "REGISTER", "sip:a", "Contact: <sip:3611@a>\r\n", "<sip:bob@example.org;x=y>"), "-1")

    def test_uri(self) -> None:
        """A URI is compared as it is written; the command compares a pair, and says whether there are rules at all."""
        made = self.make('allow_uri("u", "$hdr(Subject)");', u_deny='alice : "3611$"\n')
        for uri, answer in (("sip:3611", "-1"), ("sip:3611;x=y", "1"), ("nonsense", "1")):
            self.assertEqual(self.ask(made, more=f"Subject: {uri}\r\n"), answer, uri)
        commands = made.server.commands
        forbidden = "403 Forbidden"
        for who, basename, answer in (("sip:bob", "u", "OK"), ("sip:alice", "u", forbidden), ("sip:bob", "none", forbidden)):
            params: Any = {"basename": basename, "uri": who, "contact": "sip:3611"}
            asked = ensureDeferred(commands.call("permissions:allow_uri", params))
            asked.addErrback(lambda failure: str(failure.value))
            self.assertEqual(self.successResultOf(asked), answer, (who, basename))

    def test_bounded(self) -> None:
        """Names of files that come from messages fill no memory; what cannot be a name has no rules."""
        made: Any = Permissions(FakeServer())
        run = run_of(request())
        self.assertTrue(made.allow_routing(run, "a\0b"))
        for number in range(1100):
            made.allow_routing(run, f"none{number}")
        self.assertFalse(made.allow_routing(run, "none2000"))
        self.assertEqual(len(made._files), 1000)
