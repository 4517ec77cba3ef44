"""Servers that share dialogs by a real Redis, and sipp as the phones: when one is killed, another goes on with its calls."""

from __future__ import annotations

import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, Child, bound, free_port, twistd, wait_for
from tests.servers import redis as servers
from tests.sipp.harness import SIPP, LossyLink, Sipp

CALLS = 200 if os.environ.get("SIPGW_NIGHTLY") else 5

CONFIG = """
log_level = 2
xlog_level = 2
alias = udp:{host}:{other}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "cachedb_redis.so"
loadmodule "clusterer.so"
loadmodule "dialog.so"
loadmodule "acc.so"
loadmodule "topology_hiding.so"
loadmodule "mi_datagram.so"
modparam("acc", "extra_fields", "log: who")
modparam("cachedb_redis", "query_timeout", 1000)
modparam("clusterer", "cachedb_url", "{url}")
modparam("clusterer", "my_node_id", {node})
modparam("clusterer", "ping_interval", 1)
modparam("clusterer", "sharing_tag", "vip/1={tag}")
modparam("dialog", "dialog_replication_cluster", 1)
modparam("dialog", "cachedb_url", "{url}")
modparam("dialog", "profiles_no_value", "all; shared/s; both/b")
modparam("dialog", "profiles_with_value", "callee/s; far/b")
modparam("dialog", "options_ping_interval", 1)
modparam("mi_datagram", "socket_name", "udp:{host}:{door}")
socket = udp:{host}:{port}
route {{
	if (has_totag()) {{
		if (!topology_hiding_match()) {{
			loose_route();
		}}
		if ($DLG_status == NULL) {{
			xlog("unknown: $rm");
		}}
		t_relay();
		exit;
	}}
	if ($rm == "CANCEL") {{
		t_relay();
		exit;
	}}
	mf_process_maxfwd_header(70);
	create_dialog("bye-on-timeout{flags}");
	get_profile_size("callee", $rU, $var(size));
	if ($var(size) >= 2) {{
		send_reply(486, "Enough");
		exit;
	}}
	set_dlg_profile("all");
	set_dlg_profile("shared");
	set_dlg_profile("both");
	$var(callee) = $(rU{{s.select,0,-}});
	set_dlg_profile("far", $var(callee));
	if ($var(callee) == "limited") {{
		set_dlg_profile("callee", $rU);
	}}
	$dlg_val(who) = $fU;
	$acc_extra(who) = $fU;
	do_accounting("log", "cdr");
	$DLG_timeout = {lasts};
	dlg_on_hangup("over");
	$var(marked) = "{marked}";
	if ($var(marked) == "yes") {{
		set_dlg_sharing_tag("vip");
	}}
	$var(hidden) = "{hidden}";
	if ($var(hidden) == "yes") {{
		topology_hiding("C");
	}}
	record_route();
	$du = "sip:{host}:" + $(rU{{s.select,1,-}});
	t_relay();
}}
route[over] {{
	xlog("over $DLG_did: $DLG_end_reason of $dlg_val(who)\\n");
}}
"""


