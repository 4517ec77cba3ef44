"""Tests of sipgw.transport.resolver on a clock: cache, sharing, servers, search list, globals; name servers are a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.target import Naptr, Question, Record, Srv, Target
from sipgw.testing import FakeServer, finished
from sipgw.transport import resolver as subject
from sipgw.transport.nameserver import NoAnswer
from sipgw.transport.resolver import AnswerCache, Resolver
from tests.doubles import FakeSocket
from tests.ears import Ears

ONE, TWO = ("192.0.2.53", 53), ("192.0.2.54", 53)
A, AAAA, SRV, NAPTR = "A", "AAAA", "SRV", "NAPTR"

ZONE: dict[tuple[str, str], list[Any]] = {
    (A, "host.org"): ["192.0.2.1", "192.0.2.2"],
    (AAAA, "host.org"): ["2001:db8::1"],
    (NAPTR, "sip.org"): [Naptr(1, 1, "s", "SIP+D2U", "_sip._udp.sip.org")],
    (SRV, "_sip._udp.sip.org"): [Srv(1, 1, 5070, "host.org"), Srv(2, 1, 5080, "other.org")],
    (A, "other.org"): ["192.0.2.3"],
    (A, "short.lan"): ["192.0.2.4"],
    (A, "here.org"): ["127.0.0.1", "192.0.2.5", "127.8.8.8"],
    (AAAA, "here.org"): ["::1", "::ffff:127.0.0.1", "2001:db8::5"],
}


class FakeAnswer:
    """What an inquiry brings."""

    def __init__(self, code: int, records: list[Record], ttl: int | None) -> None:
        self.code, self.records, self.ttl = code, records, ttl


class FakeInquiry:
    """An inquiry that waits until a test answers it; all are in ``made``, one that is ended in ``ended`` too."""

    made: list[FakeInquiry] = []

    def __init__(self, reactor: Clock, server: tuple[str, int], kind: str, name: str, seconds: float) -> None:
        self.server, self.kind, self.name, self.seconds = server, kind, name, seconds
        self.answer: Deferred[FakeAnswer] = Deferred()
        self._timer: Any = reactor.callLater(seconds, self.fail)
        FakeInquiry.made.append(self)

    def say(self, ttl: int | None = 60, code: int | None = None) -> None:
        """Answer as the zone says."""
        self._timer.cancel()
        data = ZONE.get((self.kind, self.name), [])
        known = any(name == self.name for _, name in ZONE)
        records = [Record(self.name, self.kind, each) for each in data]
        self.answer.callback(FakeAnswer((0 if known else 3) if code is None else code, [] if code else records, ttl))

    def fail(self) -> None:
        """Have no answer."""
        if self._timer.active():
            self._timer.cancel()
        self.answer.errback(NoAnswer("silence"))

    cancel = fail


class Resolving(SynchronousTestCase):
    """A resolver with two name servers."""

    def setUp(self) -> None:
        FakeInquiry.made = []
        self.patch(subject, "Inquiry", FakeInquiry)
        self.server: Any = FakeServer()
        self.user = self.server.user
        self.user.add_socket(FakeSocket(host="192.0.2.100"))
        self.clock: Clock = self.server.reactor
        self.resolver = self.make()

    def make(self, *, conf: str = "", hosts: str = "", **options: Any) -> Resolver:
        """A resolver that reads these files."""
        self.server.statistics._groups.pop("dns", None)
        paths = [Path(self.mktemp()) for _ in range(2)]
        paths[0].write_text(conf)
        paths[1].write_text(hosts)
        options.setdefault("servers", [ONE, TWO])
        return Resolver(self.user, self.clock, resolv_conf=str(paths[0]), hosts=str(paths[1]), random=lambda: 0.5, **options)

    def start(self, host: str, port: int | None = None, transport: str | None = None, secure: bool = False) -> list[Any]:
        """Begin a resolution; the list has the result when there is one."""
        done: list[Any] = []
        Deferred.fromCoroutine(self.resolver.resolve(host, port, transport, secure)).addCallback(done.append)
        return done

    def say(self, ttl: int | None = 60) -> list[str]:
        """Answer whatever is asked until nothing is asked any more; what that was."""
        asked = []
        while FakeInquiry.made:
            inquiry = FakeInquiry.made.pop(0)
            asked.append(f"{inquiry.kind} {inquiry.name}")
            inquiry.say(ttl)
        return asked

    def open(self) -> list[str]:
        """What is being asked, and whom."""
        return [f"{each.kind} {each.name} {each.server[0][-2:]}" for each in FakeInquiry.made]


UDP1 = [Target("udp", "192.0.2.1", 5060), Target("udp", "192.0.2.2", 5060)]


class ResolveTests(Resolving):
    """Whole resolutions."""

    def test_service(self) -> None:
        """NAPTR, SRV and addresses are asked one after another; the second time nothing is asked, and nobody waits."""
        done = self.start("sip.org")
        self.assertEqual(
            self.say(), ["NAPTR sip.org", "SRV _sip._udp.sip.org", "A host.org", "A other.org"]
        )
        found = [Target("udp", "192.0.2.1", 5070), Target("udp", "192.0.2.2", 5070), Target("udp", "192.0.2.3", 5080)]
        self.assertEqual(done, [found])
        self.assertEqual(finished(self.resolver.resolve("sip.org", None, None)), found)
        self.assertEqual(self.resolver.total_queries.read(), 4)

    def test_other_service(self) -> None:
        """Another protocol's service: its SRV records, else the addresses of the name, of both families, with its port."""
        done: list[Any] = []
        Deferred.fromCoroutine(self.resolver.service("_xmpp-server._tcp", "host.org", 5269)).addCallback(done.append)
        asked = self.say()
        self.assertEqual(asked, ["SRV _xmpp-server._tcp.host.org", "A host.org", "AAAA host.org"])
        self.assertEqual([(each.transport, each.port) for each in done[0]], [("tcp", 5269)] * len(done[0]))
        self.assertEqual(done[0][0].host, "192.0.2.1")

    def test_port(self) -> None:
        """A port means addresses only."""
        done = self.start("host.org", 5090)
        self.assertEqual((self.say(), done), (["A host.org"], [[target._replace(port=5090) for target in UDP1]]))

    def test_nothing(self) -> None:
        """A name that does not exist has no targets, and that is remembered."""
        done = self.start("no.org")
        self.assertEqual((self.say(), done), (["NAPTR no.org", "SRV _sip._udp.no.org", "A no.org"], [[]]))
        self.assertEqual(finished(self.resolver.resolve("no.org", None, None)), [])

    def test_shared(self) -> None:
        """Two that want to know the same wait for one answer."""
        both = [self.start("host.org", 5060), self.start("HOST.org.", 5060)]
        self.assertEqual(self.open(), ["A host.org 53"])
        self.say()
        self.assertEqual(both, [[UDP1], [UDP1]])

    def test_families(self) -> None:
        """AAAA is asked with dns_try_ipv6 where a socket has IPv6, and always where none has IPv4."""
        six = FakeSocket(host="2001:db8::100")
        for sockets, wanted, expected in (
            ([FakeSocket()], 1, ["A host.org"]),
            ([FakeSocket(), six], 0, ["A host.org"]),
            ([FakeSocket(), six], 1, ["A host.org", "AAAA host.org"]),
            ([six], 0, ["AAAA host.org"]),
        ):
            self.resolver = self.make()
            self.user.sockets[:] = sockets
            self.user.globals["dns_try_ipv6"] = wanted
            self.start("host.org", 5060)
            self.assertEqual(self.say(), expected)

    def test_transports(self) -> None:
        """SRV is asked for the transports that we have, UDP first."""
        self.user.sockets[:] = [FakeSocket(transport="tls"), FakeSocket(transport="tcp"), FakeSocket()]
        self.start("no.org")
        self.assertEqual(
            self.say(),
            ["NAPTR no.org", "SRV _sip._udp.no.org", "SRV _sip._tcp.no.org", "SRV _sips._tcp.no.org", "A no.org"],
        )
        self.assertEqual(self.start("no.org", 5060, "ws"), [[]])

    def test_no_naptr(self) -> None:
        """Without dns_try_naptr there is no question for NAPTR."""
        self.user.globals["dns_try_naptr"] = 0
        self.start("sip.org")
        self.assertEqual(self.say()[0], "SRV _sip._udp.sip.org")

    def test_address(self) -> None:
        """One address of a name, of the wanted family, or IPv4 before IPv6."""
        for name, wanted, asked, found in (
            ("host.org", "4", ["A host.org"], "192.0.2.1"),
            ("host.org", "6", ["AAAA host.org"], "2001:db8::1"),
            ("host.org", "", [], "192.0.2.1"),
            ("sip.org", "", ["A sip.org", "AAAA sip.org"], None),
            ("192.0.2.9", "", [], "192.0.2.9"),
        ):
            done: list[Any] = []
            Deferred.fromCoroutine(self.resolver.resolve_host(name, wanted)).addCallback(done.append)
            self.assertEqual((self.say(), done), (asked, [found]))

    def test_loopback(self) -> None:
        """A name server may say that a name is on loopback only if we are there ourselves; /etc/hosts may always."""
        self.user.sockets.append(FakeSocket(host="2001:db8::100"))
        self.user.globals["dns_try_ipv6"] = 1
        self.resolver = self.make(hosts="127.0.0.1 mine.org")
        done = self.start("here.org", 5060)
        self.say()
        self.assertEqual(done, [[Target("udp", "192.0.2.5", 5060), Target("udp", "2001:db8::5", 5060)]])
        self.assertEqual(self.start("mine.org", 5060), [[Target("udp", "127.0.0.1", 5060)]])
        self.user.add_socket(FakeSocket(host="127.0.0.1"))
        self.clock.advance(100)
        done = self.start("here.org", 5060)
        self.say()
        self.assertEqual([target.host for target in done[0]][:2], ["127.0.0.1", "192.0.2.5"])

    def test_odd_names(self) -> None:
        """What can be no name is not asked for."""
        long = ("x" * 64 + ".org", "a." * 130 + "org")
        for name in ("", ".", "a..b", "b\u00fccher.de", "1.2.3.400", "abc.invalid", "_sip", *long):
            self.assertEqual(self.start(name, 5060), [[]], name)
        self.assertEqual(self.open(), [])


