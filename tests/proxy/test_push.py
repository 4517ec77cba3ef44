"""Tests of sipgw.proxy.push, and of REGISTERs with its parameters; most answers are those of OpenSIPS 4.1."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.location import Binding
from sipgw.proxy.push import NOTHING, PN_CONTACT, Kind, Push, Waiting, purr_in, served, sleeps
from sipgw.proxy.register import Rejected
from sipgw.proxy.sealed import Seal
from sipgw.sip.uri import Uri
from tests.doubles import request
from tests.proxy.test_registrar import Phone, contacts, header

PUSH = Push(("apns", "fcm", "webpush"))
APNS = "pn-provider=apns;pn-prid=00fc;pn-param=DEF"
UNSUPPORTED = "Push Notification Service Not Supported"


def capabilities(answer: Any) -> list[str]:
    """The Feature-Caps of an answer, without the PURR itself."""
    lines = [line.partition(": ") for line in answer.headers.split("\r\n")]
    return [re.sub(r'purr="[^"]+"', "purr", value).removeprefix("*;") for name, _, value in lines if name == "Feature-Caps"]


def flags(phone: Phone, aor: str = "bob@example.org") -> list[int]:
    """The marks of a user's contacts."""
    return [binding.marks for binding in phone.table.bindings(aor)]


class ReadTests(SynchronousTestCase):
    """What a contact asks for."""

    def test_read(self) -> None:
        """Nothing, a query, a service, or one that we do not have."""
        for params, kind, provider in [
            ("", Kind.NOTHING, ""),
            ("pn-prid=1;pn-param=2", Kind.NOTHING, ""),
            ("x=pn-provider", Kind.NOTHING, ""),
            ("pn-provider", Kind.ASKS, ""),
            ("pn-provider=apns", Kind.ASKS, "apns"),
            (APNS, Kind.SLEEPS, "apns"),
            ("PN-Provider=fcm;PN-PRID=1;pn-param", Kind.SLEEPS, "fcm"),
            ("pn-provider=foo", None, ""),
            ("pn-provider=APNS;pn-prid=1;pn-param=2", None, ""),
            ("pn-provider=apns;pn-prid=1", None, ""),
            ("pn-provider=apns;pn-param=1", None, ""),
        ]:
            text = f"sip:bob@h;{params}".rstrip(";")
            if kind is None:
                refusal = self.assertRaises(Rejected, PUSH.read, request("REGISTER"), text)
                self.assertEqual((refusal.status, refusal.reason, refusal.error), (555, UNSUPPORTED, UNSUPPORTED))
            else:
                self.assertEqual(PUSH.read(request("REGISTER"), text)[:2], (kind, provider), params)
        self.assertEqual(PUSH.read(request("REGISTER"), f"sip:bob@h;{APNS}").key, ("apns", "00fc", "DEF"))
        self.assertIs(PUSH.read(request("REGISTER"), "sip:bob@h"), NOTHING)

    def test_other_parameters(self) -> None:
        """The parameters that are wanted may be others."""
        push = Push(("apns",), ("pn-provider", "pn-prid", "app-id"))
        for params, kind in [
            (f"{APNS};app-id=5", Kind.SLEEPS),
            ("pn-provider=apns;pn-prid=1;app-id=5", Kind.SLEEPS),
            (APNS, None),
            ("pn-provider=apns;app-id=5", None),
            ("pn-provider=apns;pn-param=5", Kind.ASKS),
        ]:
            try:
                found: Kind | None = push.read(request("REGISTER"), f"sip:bob@h;{params}").kind
            except Rejected:
                found = None
            self.assertEqual(found, kind, params)
        self.assertEqual(push.bare(f"sip:b@h;x=1;{APNS};App-Id=5;y"), "sip:b@h;x=1;y")

    def test_bare(self) -> None:
        """Nobody else sees how the phone is woken; all other parameters stay."""
        for uri, bare in [
            (f"sip:b@h;{APNS}", "sip:b@h"),
            (f"sip:b@h:5070;transport=tcp;{APNS};ob?X=1", "sip:b@h:5070;transport=tcp;ob?X=1"),
            ("sip:b@h;PN-PRID=1", "sip:b@h"),
        ]:
            self.assertEqual(PUSH.bare(uri), bare)

    def test_served(self) -> None:
        """The services of proxies on the way, in all their spellings; a malformed value is none."""
        for more, found in [
            ("", []),
            ('Feature-Caps: *;+sip.pns="apns"\r\n', ["apns"]),
            ('Feature-Caps: *;+sip.pns="apns";+sip.pnsreg="10", *;+SIP.PNS=fcm\r\n', ["apns", "fcm"]),
            ('Feature-Caps: +sip.pns="apns"\r\nFeature-Caps: *;+g.x\r\nFeature-Caps: * ; +sip.pns="fcm"\r\n', ["apns", "fcm"]),
            ('Feature-Caps: *;+sip.pns=;x=1;x=2, *;a=1;a=2\r\n', []),
        ]:
            self.assertEqual(served(request("REGISTER", more=more)), found, more)

    def test_purr(self) -> None:
        """A PURR names a binding, and only this server can make one."""
        push = Push(("apns",), purrs=Seal(b"secret", b"purr"))
        binding = Binding("bob@example.org", "sip:b@h", 0, 0.0, "c", 1, 0.0)
        binding.serial = 77
        wish = push.read(request("REGISTER"), f"sip:bob@h;{APNS}")
        match = re.fullmatch(
            r'Feature-Caps: \*;\+sip\.pns="apns";\+sip\.pnsreg="130";\+sip\.pnspurr="([\w-]+)"\r\n',
            push.capabilities([(wish, binding)]),
        )
        assert match is not None
        self.assertEqual(push.user_of(match[1]), ("bob@example.org", 77))
        self.assertEqual([push.user_of("foo"), PUSH.user_of(match[1])], [None, None])
        self.assertEqual([purr_in(Uri.parse(f"sip:h;{params}")) for params in ("pn-purr=x", "pn-purr", "lr")], ["x", None, None])


