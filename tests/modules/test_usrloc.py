"""Tests of sipgw.modules.usrloc; shapes and refusals of the commands are those of OpenSIPS 4.1."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.commands import Commands
from sipgw.mi.jsonrpc import encode
from sipgw.modules.usrloc import Usrloc
from sipgw.proxy.location import Binding, binding_key
from sipgw.sip.uri import Uri
from sipgw.testing import pass_time
from tests.doubles import FakeVariable, request, run_of
from tests.proxy.rig import FakeServer, Rig


class UsrlocTests(SynchronousTestCase):
    """The module on a server with a fake clock."""

    def make(self, **parameters: Any) -> Usrloc:
        """A started module with a table."""
        self.rig = Rig()
        self.server: Any = FakeServer(self.rig.user)
        made = Usrloc(self.server, **parameters)
        self.table = made.table("location")
        self.successResultOf(ensureDeferred(made.start()))
        self.commands = Commands(self.rig.user.log)
        self.commands.add(made)
        return made

    def bind(self, user: str, contact: str, seconds: float = 3600, **fields: Any) -> Binding:
        """Bind one contact."""
        now = self.rig.user.clock()
        binding = Binding(f"{user}@x", contact, binding_key(Uri.parse(contact)), now + seconds, "call", 7, now)
        for name, value in fields.items():
            setattr(binding, name, value)
        self.table.insert(binding)
        return binding

    def call(self, command: str, *arguments: Any) -> Any:
        """The result of a command as JSON has it; an error as code and message."""
        deferred = ensureDeferred(self.commands.call(command, list(arguments)))
        caught: list[Any] = []
        deferred.addErrback(lambda failure: caught.append(failure.value))
        result = self.successResultOf(deferred)
        return (caught[0].code, caught[0].message) if caught else json.loads(encode(result))

    def statistics(self) -> dict[str, int]:
        """The numbers of the group."""
        return {each.name: each.read() for each in self.server.statistics.group("usrloc")}

    def test_dump(self) -> None:
        """The dump has every field that a contact fills, and no other."""
        made = self.make(nat_bflag="NAT", hash_size=4)
        self.rig.user.branch_flags.mask("OTHER")
        self.bind("a", "sip:a@h")
        self.bind(
            "b", "sip:b@h", 60, q=500, received="sip:5.5.5.5:5", path="<sip:p;lr>", flags=3, socket=self.rig.socket, attr="text",
            methods=5, user_agent="phone", instance="<urn:uuid:1>",
        )
        self.assertEqual(made.nat_flag, 1)
        first, second = (record["Contacts"][0] for record in self.call("ul_dump")["Domains"][0]["AORs"])
        self.assertEqual(
            first,
            {
                "Contact": "sip:a@h", "ContactID": "1", "Expires": 3600, "Q": "", "Callid": "call", "Cseq": 7,
                "User-agent": "n/a", "State": "CS_NEW", "Flags": 0, "Cflags": "", "Methods": 4294967295,
            },
        )
        self.assertEqual(
            second,
            {
                "Contact": "sip:b@h", "ContactID": "2", "Expires": 60, "Q": "0.5", "Callid": "call", "Cseq": 7,
                "User-agent": "phone", "Received": "sip:5.5.5.5:5", "Path": "<sip:p;lr>", "State": "CS_NEW", "Flags": 0,
                "Cflags": "NAT OTHER", "Socket": "udp:127.0.0.1:5060", "Methods": 5, "Attr": "text",
                "SIP_instance": "<urn:uuid:1>",
            },
        )
        brief = {"Domains": [{"name": "location", "hash_size": 16, "AORs": [{"AOR": "a@x"}, {"AOR": "b@x"}]}]}
        self.assertEqual(self.call("usrloc:dump", 1), brief)
        self.assertEqual(self.call("usrloc:dump", "brief"), brief)
        self.assertEqual(self.call("usrloc:dump", 0), self.call("usrloc:dump"))

    def test_expired_in_dump(self) -> None:
        """What has expired and is not yet removed is shown as that."""
        self.make()
        self.bind("a", "sip:a@h", 10)
        self.rig.clock.advance(11)
        self.assertEqual(self.call("ul_show_contact", "location", "a@x")["Contacts"][0]["Expires"], "expired")

    def test_show_and_remove(self) -> None:
        """One user is shown and forgotten, one contact too; refusals are OpenSIPS's."""
        self.make()
        self.bind("a", "sip:a@h")
        self.bind("a", "sip:b@h")
        shown = self.call("ul_show_contact", "location", "a@x")
        self.assertEqual((shown["AOR"], [each["Contact"] for each in shown["Contacts"]]), ("a@x", ["sip:a@h", "sip:b@h"]))
        for arguments, answer in [
            (("ul_show_contact", "location", "A@x"), (404, "AOR not found")),
            (("ul_show_contact", "location", "a"), (400, "Domain missing in AOR")),
            (("ul_show_contact", "elsewhere", "a"), (404, "Table not found")),
            (("ul_rm_contact", "location", "a@x", "sip:z@h"), (404, "Contact not found")),
            (("ul_rm_contact", "location", "z@x", "sip:a@h"), (404, "AOR not found")),
            (("ul_rm_contact", "location", "a@x", "sip:a@h"), "OK"),
            (("ul_rm", "location", "a@x"), "OK"),
            (("ul_rm", "location", "a@x"), (404, "AOR not found")),
            (("ul_rm", "elsewhere", "a@x"), (404, "Table not found")),
        ]:
            self.assertEqual(self.call(*arguments), answer, arguments)
        self.assertEqual(self.table.count, 0)

    def test_without_domain(self) -> None:
        """Without ``use_domain`` a domain is left out, if there is one."""
        self.make(use_domain=0)
        self.assertEqual(self.call("ul_add", "location", "u@x", "sip:a@h", 60, "1", 0, 0, 32767), "OK")
        for aor in ("u", "u@elsewhere"):
            self.assertEqual(self.call("ul_show_contact", "location", aor)["AOR"], "u")

    def test_add(self) -> None:
        """A contact is added, changed when it is there, and permanent with 0 seconds."""
        self.make()
        self.rig.user.branch_flags.mask("A")
        for arguments, answer in [
            (("u@x", "sip:a@h", 100, "0.5", 0, 0, 32767), "OK"),
            (("u@x", "SIP:a@h", 0, "1.0", 1, 1, 5), "OK"),
            (("u@x", "sip:b@h", 60, "0.7", 0, 0, 32767), "OK"),
            (("u@x", "<sip:a@h>", 60, "1", 0, 0, 1), (400, "Bad parameter value")),
            (("u@x", "mailto:a@h", 60, "1", 0, 0, 1), (400, "Bad parameter value")),
            (("u@x", "sip:a@h", 60, "2", 0, 0, 1), (400, "Bad parameter value")),
            (("u@x", "sip:a@h", 60, "", 0, 0, 1), (400, "Bad parameter value")),
            (("u@x", "sip:a@h", -1, "1", 0, 0, 1), (400, "Bad parameter value")),
            (("u", "sip:a@h", 60, "1", 0, 0, 1), (400, "Domain missing in AOR")),
        ]:
            self.assertEqual(self.call("ul_add", "location", *arguments), answer, arguments)
        self.assertEqual(self.call("ul_add", "elsewhere", "u@x", "sip:a@h", 60, "1", 0, 0, 1), (404, "Table not found"))
        first, second = self.call("ul_show_contact", "location", "u@x")["Contacts"]
        self.assertEqual(
            (first["Contact"], first["Expires"], first["Q"], first["Flags"], first["Cflags"], first["Methods"], first["Cseq"]),
            ("sip:a@h", "permanent", "1", 1, "A", 5, 2),
        )
        self.assertEqual((second["Contact"], second["Q"]), ("sip:b@h", "0.7"))
        self.table.capacity = 2
        self.assertEqual(self.call("ul_add", "location", "v@x", "sip:a@h", 60, "1", 0, 0, 1)[0], 503)

    def test_statistics(self) -> None:
        """Users and contacts are counted for each table, what expires can be reset."""
        made = self.make(timer_interval=10)
        made.table("other")
        self.bind("a", "sip:a@h", 25)
        self.bind("a", "sip:b@h", 5)
        self.bind("b", "sip:b@h", 5)
        numbers = self.statistics()
        self.assertEqual(
            {name: numbers[name] for name in ("registered_users", "location-users", "location-contacts", "other-users")},
            {"registered_users": 2, "location-users": 2, "location-contacts": 3, "other-users": 0},
        )
        self.rig.clock.advance(10)
        numbers = self.statistics()
        self.assertEqual((numbers["location-contacts"], numbers["location-expires"]), (1, 2))
        found = self.server.statistics.find("usrloc:location-expires")
        found.reset()
        self.rig.clock.advance(20)
        self.assertEqual((found.read(), self.statistics()["location-contacts"]), (1, 0))

    def test_sweep_in_turns(self) -> None:
        """Many contacts that expire together are removed in several turns, and the next sweep comes in time."""
        self.make(timer_interval=10)
        for index in range(2500):
            self.bind(f"u{index}", "sip:a@h", 5)
        self.bind("late", "sip:a@h", 15)
        self.rig.clock.advance(10)
        self.assertEqual(self.table.count, 1501)
        self.rig.clock.pump([0.01] * 3)
        self.assertEqual(self.table.count, 1)
        self.rig.clock.advance(10)
        self.assertEqual(self.table.count, 0)

    def test_stop(self) -> None:
        """Nothing is left in the reactor."""
        made = self.make(timer_interval=10)
        self.bind("a", "sip:a@h", 5)
        self.successResultOf(ensureDeferred(made.stop()))
        self.rig.clock.advance(60)
        self.assertEqual(self.table.count, 1)
        self.successResultOf(ensureDeferred(made.stop()))

    def test_parameters(self) -> None:
        """The order of contacts follows ``desc_time_order``; what cannot be is refused with what to do."""
        self.make(desc_time_order=1)
        self.assertTrue(self.table.by_time)
        for name, value, why in [
            ("working_mode_preset", "single-instance", "write one of single-instance-no-db, "),
            ("working_mode_preset", "full-sharing-cluster", "clusterer"),
            ("cluster_mode", "federation", "clusterer"),
            ("restart_persistency", "sql", "load-from-sql"),
            ("sql_write_mode", "through", "write-through"),
            ("pinging_mode", "none", "ownership"),
            ("contact_id_column", "a b", "name of a column"),
            ("max_contact_delete", 0, "1 or more"),
            ("matching_mode", 2, "write 0"),
            ("timer_interval", 0, "1 or more"),
            ("cseq_delay", -1, "0 or more"),
        ]:
            with self.assertRaises(ValueError) as caught:
                Usrloc(None, **{name: value})
            self.assertIn(why, str(caught.exception))
        self.assertEqual(Usrloc(None, working_mode_preset="single-instance-no-db").working_mode_preset, "single-instance-no-db")
        Usrloc(None, cluster_mode="none", restart_persistency="none", sql_write_mode="none")
        made = self.make()
        ignored: list[tuple[str, int | str]] = [
            ("pinging_mode", "cooperation"), ("location_cluster", 1)
        ]
        for name, number in ignored:
            self.rig.user.log_level = 3
            made.set_parameter(name, number)
            self.assertIn(f"usrloc.{name} has no effect", self.rig.log[-1][1])
        cluster = "cluster protocol"
        for name, why in [("ha_cluster", cluster), ("ha_shtag", cluster), ("latency_event_min_us", "later version")]:
            self.assertIn(why, Usrloc.later[name])
            self.assertNotIn(name, Usrloc.exports.parameters)
        for name in ("", "a b", "a:b"):
            self.assertRaises(ValueError, Usrloc(None).table, name)

    def test_without_database(self) -> None:
        """The commands of database and cluster answer as OpenSIPS without either."""
        self.make()
        for arguments, answer in [
            (("usrloc:flush",), "OK"),
            (("ul_flush",), "OK"),
            (("usrloc:sync", "location"), (200, "Contacts already synced")),
            (("ul_sync", "nowhere", "a@x"), (200, "Contacts already synced")),
            (("usrloc:cluster_sync",), (400, "Clustering not enabled")),
            (("ul_cluster_sync",), (400, "Clustering not enabled")),
        ]:
            self.assertEqual(self.call(*arguments), answer, arguments)
        self.assertEqual(self.call("usrloc:sync")[0], -32602)

    def hear(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """Subscribe to events; what they say comes into the list."""
        told: list[tuple[str, dict[str, Any]]] = []

        class Sink:
            """Keeps what it is told."""

            def send(self, event: str, params: Any) -> bool:
                told.append((event, params))
                return True

        bus = self.rig.user.events
        for name in names:
            event = bus.find(name)
            assert event is not None
            bus.join(event, "test:", Sink())
        return told

    def test_events(self) -> None:
        """Each change is told with all of the contact, in OpenSIPS's order; a user comes before and goes after its contacts."""
        self.make(timer_interval=10)
        kinds = ("AOR_INSERT", "AOR_DELETE", "CONTACT_INSERT", "CONTACT_UPDATE", "CONTACT_DELETE")
        told = self.hear(*(f"E_UL_{kind}" for kind in kinds))
        self.bind(
            "a", "sip:a@h", 60, q=500, received="sip:5.5.5.5:5", path="<sip:p;lr>", flags=3, socket=self.rig.socket, attr="text",
            user_agent="phone",
        )
        now = int(self.rig.user.wall_clock())
        self.assertEqual(
            list(told[1][1].items()),
            [
                ("domain", "location"), ("aor", "a@x"), ("uri", "sip:a@h"), ("received", "sip:5.5.5.5:5"),
                ("path", "<sip:p;lr>"), ("qval", 500), ("user_agent", "phone"), ("socket", "udp:127.0.0.1:5060"), ("bflags", 3),
                ("expires", now + 60), ("callid", "call"), ("cseq", 7), ("attr", "text"), ("latency", 0), ("shtag", ""),
            ],
        )
        self.bind("a", "sip:b@h", 5)
        self.assertEqual(told[2][1]["user_agent"], "n/a")
        self.call("ul_add", "location", "u@x", "sip:c@h", 0, "1", 0, 0, 1)
        self.assertEqual([told[4][1][name] for name in ("expires", "qval", "socket")], [0, 1000, ""])
        self.call("ul_add", "location", "u@x", "sip:c@h", 9, "1", 0, 0, 1)
        self.call("ul_rm", "location", "u@x")
        self.rig.clock.advance(10)
        self.call("ul_rm_contact", "location", "a@x", "sip:a@h")
        self.assertEqual(
            [(event[5:], *list(params.values())[1:4]) for event, params in told],
            [
                ("AOR_INSERT", "a@x"), ("CONTACT_INSERT", "a@x", "sip:a@h", "sip:5.5.5.5:5"),
                ("CONTACT_INSERT", "a@x", "sip:b@h", ""),
                ("AOR_INSERT", "u@x"), ("CONTACT_INSERT", "u@x", "sip:c@h", ""), ("CONTACT_UPDATE", "u@x", "sip:c@h", ""),
                ("CONTACT_DELETE", "u@x", "sip:c@h", ""), ("AOR_DELETE", "u@x"),
                ("CONTACT_DELETE", "a@x", "sip:b@h", ""),
                ("CONTACT_DELETE", "a@x", "sip:a@h", "sip:5.5.5.5:5"), ("AOR_DELETE", "a@x"),
            ],
        )

    def test_refresh(self) -> None:
        """Whoever is to be woken is told once, when the time has come, if the script wants it."""
        for wanted in (0, 1):
            made = self.make(contact_refresh_timer=wanted)
            self.assertEqual(self.table.wakes, bool(wanted))
            told = self.hear("E_UL_CONTACT_REFRESH")
            binding = self.bind("a", "sip:a@h;pn", received="sip:5.5.5.5:5", attr="text", socket=self.rig.socket)
            self.table.wake_at(binding, 10.0)
            pass_time(self.rig.clock, 9.5)
            self.assertEqual(told, [])
            pass_time(self.rig.clock, 30)
            self.assertEqual(len(told), wanted)
            self.successResultOf(ensureDeferred(made.stop()))
            self.table.wake_at(binding, 10.0)
            pass_time(self.rig.clock, 5)
            self.assertEqual(len(told), wanted)
        made.ask_to_wake(self.table, binding, "ini-INVITE", "call1")
        ends = int(self.rig.user.wall_clock() - self.rig.user.clock()) + 3600
        said: list[tuple[str, Any]] = [
            ("domain", "location"), ("aor", "a@x"), ("uri", "sip:a@h;pn"), ("received", "sip:5.5.5.5:5"), ("user_agent", "n/a"),
            ("socket", "udp:127.0.0.1:5060"), ("bflags", 0), ("expires", ends), ("callid", "call"), ("attr", "text"),
            ("shtag", ""),
        ]
        self.assertEqual(list(told[0][1].items()), [*said, ("reason", "reg-refresh"), ("req_callid", "")])
        self.assertEqual(list(told[1][1].items()), [*said, ("reason", "ini-INVITE"), ("req_callid", "call1")])

    def test_keys_shown(self) -> None:
        """``mi_dump_kv_store`` adds what scripts keep with a user, as JSON in a string; to users without any nothing."""
        for wanted in (0, 1):
            made = self.make(mi_dump_kv_store=wanted)
            self.bind("a", "sip:a@h")
            self.bind("b", "sip:b@h")
            for key, value in (("k", "v"), ("gone", "x"), ("gone", ""), ("é\"", "z")):
                self.assertTrue(made.ul_add_key(run_of(request()), "location", "a@x", key, value))
            first, second = self.call("ul_dump")["Domains"][0]["AORs"]
            self.assertNotIn("KV-Store", second)
            self.assertEqual(first.get("KV-Store"), '{"k":"v","é\\"":"z"}' if wanted else None)
            self.assertEqual("KV-Store" in self.call("ul_show_contact", "location", "a@x"), bool(wanted))

    def test_keys(self) -> None:
        """Values are kept with a user as long as there is a contact."""
        made = self.make()
        run = run_of(request())
        variable = FakeVariable()
        self.assertFalse(made.ul_add_key(run, "location", "a@x", "k", "v"))
        binding = self.bind("a", "sip:a@h")
        self.assertTrue(made.ul_add_key(run, "location", "a@x", "k", "v1"))
        self.assertTrue(made.ul_get_key(run, "location", "a@x", "k", variable))
        self.assertFalse(made.ul_get_key(run, "location", "a@x", "other", variable))
        self.assertFalse(made.ul_get_key(run, "location", "sip:a@x", "k", variable))
        self.assertTrue(made.ul_del_key(run, "location", "a@x", "k"))
        self.assertTrue(made.ul_del_key(run, "location", "a@x", "k"))
        self.assertFalse(made.ul_get_key(run, "location", "a@x", "k", variable))
        made.ul_add_key(run, "location", "a@x", "k", "v2")
        self.assertTrue(made.ul_add_key(run, "location", "a@x", "k", None))
        self.assertFalse(made.ul_get_key(run, "location", "a@x", "k", variable))
        self.assertEqual(variable.values, ["v1"])
        made.ul_add_key(run, "location", "a@x", "k", "v3")
        self.table.remove(binding)
        self.assertFalse(made.ul_get_key(run, "location", "a@x", "k", variable))

    def test_tables_of_a_script(self) -> None:
        """A table is made when a compiled script names it."""
        made = self.make()
        function = {each.name: each for each in Usrloc.declared(made).functions}["ul_add_key"]
        check = function.parameters[0].check
        assert check is not None
        check("aliases")
        self.assertIn("aliases-contacts", self.statistics())
        self.assertIsNone({each.name: each for each in Usrloc.declared().functions}["ul_add_key"].parameters[0].check)