class FileTests(Resolving):
    """What /etc/hosts and /etc/resolv.conf say."""

    def test_hosts(self) -> None:
        """A name in /etc/hosts asks nobody: no NAPTR, no SRV, no other family."""
        self.resolver = self.make(hosts="192.0.2.77 host.org pc\n")
        for name in ("host.org", "PC"):
            self.assertEqual(self.start(name), [[Target("udp", "192.0.2.77", 5060)]])
        self.user.sockets[:] = [FakeSocket(host="2001:db8::9")]
        self.assertEqual(self.start("pc"), [[]])

    def test_hosts_behind_srv(self) -> None:
        """The target of an SRV record may be in /etc/hosts."""
        self.resolver = self.make(hosts="192.0.2.77 host.org\n192.0.2.78 other.org\n")
        done = self.start("sip.org")
        self.assertEqual(self.say(), ["NAPTR sip.org", "SRV _sip._udp.sip.org"])
        self.assertEqual(done, [[Target("udp", "192.0.2.77", 5070), Target("udp", "192.0.2.78", 5080)]])

    def test_search_list(self) -> None:
        """A short name is looked up along the search list, then as it is; its records count as its own."""
        self.resolver = self.make(conf="search wan lan\n")
        done = self.start("short", 5060)
        self.assertEqual((self.say(), done), (["A short.wan", "A short.lan"], [[Target("udp", "192.0.2.4", 5060)]]))
        self.assertEqual(self.start("short", 5060), done)
        self.start("short", None, "udp")
        self.assertEqual(self.say(), ["SRV _sip._udp.short.wan", "SRV _sip._udp.short.lan", "SRV _sip._udp.short"])
        self.start("host.org", 5060)
        self.assertEqual(self.say(), ["A host.org"])

    def test_no_search_list(self) -> None:
        """dns_use_search_list = no switches that off."""
        self.resolver = self.make(conf="search lan\n")
        self.user.globals["dns_use_search_list"] = 0
        self.start("short", 5060)
        self.assertEqual(self.say(), ["A short"])

    def test_servers(self) -> None:
        """Servers and times are those of resolv.conf, unless the script says otherwise."""
        conf = "nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions timeout:3 attempts:1\n"
        for settings, expected in (
            ({}, [(ONE, 3), (TWO, 3)]),
            ({"dns_retr_time": 1, "dns_retr_no": 2}, [(ONE, 1), (TWO, 1), (ONE, 1), (TWO, 1)]),
            ({"dns_servers_no": 1, "dns_retr_no": 3}, [(ONE, 3)] * 3),
        ):
            self.resolver = self.make(conf=conf, servers=None)
            self.user.globals.clear()
            self.user.globals.update(settings)
            FakeInquiry.made = []
            done = self.start("host.org", 5060)
            while not done:
                self.clock.advance(FakeInquiry.made[-1].seconds)
            self.assertEqual([(each.server, each.seconds) for each in FakeInquiry.made], expected)