class RegisterTests(SynchronousTestCase):
    """REGISTERs of phones that sleep."""

    def test_kinds(self) -> None:
        """What is answered to each, and which contacts are marked."""
        caps = '+sip.pns="fcm";+sip.pnsreg="130"'
        fcm = "pn-provider=fcm;pn-prid=1;pn-param=2"
        for line, status, found, marks in [
            ("<sip:b@h>", 200, [], [0]),
            ("<sip:b@h;pn-provider>", 200, ['+sip.pns="apns"', '+sip.pns="fcm"', '+sip.pns="webpush"'], [0]),
            ("<sip:b@h;pn-provider=fcm>", 200, ['+sip.pns="fcm"'], [0]),
            (f"<sip:b@h;{fcm}>;+sip.pnsreg", 200, [caps], [PN_CONTACT]),
            (f"<sip:b@h;{fcm}>", 200, [caps], [PN_CONTACT]),
            (f"<sip:b@h;{fcm}>;expires=0", 200, [caps], []),
            ("<sip:b@h>,<sip:c@h;pn-provider=foo;pn-prid=1;pn-param=2>", 555, [], []),
            (f"<sip:b@h>,<sip:c@h;{fcm}>;q=1,<sip:d@h;{APNS}>", 200, [caps, caps.replace("fcm", "apns")], [4, 0, 4]),
            (f'<sip:b@h;{fcm}>\r\nFeature-Caps: *;+sip.pns="fcm"', 200, [], [0]),
            ('<sip:b@h;pn-provider=x;pn-prid=1>\r\nFeature-Caps: *;+sip.pns="x"', 200, [], [0]),
        ]:
            phone = Phone(push=PUSH)
            answer = phone.register(f"Contact: {line}")
            self.assertEqual((answer.status, capabilities(answer), flags(phone)), (status, found, marks), line)
            self.assertEqual(header(answer, "P-Registrar-Error"), UNSUPPORTED if status == 555 else None)
        self.assertEqual(capabilities(Phone(push=PUSH).register()), [])

    def test_off(self) -> None:
        """Without it the parameters mean nothing; nor where the script says how to match."""
        for phone, how in [(Phone(), ""), (Phone(push=PUSH), "matching-mode=0"), (Phone(push=PUSH), "matching-mode=<pn-prid>")]:
            answer = phone.register(f"sip:b@h;{APNS}", "sip:b@h;pn-provider=foo", flags=how)
            self.assertEqual((answer.status, capabilities(answer), flags(phone)), (200, [], [0, 0]))

    def test_matching(self) -> None:
        """A contact is known by its service, whatever its address; values are compared to the letter."""
        phone = Phone(push=PUSH)
        phone.register(f"sip:b@1.1.1.1:5;x;{APNS}")
        answer = phone.register(f"sip:c@2.2.2.2;{APNS}")
        self.assertEqual(contacts(answer), f"<sip:c@2.2.2.2;{APNS}>;expires=3600")
        for other in (APNS.replace("DEF", "def"), APNS.replace("DEF", "%44EF"), APNS.replace("apns", "fcm")):
            phone.register(f"sip:c@2.2.2.2;{other}")
        self.assertEqual(flags(phone), [4, 4, 4, 4])
        phone.register(f"Contact: <sip:d@h;{APNS}>,<sip:e@h;x;{APNS}>;expires=60")
        self.assertEqual([len(flags(phone)), phone.table.bindings("bob@example.org")[0].contact], [4, f"sip:d@h;{APNS}"])
        phone.register(f"Contact: <sip:elsewhere;{APNS}>;expires=0")
        self.assertEqual(flags(phone), [4, 4, 4])
        other_phone = Phone(push=PUSH)
        other_phone.register(f"Contact: <sip:d@h;{APNS}>,<sip:e@h;x;{APNS}>;expires=60")
        self.assertEqual(flags(other_phone), [4])

    def test_upstream(self) -> None:
        """One that another proxy wakes is known by its service too, and no longer ours to wake."""
        phone = Phone(push=PUSH)
        phone.register(f"sip:b@1.1.1.1;{APNS}")
        phone.register(f"sip:c@1.1.1.1;{APNS}", 'Feature-Caps: *;+sip.pns="apns"')
        self.assertEqual(flags(phone), [0])
        phone.table.bindings("bob@example.org")[0].marks = 2
        phone.register(f"sip:c@1.1.1.1;{APNS}")
        self.assertEqual(flags(phone), [6])

    def test_purrs(self) -> None:
        """With PURRs a phone gets the same one at each refresh, another phone another."""
        phone = Phone(push=Push(("apns",), purrs=Seal(b"secret", b"purr"), pnsreg_interval=9))
        answers = [phone.register(f"sip:{user}@h;{APNS}{prid}") for user, prid in (("a", ""), ("b", ""), ("c", "1"))]
        self.assertEqual([capabilities(answer) for answer in answers], [['+sip.pns="apns";+sip.pnsreg="9";+sip.pnspurr']] * 3)
        self.assertEqual(header(answers[0], "Feature-Caps"), header(answers[1], "Feature-Caps"))
        self.assertNotEqual(header(answers[0], "Feature-Caps"), header(answers[2], "Feature-Caps"))
        answer = phone.register(f"Contact: <sip:a@h;{APNS}>;expires=0")
        self.assertEqual(capabilities(answer), ['+sip.pns="apns";+sip.pnsreg="9"'])

    def test_awake(self) -> None:
        """A phone that has just registered need not be woken, if the script says so."""
        phone = Phone(push=Push(("apns",), skip_interval=10))
        phone.register(f"sip:a@h;{APNS}", "sip:b@h")
        asleep, normal = phone.table.bindings("bob@example.org")
        push = phone.registrar.settings.push
        assert push is not None
        for seconds, awake in [(0, True), (9, True), (10, False)]:
            self.assertEqual(push.awake(asleep, 1000.0 + seconds), awake)
        self.assertEqual([push.awake(normal, 9999.0), sleeps(normal), sleeps(asleep)], [True, False, True])
        self.assertFalse(PUSH.awake(asleep, 1000.0))

    def test_wake_at(self) -> None:
        """Who sleeps is to be woken some time before its binding expires, unless it refreshes or goes before."""
        phone = Phone(push=Push(("apns",), trigger_interval=120))
        phone.table.wakes = True
        other = f"{APNS}1"
        phone.register(f"Contact: <sip:a@h;{APNS}>;expires=600,<sip:b@h>;expires=600,<sip:c@h;{other}>;expires=60")
        self.assertEqual([each.contact for each in phone.table.to_wake(1000.0)], [f"sip:c@h;{other}"])
        self.assertEqual([phone.table.to_wake(now) for now in (1000.0, 1479.9)], [[], []])
        phone.register(f"Contact: <sip:a@h;{APNS}>;expires=700")
        self.assertEqual(phone.table.to_wake(1500.0), [])
        self.assertEqual([each.contact for each in phone.table.to_wake(1580.0)], [f"sip:a@h;{APNS}"])
        phone.register(f"Contact: <sip:a@h;{APNS}>;expires=700")
        phone.register(f"Contact: <sip:a@h;{APNS}>;expires=700", 'Feature-Caps: *;+sip.pns="apns"')
        phone.register(f"Contact: <sip:c@h;{other}>;expires=200")
        phone.register(f"Contact: <sip:c@h;{other}>;expires=0")
        self.assertEqual((phone.table.to_wake(9999.0), phone.table._wakes), ([], {}))


class WaitingTests(SynchronousTestCase):
    """Who waits for which phone."""

    def test_waiting(self) -> None:
        """Each is given once, to the phone it waits for; who has waited enough leaves."""
        waiting = Waiting()
        one, two = ("location", "a@x", ("1",)), ("location", "a@x", ("2",))
        calls = [lambda binding, number=number: None for number in range(4)]
        for place, call in zip((one, one, two, one), calls, strict=True):
            self.assertTrue(waiting.add(place, call))
        self.assertEqual(len(waiting), 4)
        waiting.forget(one, calls[1])
        waiting.forget(one, calls[2])
        self.assertEqual(waiting.registered(one), [calls[0], calls[3]])
        self.assertEqual(waiting.registered(one), [])
        waiting.forget(one, calls[0])
        waiting.forget(two, calls[2])
        self.assertEqual((len(waiting), waiting._calls), (0, {}))

    def test_bound(self) -> None:
        """There is an end to it."""
        self.patch(__import__("sipgw.proxy.push", fromlist=["MOST_WAITING"]), "MOST_WAITING", 2)
        waiting = Waiting()
        place = ("location", "a@x", ("1",))
        self.assertEqual([waiting.add(place, lambda binding: None) for _ in range(3)], [True, True, False])