class Peer:
    """One of the servers."""

    def __init__(self, directory: Path, port: int, door: int, text: str) -> None:
        directory.mkdir(parents=True)
        self.port, self.door = port, door
        script = directory / "opensips.cfg"
        script.write_text(text)
        self.child: Child = twistd(["sipgw", "-c", str(script)], directory)

    def ready(self) -> Peer:
        """Itself, once it serves."""
        wait_for(lambda: "listens on" in self.child.text() and bound(self.port), "the server serves", self.child)
        return self

    def mi(self, command: str, **params: Any) -> Any:
        """What a management command answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.connect((HOST, self.door))
            asking.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": command, "params": params}).encode())
            answer = json.loads(asking.recv(1 << 20))
            return answer.get("result", answer.get("error"))

    def calls(self) -> dict[str, dict[str, Any]]:
        """The dialogs that it knows and that go on, by Call-ID, with their values."""
        found: dict[str, dict[str, Any]] = {}
        begin = 0
        while page := self.mi("dialog:list_ctx", index=begin, counter=10)["Dialogs"]:  # a datagram holds no more
            for call in page:
                values = call["context"].get("values", [])
                call["context"]["values"] = [value for value in values if "who" in value]  # others are modules' own
            found |= {call["callid"]: call for call in page if call["state"] in (3, 4)}
            begin += len(page)
        return found

    def count(self, name: str) -> int:
        """A statistic of dialog."""
        return int(self.mi("get_statistics", statistics=[name])[f"dialog:{name}"])

    def logged(self, what: str) -> list[str]:
        """What it has logged after ``what``."""
        return [line.partition(what)[2] for line in self.child.text().splitlines() if what in line]

    def over(self) -> list[str]:
        """How the calls ended whose end it has seen to."""
        return [text.partition(": ")[2] for text in self.logged("over ")]

    def accounted(self) -> list[str]:
        """Of which calls it has written a CDR: their users."""
        return [line.partition("who=")[2].partition(";")[0] for line in self.logged("ACC: call ended")]

    def size(self, profile: str, **value: str) -> int:
        """How many calls are in a profile."""
        return int(self.mi("dialog:profile_get_size", profile=profile, **value)["Profile"]["count"])


class SharingTests(SynchronousTestCase):
    """Two servers and a Redis."""

    def setUp(self) -> None:
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)
        self.directory = Path(self.mktemp()).absolute()
        self.ports = free_port(), free_port()
        self.children = 0

    def peer(
        self, node: int, *, tag: str = "", lasts: int = 600, marked: str = "no", flags: str = "", hidden: str = "no",
    ) -> Peer:
        """Server ``node``: 1 or 2."""
        self.children += 1
        port, other = self.ports[node - 1], self.ports[2 - node]
        door = free_port()
        made = Peer(self.directory / f"{self.children}-server", port, door, CONFIG.format(
            url=self.redis.url, host=HOST, port=port, other=other, door=door, node=node, lasts=lasts, marked=marked, flags=flags,
            hidden=hidden, tag=tag or ("active" if node == 1 else "backup"),
        ))
        self.addCleanup(made.child.kill)
        return made

    def peers(self, **options: Any) -> tuple[Peer, Peer]:
        """Both, who see each other."""
        one, two = self.peer(1, **options), self.peer(2, **options)
        one.ready()
        two.ready()
        for each in (one, two):
            wait_for(partial(self.sees, each), "the servers see each other", each.child)
        return one, two

    def sees(self, peer: Peer) -> bool:
        """Whether it sees the other."""
        return [node["link_state"] for node in peer.mi("clusterer:list")["Clusters"][0]["Nodes"]] == ["Up"]

    def sipp(self, scenario: str, **options: Any) -> Sipp:
        """Start sipp."""
        self.children += 1
        values = {"reply_route": "false", "left": "", "branch_header": "CSeq:", "ringing_optional": "true"}
        child = Sipp(self.directory / f"{self.children}-{scenario}", scenario, **{**values, **options})
        self.addCleanup(child.kill)
        return child

    def link(self, peer: Peer) -> LossyLink:
        """The way to the servers: first to ``peer``."""
        link = LossyLink(peer.port, lambda data: False)
        self.addCleanup(link.close)
        return link

    def both_know(self, one: Peer, two: Peer, count: int) -> dict[str, dict[str, Any]]:
        """Wait until both know so many calls, and the same of them; those of the second."""

        def known() -> bool:
            left, right = one.calls(), two.calls()
            return len(left) == len(right) == count and all(
                call["state"] == 4 and right.get(name, {}).get("context") == call["context"] for name, call in left.items()
            )

        wait_for(known, "both know the same calls", one.child)
        return two.calls()

    @staticmethod
    def none_at(peer: Peer) -> bool:
        """Whether a server has no call, and counts none."""
        profiles = ("all", "both", "far", "shared", "callee")
        return not peer.calls() and not peer.count("active_dialogs") and not any(peer.size(name) for name in profiles)

    def none_left(self, *peers: Peer) -> None:
        """Wait until nobody has a call or counts one, and no key is left but those of the cluster."""
        for each in peers:
            wait_for(partial(self.none_at, each), "no call is left, and none is counted", each.child)
            self.assertNotIn("bug", each.child.text())
            self.assertNotIn("Traceback", each.child.text())
        keys = self.redis.ask("KEYS", "sipgw:{cluster:1}:dialog:*")
        self.assertEqual(keys, b"*0\r\n")

    def test_killed(self) -> None:
        """A server is killed in mid-call: the BYEs go through the other one, which counted the calls all the time, ends each
        once, and writes its CDR."""
        self.killed()

    def test_killed_and_hidden(self) -> None:
        """The same with calls whose sides are hidden from each other."""
        if CALLS == 5:
            raise SkipTest("a test of the night")
        self.killed(callee="callee-hidden-from", hidden="yes")

    def killed(self, callee: str = "callee-talks", hidden: str = "no") -> None:
        """Calls of which the server is killed."""
        one, two = self.peers(hidden=hidden)
        link = self.link(one)
        seen = {"server": str(one.port), "contact": f"{HOST}:{one.port};did=", "call_id": "DLGCH_"} if hidden == "yes" else {}
        phone = self.sipp(callee, calls=CALLS, **seen)
        far = self.link(one)  # sipp answers to where the INVITE came from, whoever asks later
        far.server = (HOST, phone.port)
        talk = str(2500 + 40 * (CALLS - 5))
        caller = self.sipp("caller-talks", calls=CALLS, remote=link.port, callee=f"bob-{far.port}", talk=talk,
                           options=["-r", "50", "-l", str(CALLS)])
        shown = self.both_know(one, two, CALLS)
        self.assertEqual({call["context"]["values"][0]["who"] for call in shown.values()}, {"alice"})
        self.assertEqual((two.count("create_recv"), one.count("create_sent")), (CALLS, CALLS))
        self.assertEqual((two.size("all"), two.size("both"), two.size("shared"), two.size("far", value="bob")), (CALLS,) * 4)
        one.child.kill()
        link.server = far.client = (HOST, two.port)
        caller.finish()
        phone.finish()
        self.none_left(two)
        self.assertEqual(two.over(), ["Downstream BYE of alice"] * CALLS)
        self.assertEqual((one.accounted(), two.accounted()), ([], ["alice"] * CALLS))
        self.assertNotIn("unknown", two.child.text())
        self.assertEqual(two.count("delete_sent"), CALLS)

    def talk(self, peer: Peer, calls: int, user: str = "bob", scenario: str = "callee-talks") -> tuple[Sipp, Sipp]:
        """Calls through ``peer`` that somebody else ends: callee and caller."""
        callee = self.sipp(scenario, calls=calls)
        caller = self.sipp("caller-hears-bye", calls=calls, remote=peer.port, callee=f"{user}-{callee.port}",
                           options=["-r", "50", "-l", str(CALLS)])
        return callee, caller

    def finish(self, *phones: Sipp) -> None:
        """Wait until all of them have seen their calls end."""
        for phone in phones:
            phone.finish()

    def test_time_over(self) -> None:
        """The calls of a server that is killed end when their time is over, once, by BYEs of the other one to both sides; those
        of servers that live are ended by where they began, with a tag by who has that."""
        one, two = self.peers(lasts=2 if CALLS == 5 else 20)
        phones = [*self.talk(one, CALLS), *self.talk(two, 2)]
        self.both_know(one, two, CALLS + 2)
        self.finish(*phones)
        self.none_left(one, two)
        self.assertEqual((one.over(), two.over()), (["Lifetime Timeout of alice"] * CALLS, ["Lifetime Timeout of alice"] * 2))
        self.assertEqual((len(one.accounted()), len(two.accounted())), (CALLS, 2))
        phones = [*self.talk(one, CALLS)]
        self.both_know(one, two, CALLS)
        one.child.kill()
        self.finish(*phones)
        self.none_left(two)
        self.assertEqual(two.over(), ["Lifetime Timeout of alice"] * (CALLS + 2))
        self.assertEqual(len(two.accounted()), CALLS + 2)
        self.assertEqual(two.count("expired_dialogs"), CALLS + 2)

    def test_tags(self) -> None:
        """Whoever has the tag of a call ends it in time, wherever it began, and pings it; a tag is moved by a command."""
        one, two = self.peers(lasts=3, marked="yes", flags=",options-ping-callee")
        self.assertEqual(one.mi("clusterer:list_shtags"), [{"Tag": "vip", "Cluster": 1, "State": "active"}])
        phones = self.talk(one, 2, scenario="callee-is-pinged")
        self.both_know(one, two, 2)
        self.assertEqual(two.mi("clusterer:shtag_set_active", tag="vip/1"), "OK")
        wait_for(lambda: one.mi("clusterer:list_shtags")[0]["State"] == "backup", "the tag has moved", one.child)
        self.finish(*phones)
        self.none_left(one, two)
        self.assertEqual((one.over(), two.over()), ([], ["Lifetime Timeout of alice"] * 2))

    def test_in_turn(self) -> None:
        """Whatever happens to Redis and to the servers, both know the same."""
        one, two = self.peers()
        self.ended_elsewhere(one, two)
        self.limits(one, two)
        self.without_redis(one, two)
        self.begun_again(one, two)

    def ended_elsewhere(self, one: Peer, two: Peer) -> None:
        """A call is ended by a command at another server than where it began; values and profiles are set there too."""
        phones = self.talk(one, 1)
        (name,) = self.both_know(one, two, 1)
        self.assertEqual(two.mi("dialog:push_var", dlg_val_name="who", dlg_val_value="carol", DID=[name]), "OK")
        self.assertEqual(two.mi("dialog:unset_profile", dlg_id=name, profile="both"), "OK")
        self.both_know(one, two, 1)
        wait_for(lambda: one.size("both") == 0, "the profile is left everywhere", one.child)
        self.assertEqual(one.mi("dialog:cluster_sync"), "OK")
        self.assertEqual(one.calls()[name]["context"]["values"], [{"who": "carol"}])
        self.assertEqual(two.mi("dialog:end_dlg", dialog_id=name), "OK")
        self.finish(*phones)
        self.none_left(one, two)
        self.assertEqual((one.over(), two.over()), ([], ["MI Termination of carol"]))

    def limits(self, one: Peer, two: Peer) -> None:
        """Profiles that count in Redis limit calls over both servers."""
        callee = self.sipp("callee-talks", calls=2)
        user = f"limited-{callee.port}"
        callers = [
            self.sipp("caller-hears-bye", remote=peer.port, callee=user, options=["-cid_str", f"{peer.port}-%u-%p@%s"])
            for peer in (one, two)
        ]
        self.both_know(one, two, 2)
        self.assertEqual((one.size("callee", value=user), two.size("callee", value=user), one.size("callee")), (2, 2, 2))
        for peer in (one, two):
            self.sipp("caller-is-refused", remote=peer.port, callee=user, status="486").finish()
        for name in two.calls():
            self.assertEqual(two.mi("dialog:end_dlg", dialog_id=name), "OK")
        self.finish(callee, *callers)
        self.none_left(one, two)

    def without_redis(self, one: Peer, two: Peer) -> None:
        """Redis is killed: calls begin, go on and end; back again, and empty, it learns what is there, and each server what the
        other has done meanwhile. A call that one has ended while the other did not hear of it is not brought back."""
        before = self.talk(one, 2)
        self.both_know(one, two, 2)
        self.redis.kill()
        meanwhile = self.talk(one, 1)
        wait_for(lambda: [call["state"] for call in one.calls().values()] == [4] * 3, "a call is answered", one.child)
        ended = next(iter(two.calls()))
        self.assertEqual(two.mi("dialog:end_dlg", dialog_id=ended), "OK")
        wait_for(lambda: len(two.calls()) == 1, "the call has ended", two.child)
        self.redis.start()
        self.assertNotIn(ended, self.both_know(one, two, 2))
        wait_for(lambda: one.size("shared") == two.size("shared") == 2, "what changed is counted", one.child)
        for name in one.calls():
            self.assertEqual(two.mi("dialog:end_dlg", dialog_id=name), "OK")
        self.finish(*before, *meanwhile)
        self.none_left(one, two)

    def begun_again(self, one: Peer, two: Peer) -> None:
        """A server that is killed and begun again reads the calls that go on; what ended meanwhile it does not know."""
        phones = self.talk(one, 3)
        names = [*self.both_know(one, two, 3)]
        one.child.kill()
        self.assertEqual(two.mi("dialog:end_dlg", dialog_id=names[0]), "OK")
        again = self.peer(1).ready()
        self.assertEqual({*self.both_know(again, two, 2)}, {*names[1:]})
        for name in names[1:]:
            self.assertEqual(again.mi("dialog:end_dlg", dialog_id=name), "OK")
        self.finish(*phones)
        self.none_left(again, two)
        self.assertEqual(again.over(), ["MI Termination of alice"] * 2)