class ServerTests(Resolving):
    """Name servers that fail."""

    def test_dead_server(self) -> None:
        """After two seconds the next server is asked; the silent one is asked last for a while."""
        done = self.start("host.org", 5060)
        self.clock.advance(1.9)
        self.assertEqual(self.open(), ["A host.org 53"])
        self.clock.advance(0.1)
        self.assertEqual(self.open(), ["A host.org 53", "A host.org 54"])
        FakeInquiry.made.pop().say()
        self.assertEqual(done, [UDP1])
        FakeInquiry.made.clear()
        self.start("other.org", 5060)
        self.assertEqual(self.open(), ["A other.org 54"])
        self.say()
        self.clock.advance(subject.SHUNNED)
        self.start("no.org", 5060)
        self.assertEqual(self.open(), ["A no.org 53"])
        self.assertIn("silence (asked for A of host.org)", self.server.lines[0][1])

    def test_unwilling_server(self) -> None:
        """A server that answers SERVFAIL or REFUSED is passed over for this question."""
        done = self.start("host.org", 5060)
        FakeInquiry.made.pop().say(code=2)
        self.assertEqual(self.open(), ["A host.org 54"])
        FakeInquiry.made.pop().say(code=5)
        self.assertEqual(self.open(), ["A host.org 53"])
        FakeInquiry.made.pop().say()
        self.assertEqual(done, [UDP1])

    def test_all_silent(self) -> None:
        """With no server at all a resolution ends in time, and is not begun anew for some seconds."""
        self.user.globals["dns_retr_no"] = 1
        done = self.start("sip.org")
        for _ in range(10):
            self.clock.advance(1)
        self.assertEqual(done, [[]])
        asked = len(FakeInquiry.made)
        self.assertEqual(asked, 4)  # NAPTR and SRV with two servers each; then patience is at an end
        self.start("sip.org")
        self.assertEqual([each.kind for each in FakeInquiry.made[asked:]], ["NAPTR"])

    def test_question_time(self) -> None:
        """One question ends after ten seconds, whatever the script asks for."""
        self.user.globals.update(dns_retr_time=4, dns_retr_no=9)
        done = self.start("host.org", 5060)
        for _ in range(9):
            self.clock.advance(1)
        self.assertEqual(([each.seconds for each in FakeInquiry.made], done), ([4, 4, 2], []))
        self.clock.advance(1)
        self.assertEqual(done, [[]])

    def test_too_many(self) -> None:
        """Beyond ``MAX_OPEN`` questions at a time others are taken to have no answer, and that is not remembered."""
        self.patch(subject, "MAX_OPEN", 2)
        first = [self.start(f"a{n}.org", 5060) for n in range(2)]
        self.assertEqual(self.start("host.org", 5060), [[]])
        self.say()
        self.assertEqual(first, [[[]], [[]]])
        done = self.start("host.org", 5060)
        self.say()
        self.assertEqual(done, [UDP1])

    def test_close(self) -> None:
        """When the server stops, whoever waits gets no answer and nothing is asked any more."""
        waiting = [self.start("host.org", 5060), self.start("sip.org")]
        self.resolver.close()
        self.assertEqual((waiting, self.start("other.org", 5060)), ([[[]], [[]]], [[]]))
        self.assertEqual((self.clock.getDelayedCalls(), len(FakeInquiry.made)), ([], 2))

    def test_slow(self) -> None:
        """A question longer than execdnsthreshold microseconds is counted, logged and told."""
        ears = Ears()
        self.user.events.join(self.user.events.publish("E_CORE_THRESHOLD"), "ear:a", finished(ears.open("a")))
        self.user.globals["execdnsthreshold"] = 500_000
        for seconds, expected in ((0.4, 0), (0.6, 1)):
            self.clock.advance(10)
            self.start("other.org", 5060)
            self.clock.advance(seconds)
            self.say(5)
            self.assertEqual(self.resolver.slow_queries.read(), expected)
        self.assertIn("looking up A of other.org took 600000 us", self.server.lines[-1][1])
        self.assertEqual(ears.told, [("a", "E_CORE_THRESHOLD", {"source": "dns", "time": 600000, "extra": "other.org"})])

    def test_bug(self) -> None:
        """What breaks in here is logged and is no answer."""

        def broken(*arguments: Any) -> Any:
            raise ZeroDivisionError("oops")

        self.patch(subject, "Inquiry", broken)
        self.assertEqual(self.start("host.org", 5060), [[]])
        self.assertIn("ZeroDivisionError", self.server.lines[-1][1])


class CacheTests(SynchronousTestCase):
    """How long and how many answers are kept."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = AnswerCache(self.clock.seconds, size=3)

    def test_bounds(self) -> None:
        """An answer is kept as long as it says, but 5 seconds at least and an hour at most; nothing, five minutes at most."""
        some = [Record("a.org", A, "192.0.2.1")]
        for records, ttl, kept in (
            (some, 60, 60),
            (some, 0, 5),
            (some, 2**31 - 1, 3600),
            (some, None, 60),
            ([], 60, 60),
            ([], 0, 5),
            ([], 86400, 300),
            ([], None, 60),
        ):
            question = Question(A, "a.org")
            self.cache.put(question, records, ttl)
            self.clock.advance(kept - 0.001)
            self.assertEqual(self.cache.get(question), records)
            self.clock.advance(0.001)
            self.assertIsNone(self.cache.get(question))
        self.assertEqual(len(self.cache), 0)

    def test_size(self) -> None:
        """When it is full, the answer goes that was not asked for longest."""
        questions = [Question(A, f"{n}.org") for n in range(4)]
        for question in questions[:3]:
            self.cache.put(question, [], 60)
        self.cache.get(questions[0])
        self.cache.put(questions[3], [], 60)
        self.assertEqual([self.cache.get(each) is not None for each in questions], [True, False, True, True])

    def test_failed(self) -> None:
        """A failure is remembered for its own time."""
        self.cache.keep(Question(A, "a.org"), (), 2)
        self.clock.advance(1.9)
        self.assertEqual(self.cache.get(Question(A, "a.org")), ())
        self.clock.advance(0.1)
        self.assertIsNone(self.cache.get(Question(A, "a.org")))
