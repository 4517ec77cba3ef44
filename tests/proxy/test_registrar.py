"""Tests of sipgw.proxy.registrar: sequences of REGISTERs, most of them with the answers that OpenSIPS 4.1 gives to the same.

A step is what is sent (header lines; a bare URI is short for a Contact), and what comes back: the status, the Contact values as
``user;params`` and the text of P-Registrar-Error."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.location import ALL_METHODS, AOR_CONTACTS, LocationTable
from sipgw.proxy.register import Rejected, methods_mask
from sipgw.proxy.registrar import Answer, Registrar, Settings
from sipgw.proxy.registrar_flags import save_flags
from sipgw.sip.message import parse
from tests.doubles import FakeSocket, FakeUser, run_of

OK = 200
TOO_MANY = "Too many registered contacts"
BAD_CSEQ = "Invalid CSeq number"


class Phone:
    """Registers with a registrar of its own and reads the answers."""

    def __init__(self, **options: Any) -> None:
        by_time = options.pop("by_time", False)
        self.registrar = Registrar(Settings(**options), Random(7))
        self.table = LocationTable(by_time=by_time)
        self.user = FakeUser(FakeSocket(), FakeSocket(port=5070))
        self.cseq = 0
        self.branch_flags = 0
        self.avps: dict[str, list[int | str]] = {}

    def register(
        self,
        *lines: str,
        flags: str = "",
        to: str = "<sip:bob@example.org>",
        call_id: str = "c1",
        cseq: int = 0,
        aor: str | None = None,
    ) -> Answer:
        """Send one REGISTER."""
        self.cseq += 1
        more = "".join((line if ": " in line else f"Contact: <{line}>") + "\r\n" for line in lines)
        message = parse(
            (
                "REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKabc\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:bob@example.org>;tag=a1\r\nTo: {to}\r\nCall-ID: {call_id}\r\n"
                f"CSeq: {cseq or self.cseq} REGISTER\r\n{more}Content-Length: 0\r\n\r\n"
            ).encode()
        )
        run = run_of(message, self.user)
        run.branch_flags = self.branch_flags
        run.avps = self.avps
        return self.registrar.save(run, self.table, save_flags(flags), aor)

    def play(self, test: SynchronousTestCase, *steps: Any) -> None:
        """Send one REGISTER after another and compare the answers; a number among the steps lets that many seconds pass."""
        for step in steps:
            if isinstance(step, int | float):
                self.user.seconds += step
                continue
            sent, status, *rest = step
            options = sent if isinstance(sent, dict) else {"lines": sent}
            lines = options.pop("lines", ())
            answer = self.register(*((lines,) if isinstance(lines, str) else lines), **options)
            test.assertEqual(answer.status, status, (step, answer))
            if rest:
                test.assertEqual(contacts(answer), rest[0], (step, answer))
            if len(rest) > 1:
                test.assertEqual(header(answer, "P-Registrar-Error"), rest[1], step)


def header(answer: Answer, name: str) -> str | None:
    """One header of an answer."""
    for line in answer.headers.split("\r\n"):
        key, _, value = line.partition(": ")
        if key == name:
            return value
    return None


def contacts(answer: Answer) -> str:
    """The Contact values of an answer, short: user, then parameters."""
    text = header(answer, "Contact") or ""
    return " ".join(re.sub(r"<sips?:([^@>]*)@1\.1\.1\.1>", r"\1", value) for value in text.split(", ") if value)


def c(user: str, params: str = "") -> str:
    """A Contact header."""
    return f"Contact: <sip:{user}@1.1.1.1>{params}"


class BindingTests(SynchronousTestCase):
    """Bindings are added, refreshed and removed."""

    def test_life(self) -> None:
        """Fetch, add, refresh, add more, remove one, remove all."""
        Phone().play(
            self,
            ((), OK, ""),
            (c("a"), OK, "a;expires=3600"),
            ((), OK, "a;expires=3600"),
            (c("a", ";q=0.5;expires=100"), OK, "a;q=0.5;expires=100"),
            ((c("b", ";q=0.7"), "Expires: 200"), OK, "b;q=0.7;expires=200 a;q=0.5;expires=100"),
            (("Contact: <sip:c@1.1.1.1>", "Expires: 20"), OK, "b;q=0.7;expires=200 a;q=0.5;expires=100 c;expires=60"),
            30,
            (c("a", ";expires=0"), OK, "b;q=0.7;expires=170 c;expires=30"),
            30,
            ((), OK, "b;q=0.7;expires=140"),
            (c("unknown", ";expires=0"), OK, "b;q=0.7;expires=140"),
            (("Contact: *", "Expires: 0"), OK, ""),
            (("Contact: *", "Expires: 0"), OK, ""),
        )

    def test_several_contacts(self) -> None:
        """Contacts of one request are all done, in order of their q; of one that is named twice the last word counts."""
        Phone().play(
            self,
            (
                (c("a"), c("b", ";q=0.2") + ", <sip:c@1.1.1.1>;q=0.9"), OK,
                "c;q=0.9;expires=3600 b;q=0.2;expires=3600 a;expires=3600",
            ),
            ((c("a", ";expires=0"), c("b", ";expires=0"), c("c", ";expires=0")), OK, ""),
            ((c("a"), c("a", ";expires=0")), OK, ""),
            ((c("a", ";expires=100"), c("a", ";expires=200")), OK, "a;expires=200"),
            ((c("a", ";expires=0"), c("a", ";expires=300")), OK, "a;expires=300"),
            ((c("a"), c("a", ";expires=0")), OK, ""),
            (("sip:x@HOST.example", "sip:x@host.example"), OK, "<sip:x@HOST.example>;expires=3600"),
            ((c("d"), c("e", ";expires=90"), "Expires: 0"), OK, "<sip:x@HOST.example>;expires=3600 e;expires=90"),
        )

    def test_equal_uri(self) -> None:
        """A contact is the same by RFC 3261 19.1.4; the text that was there first stays."""
        Phone().play(
            self,
            ("sip:a@1.1.1.1", OK, "a;expires=3600"),
            ("SIP:a@1.1.1.1", OK, "a;expires=3600"),
            ("sip:%61@1.1.1.1", OK, "a;expires=3600"),
            ("sip:a@1.1.1.1;x=1", OK, "a;expires=3600"),
            ("sip:a@1.1.1.1;lr", OK, "a;expires=3600"),
            ("sip:A@1.1.1.1", OK, "a;expires=3600 A;expires=3600"),
            ("sip:A@1.1.1.1:5060", OK, "a;expires=3600 A;expires=3600 <sip:A@1.1.1.1:5060>;expires=3600"),
        )

    def test_schemes(self) -> None:
        """SIP, SIPS and tel URIs can be contacts; others cannot be reached and are refused."""
        for uri, status in [
            ("sips:a@x", 200), ("tel:+123", 200), ("sip:x", 200), ("sip:u:pw@x", 200), ("sip:a@x?X=1", 200), ("mailto:a@b", 400),
        ]:
            self.assertEqual(Phone().register(uri).status, status, uri)

    def test_what_is_kept(self) -> None:
        """The binding has all that the request says of the contact."""
        phone = Phone()
        phone.branch_flags = 6
        phone.register(
            'm: <sip:a@1.1.1.1;ob>;+sip.instance="<urn:uuid:1>";reg-id=2', c("b"), "User-Agent: phone/1", "Allow: INVITE, bye",
        )
        first, second = phone.table.bindings("bob@example.org")
        self.assertEqual(
            (first.contact, first.instance, first.reg_id, first.user_agent, first.methods, first.flags, first.call_id),
            ("sip:a@1.1.1.1;ob", "<urn:uuid:1>", "2", "phone/1", 9, 6, "c1"),
        )
        self.assertEqual((second.instance, second.reg_id, second.q), (None, None, -1))
        self.assertIs(first.socket, phone.user.sockets[0])
        phone.register('Contact: <sip:a@1.1.1.1;ob>;methods="INFO, FOO"', cseq=9)
        self.assertEqual((first.instance, first.methods, first.user_agent, first.cseq), (None, 16 + 16384, "", 9))

    def test_methods(self) -> None:
        """The numbers of the methods are OpenSIPS's."""
        for text, mask in [
            ("INVITE", 1), ("PUBLISH", 8192), ("FOO", 16384), ("INVITE,OPTIONS,FOO", 16417), ("", 0), ("@@, INFO", ALL_METHODS),
        ]:
            self.assertEqual(methods_mask(text), mask, text)


class RefusalTests(SynchronousTestCase):
    """Requests that are refused change nothing."""

    def test_bad_values(self) -> None:
        """Each fault has its text, and the answer lists the contacts if the fault was found in single contacts."""
        phone = Phone()
        phone.register(c("a"))
        there = "a;expires=3600"
        phone.play(
            self,
            (("Contact: *", "Expires: 10"), 400, "", "* used in contact and expires is not zero"),
            ("Contact: *", 400, "", "* used in contact and expires is not zero"),
            (("Contact: *", c("a"), "Expires: 0"), 400, "", "* used in contact and more than 1 contact"),
            (c("a", ";q=2"), 400, there, "Invalid q param in contact"),
            (c("a", ";q=1.5"), 400, there, "Invalid q param in contact"),
            (c("a", ";q=abc"), 400, there, "Invalid q param in contact"),
            ((c("a"), "Expires: abc"), 400, "", "Expires parse error"),
            ((c("a"), "Expires: 70;x=1"), 400, "", "Expires parse error"),
            ((c("a"), "Expires: -5"), 400, "", "Expires parse error"),
            ("Contact: <>", 400, "", "Contact parse error"),
            ("Contact: garbage", 400, "", "Contact parse error"),
            ("Contact: <sip:x@1.1.1.1", 400, "", "Contact parse error"),
            ("Contact: ,", 400, "", "Contact parse error"),
            ("Contact: sip:x@y?Route=z", 400, "", "Contact parse error"),
            (f"sip:{'x' * 1024}@y", 400, there, "Contact/received too long"),
            ({"to": "garbage"}, 400, "", "Error while parsing AOR"),
            ({"to": "<isbn:123>"}, 400, "", "Error while parsing AOR"),
            ({"to": f"<sip:{'u' * 65}@x>"}, 500, "", "Address Of Record too long"),
            ({"to": f"<sip:u@{'d' * 65}>"}, 500, "", "Address Of Record too long"),
            ({"to": f"<sip:{'u' * 64}@{'d' * 64}>"}, OK, ""),
            ((), OK, there),
        )

    def test_all_or_nothing(self) -> None:
        """A request that is refused for one contact has not done the others (RFC 3261 10.3 step 7)."""
        phone = Phone(allow_dup_cseq=False, cseq_delay=0)
        phone.play(
            self,
            ({"lines": (c("a"), c("b")), "cseq": 5}, OK),
            ({"lines": (c("new"), c("a", ";expires=0"), c("b")), "cseq": 5}, 400, "a;expires=3600 b;expires=3600", BAD_CSEQ),
            ({"lines": (c("new"), c("a", ";expires=0"), c("d", ";q=7")), "cseq": 6}, 400, "a;expires=3600 b;expires=3600"),
        )

    def test_retry_after(self) -> None:
        """A 5xx says when to try again, if ``retry_after`` is set."""
        phone = Phone(retry_after=30, max_contacts=1)
        self.assertEqual(header(phone.register(c("a"), c("b")), "Retry-After"), "30")
        self.assertIsNone(header(phone.register(c("a"), "Expires: x"), "Retry-After"))

    def test_full_table(self) -> None:
        """When the table is full, new contacts are refused and old ones refreshed."""
        phone = Phone()
        phone.table.capacity = 1
        phone.play(self, (c("a"), OK), (c("b"), 503, "a;expires=3600", TOO_MANY), (c("a", ";expires=70"), OK, "a;expires=70"))


class ExpiresTests(SynchronousTestCase):
    """How long a binding lasts."""

    def test_sources(self) -> None:
        """The contact's own expires counts first, then the header, then the default; what is malformed counts as an hour."""
        for params, line, seconds in [
            ("", "", 1800),
            ("", "Expires: 300", 300),
            (";expires=200", "Expires: 300", 200),
            (";EXPIRES=200", "", 200),
            (';expires="200"', "", 200),
            (";expires=abc", "", 3600),
            (";expires=-1", "Expires: 300", 3600),
            (";expires", "", 3600),
            (";expires=99999999999", "", 3600),
            (";expires=4000000000", "", 2**31 - 1),
        ]:
            answer = Phone(default_expires=1800).register(c("a", params), *([line] if line else []))
            self.assertEqual(contacts(answer), f"a;expires={seconds}", (params, line))

    def test_bounds(self) -> None:
        """What is asked is raised to the least and lowered to the most; flags overrule parameters, the most wins."""
        for asked, options, flags, granted in [
            (30, {}, "", 60),
            (30, {"min_expires": 0}, "", 30),
            (5000, {"max_expires": 1000}, "", 1000),
            (50, {}, "min-expires=100", 100),
            (5000, {}, "min-expires=100,max-expires=200", 200),
            (5, {}, "min-expires=0,max-expires=90", 5),
            (50, {}, "max-expires=10", 10),
            (30, {}, "e0", 30),
        ]:
            answer = Phone(**options).register(c("a", f";expires={asked}"), flags=flags)
            self.assertEqual(contacts(answer), f"a;expires={granted}", (asked, options, flags))

    def test_default_is_bounded_too(self) -> None:
        """A contact that asks for nothing gets no more than the most."""
        self.assertEqual(contacts(Phone(default_expires=1800, max_expires=1000).register(c("a"))), "a;expires=1000")

    def test_too_brief(self) -> None:
        """With the flag, less than the least is refused with 423 and Min-Expires (RFC 3261 10.3 step 7); 0 still removes."""
        phone = Phone()
        answer = phone.register(c("a", ";expires=59"), flags="reject-too-brief")
        self.assertEqual((answer.status, answer.reason, header(answer, "Min-Expires")), (423, "Interval Too Brief", "60"))
        self.assertEqual(len(phone.table), 0)
        phone.play(
            self,
            ({"lines": c("a", ";expires=60"), "flags": "reject-too-brief"}, OK, "a;expires=60"),
            ({"lines": c("a", ";expires=0"), "flags": "reject-too-brief"}, OK, ""),
            ({"lines": c("a", ";expires=3600"), "flags": "reject-too-brief,min-expires=7200"}, OK, "a;expires=7200"),
        )

    def test_deviation(self) -> None:
        """``expires_max_deviation`` spreads the ends, within the bounds, and removal stays removal."""
        phone = Phone(expires_max_deviation=30, max_expires=100)
        granted = []
        for _ in range(60):
            answer = phone.register(c("a", ";expires=90"))
            granted.append(int(contacts(answer).rpartition("=")[2]))
        self.assertGreaterEqual(min(granted), 60)
        self.assertEqual(max(granted), 100)
        self.assertGreater(len(set(granted)), 20)
        self.assertEqual(contacts(phone.register(c("a", ";expires=0"))), "")


class QTests(SynchronousTestCase):
    """q values."""

    def test_forms(self) -> None:
        """q is read leniently and written short."""
        for written, read in [
            ("0.5", ";q=0.5"), ("1", ";q=1"), ("1.0", ";q=1"), ("0", ";q=0"), (".5", ";q=0.5"), ("0.", ";q=0"),
            ("0.1234", ";q=0.123"), ("0.001", ";q=0.001"), ('"0.5"', ";q=0.5"), ("0.50", ";q=0.5"),
        ]:
            self.assertEqual(contacts(Phone().register(c("a", f";q={written}"))), f"a{read};expires=3600", written)

    def test_default(self) -> None:
        """``default_q`` is given to contacts without one."""
        phone = Phone(default_q=500)
        phone.play(self, ((c("a"), c("b", ";q")), OK, "a;q=0.5;expires=3600 b;q=0.5;expires=3600"))

    def test_new_order(self) -> None:
        """A contact that comes back with another q takes its new place."""
        Phone().play(
            self,
            ((c("a", ";q=0.9"), c("b", ";q=0.5")), OK, "a;q=0.9;expires=3600 b;q=0.5;expires=3600"),
            (c("b", ";q=1"), OK, "b;q=1;expires=3600 a;q=0.9;expires=3600"),
        )


class OrderRuleTests(SynchronousTestCase):
    """CSeq and Call-ID (RFC 3261 10.3 steps 6 and 7)."""

    def test_lower_cseq(self) -> None:
        """A lower CSeq of the same Call-ID is refused, be it a refresh, a removal or ``*``; another Call-ID may do anything."""
        there = "a;expires=100"
        Phone().play(
            self,
            ({"lines": c("a", ";expires=100"), "cseq": 20}, OK),
            ({"lines": c("a"), "cseq": 5}, 400, there, BAD_CSEQ),
            ({"lines": c("a", ";expires=0"), "cseq": 5}, 400, there, BAD_CSEQ),
            ({"lines": ("Contact: *", "Expires: 0"), "cseq": 5}, 400, "", BAD_CSEQ),
            ({"lines": c("b", ";expires=100"), "cseq": 5}, OK, f"{there} b;expires=100"),
            ({"lines": c("a", ";expires=200"), "cseq": 3, "call_id": "other"}, OK, "a;expires=200 b;expires=100"),
            ({"lines": c("a", ";expires=300"), "cseq": 1}, OK, "a;expires=300 b;expires=100"),
            ({"lines": ("Contact: *", "Expires: 0"), "cseq": 9}, OK, ""),
        )

    def test_same_cseq(self) -> None:
        """The same CSeq again is done again."""
        Phone().play(
            self,
            ({"lines": c("a", ";expires=100"), "cseq": 10}, OK, "a;expires=100"),
            ({"lines": c("a", ";expires=200"), "cseq": 10}, OK, "a;expires=200"),
            60,
            ({"lines": c("a", ";expires=300"), "cseq": 10}, OK, "a;expires=300"),
        )

    def test_same_cseq_refused(self) -> None:
        """Without ``allow_dup_cseq`` it is a repetition for ``cseq_delay`` seconds, which changes nothing, and an error later."""
        Phone(allow_dup_cseq=False, cseq_delay=20).play(
            self,
            ({"lines": c("a", ";expires=100"), "cseq": 10}, OK, "a;expires=100"),
            ({"lines": c("a", ";expires=200"), "cseq": 10}, OK, "a;expires=100"),
            ({"lines": c("a", ";expires=0"), "cseq": 10}, OK, "a;expires=100"),
            ({"lines": ("Contact: *", "Expires: 0"), "cseq": 10}, OK, "a;expires=100"),
            ({"lines": c("b", ";expires=100"), "cseq": 10}, OK, "a;expires=100 b;expires=100"),
            20,
            ({"lines": c("a", ";expires=200"), "cseq": 10}, 400, "a;expires=80 b;expires=80", BAD_CSEQ),
            ({"lines": c("a", ";expires=200"), "cseq": 11}, OK, "a;expires=200 b;expires=80"),
        )


class MatchingTests(SynchronousTestCase):
    """Which binding a contact refreshes."""

    def test_call_id(self) -> None:
        """Matching mode 1 keeps a contact for each Call-ID, by parameter or by flag."""
        for options, flags in [({"match_call_id": True}, ""), ({}, "matching-mode=1"), ({}, "M1")]:
            Phone(**options).play(
                self,
                ({"lines": c("a", ";expires=100"), "flags": flags}, OK, "a;expires=100"),
                ({"lines": c("a", ";expires=200"), "flags": flags, "call_id": "c2"}, OK, "a;expires=100 a;expires=200"),
                ({"lines": c("a", ";expires=300"), "flags": flags}, OK, "a;expires=300 a;expires=200"),
                ({"lines": c("a", ";expires=0"), "flags": flags, "call_id": "c3"}, OK, "a;expires=300 a;expires=200"),
                ({"lines": c("a", ";expires=0"), "flags": flags, "call_id": "c2"}, OK, "a;expires=300"),
            )

    def test_flag_overrules(self) -> None:
        """Matching mode 0 of the flag overrules the parameter."""
        Phone(match_call_id=True).play(
            self, (c("a"), OK), ({"lines": c("a"), "call_id": "c2", "flags": "matching-mode=0"}, OK, "a;expires=3600"),
        )

    def test_parameter(self) -> None:
        """``matching-mode=<name>`` compares one parameter of the URI, and takes over the rest; without it, the whole URI."""
        phone = Phone()
        with_flag = {"flags": "matching-mode=<rinstance>"}
        phone.play(
            self,
            (("sip:i@1.1.1.1", "sip:j@1.1.1.1;rinstance=1"), OK),
            (
                {"lines": "sip:k@2.2.2.2;rinstance=1", **with_flag}, OK,
                "i;expires=3600 <sip:k@2.2.2.2;rinstance=1>;expires=3600",
            ),
            ({"lines": "sip:i@1.1.1.1", "flags": "M<rinstance>"}, OK, "i;expires=3600 <sip:k@2.2.2.2;rinstance=1>;expires=3600"),
            (
                {"lines": "sip:i@1.1.1.1;rinstance=2", **with_flag}, OK,
                "i;expires=3600 <sip:k@2.2.2.2;rinstance=1>;expires=3600 <sip:i@1.1.1.1;rinstance=2>;expires=3600",
            ),
            ("sip:k@2.2.2.2;rinstance=1;x", OK),
        )
        self.assertEqual(phone.table.count, 3)


class MaxContactsTests(SynchronousTestCase):
    """``max-contacts`` and ``force-registration``."""

    def test_limit(self) -> None:
        """A new contact too many is refused; refreshes and removals are done; a removal makes room in the same request."""
        three = "c;q=0.9;expires=3600 b;q=0.2;expires=3600 a;expires=3600"
        flags = {"flags": "max-contacts=3"}
        Phone().play(
            self,
            ((c("a"), c("b", ";q=0.2"), c("c", ";q=0.9")), OK, three),
            ({"lines": c("d"), **flags}, 503, three, TOO_MANY),
            ({"lines": c("a"), **flags}, OK, three),
            ({"lines": (c("a"), c("b", ";q=0.2"), c("x")), "flags": "c2"}, 503, three, TOO_MANY),
            ({"lines": c("a"), "flags": "max-contacts=1"}, OK, three),
            ({"lines": (c("a", ";expires=0"), c("d")), **flags}, OK, three.replace("a;", "d;")),
            ({"lines": (c("e"), c("d", ";expires=0")), **flags}, OK, three.replace("a;", "e;")),
            ({"lines": c("e", ";expires=0"), "flags": "max-contacts=1"}, OK, "c;q=0.9;expires=3600 b;q=0.2;expires=3600"),
        )

    def test_parameter(self) -> None:
        """The parameter counts where no flag does; 0 is no limit."""
        Phone(max_contacts=1).play(
            self,
            (c("a"), OK),
            (c("b"), 503, "a;expires=3600", TOO_MANY),
            ({"lines": c("b"), "flags": "max-contacts=0"}, OK, "a;expires=3600 b;expires=3600"),
        )

    def test_force(self) -> None:
        """``force-registration`` lets the last contacts go instead, new ones of the same request included."""
        flags = {"flags": "max-contacts=3, force-registration"}
        two = {"flags": "c2f"}
        Phone().play(
            self,
            ((c("a"), c("b", ";q=0.2"), c("c", ";q=0.9")), OK),
            ({"lines": c("d"), **flags}, OK, "c;q=0.9;expires=3600 b;q=0.2;expires=3600 d;expires=3600"),
            ({"lines": c("e"), **two}, OK, "c;q=0.9;expires=3600 e;expires=3600"),
            ({"lines": (c("g"), c("h"), c("i")), **two}, OK, "c;q=0.9;expires=3600 i;expires=3600"),
            ({"lines": c("j", ";q=0.95"), **two}, OK, "j;q=0.95;expires=3600 c;q=0.9;expires=3600"),
        )

    def test_force_by_time(self) -> None:
        """In order of time it is the oldest that goes."""
        Phone(by_time=True).play(
            self,
            (c("a", ";q=1"), OK), (c("b"), OK), (c("a", ";q=1"), OK, "a;q=1;expires=3600 b;expires=3600"),
            ({"lines": c("c"), "flags": "max-contacts=2,force-registration"}, OK, "c;expires=3600 a;q=1;expires=3600"),
        )

    def test_absolute_limit(self) -> None:
        """No address-of-record has more than ``AOR_CONTACTS``, whatever the script says."""
        phone = Phone()
        for start in range(0, AOR_CONTACTS, 32):
            self.assertEqual(phone.register(*(c(f"u{index}") for index in range(start, start + 32))).status, OK)
        self.assertEqual(phone.register(c("more"), flags="max-contacts=0").status, 503)
        self.assertEqual(phone.table.count, AOR_CONTACTS)


class AorTests(SynchronousTestCase):
    """The address-of-record."""

    def test_forms(self) -> None:
        """The user is unescaped and keeps its case, the domain is lowered, the rest left out."""
        registrar = Registrar()
        for uri, aor in [
            ("sip:bob@example.org", "bob@example.org"),
            ("sip:Bob@EXAMPLE.org:5070;x=y", "Bob@example.org"),
            ("sips:bob@example.org", "bob@example.org"),
            ("sip:%62ob:pw@example.org", "bob@example.org"),
            ("sip:null-%00-null@x", "null-\0-null@x"),
            ("sip:Example.org", "example.org"),
            ("tel:+123;phone-context=x", "+123@"),
            ("sip:a@[2001:DB8::1]", "a@[2001:db8::1]"),
        ]:
            self.assertEqual(registrar.aor(uri), aor, uri)

    def test_settings(self) -> None:
        """``use_domain``, ``realm_prefix`` and ``case_sensitive`` do what they say."""
        registrar = Registrar(Settings(use_domain=False))
        self.assertEqual([registrar.aor(uri) for uri in ("sip:u@a", "sip:u@b", "tel:+1")], ["u", "u", "+1"])
        self.assertRaises(Rejected, registrar.aor, "sip:example.org")
        registrar = Registrar(Settings(realm_prefix="sip."))
        self.assertEqual(
            [registrar.aor(f"sip:u@{host}") for host in ("sip.example.org", "SIP.example.org", "sip.", "example.org")],
            ["u@example.org", "u@example.org", "u@sip.", "u@example.org"],
        )
        self.assertEqual(Registrar(Settings(case_sensitive=False)).aor("sip:User@Example.org"), "user@example.org")

    def test_of_save(self) -> None:
        """``save`` can be told another address-of-record than To's."""
        phone = Phone()
        phone.register(c("a"), aor="sip:Carol@X.org")
        self.assertEqual([aor for aor, _ in phone.table], ["Carol@x.org"])
        for aor in ("carol", "<sip:carol@x.org>"):
            self.assertEqual(header(phone.register(c("a"), aor=aor), "P-Registrar-Error"), "Error while parsing AOR")


PATH = "Path: <sip:p1@9.9.9.9;lr>"
PATH2 = "Path: <sip:p2@8.8.8.8;lr;received=sip:7.7.7.7:1234>"


class PathTests(SynchronousTestCase):
    """Path (RFC 3327) in its three modes."""

    def test_modes(self) -> None:
        """What is kept and what is answered."""
        both = "<sip:p2@8.8.8.8;lr;received=sip:7.7.7.7:1234>,<sip:p1@9.9.9.9;lr>"
        for flags, lines, kept, answered in [
            ("", (PATH,), None, None),
            ("path-off", (PATH,), PATH[6:], None),
            ("p0", (PATH, "Supported: path"), PATH[6:], None),
            ("path-lazy", (PATH,), PATH[6:], None),
            ("path-lazy", (PATH2, PATH, "Supported: gruu, path"), both, both),
            ("path-lazy", (PATH, "k: Path"), PATH[6:], PATH[6:]),
            ("path-strict", (PATH2, PATH, "Supported: path"), both, both),
            ("path-strict", (), None, None),
            ("p2", (), None, None),
        ]:
            phone = Phone()
            answer = phone.register(c("a"), *lines, flags=flags)
            self.assertEqual(answer.status, OK, flags)
            self.assertEqual(phone.table.bindings("bob@example.org")[0].path, kept, (flags, lines))
            self.assertEqual(header(answer, "Path"), answered, (flags, lines))
            self.assertIsNone(header(phone.register(*lines, flags=flags), "Path"), "a fetch lists contacts only")

    def test_strict_refuses(self) -> None:
        """A phone that does not know Path is refused in strict mode."""
        answer = Phone().register(c("a"), PATH, flags="path-strict")
        self.assertEqual((answer.status, answer.reason), (420, "Bad Extension"))
        self.assertEqual(header(answer, "Unsupported"), "path")
        self.assertEqual(header(answer, "Path"), PATH[6:])
        self.assertEqual(header(answer, "P-Registrar-Error"), "No support for found Path indicated")

    def test_bad_path(self) -> None:
        """A Path whose first URI cannot be used is refused; without a path flag nobody looks at it."""
        for value in ("garbage", "<<>", "<sip:p@9.9.9.9>", "<tel:+1;lr>", ","):
            phone = Phone()
            answer = phone.register(c("a"), f"Path: {value}", flags="path-lazy")
            self.assertEqual((answer.status, header(answer, "P-Registrar-Error")), (400, "Path parse error"), value)
            self.assertEqual(phone.register(c("a"), f"Path: {value}").status, OK)

    def test_received(self) -> None:
        """``path-received`` takes the contact's source from the first Path URI and marks it as behind NAT."""
        phone = Phone(nat_flag=4)
        answer = phone.register(c("a"), PATH2, PATH, flags="path-off,path-received")
        self.assertEqual(contacts(answer), 'a;expires=3600;received="sip:7.7.7.7:1234"')
        self.assertEqual(phone.table.bindings("bob@example.org")[0].flags, 4)
        phone.play(self, ({"lines": (c("a"), PATH), "flags": "p0v"}, OK, "a;expires=3600"))
        self.assertEqual(phone.table.bindings("bob@example.org")[0].flags, 0)


class ReceivedTests(SynchronousTestCase):
    """Where the REGISTER came from."""

    def test_avp(self) -> None:
        """The newest value of ``received_avp`` is kept and listed; without it a refresh forgets it."""
        phone = Phone(received_avp="rcv", received_param="rcv", attr_avp="attr")
        phone.avps = {"rcv": ["sip:9.9.9.9", "sip:5.5.5.5:999;transport=tcp"], "attr": ["of a"]}
        self.assertEqual(contacts(phone.register(c("a"))), 'a;expires=3600;rcv="sip:5.5.5.5:999;transport=tcp"')
        self.assertEqual(phone.table.bindings("bob@example.org")[0].attr, "of a")
        phone.avps = {}
        self.assertEqual(contacts(phone.register(c("a"))), "a;expires=3600")
        self.assertIsNone(phone.table.bindings("bob@example.org")[0].attr)

    def test_bad_avp(self) -> None:
        """A value that is no SIP URI, or too long, is the script's fault and refused."""
        for value, status in [("more", 500), ("sip:" + "x" * 300 + "@y", 400), ("sip:" + "x" * 200 + "@y", 200)]:
            phone = Phone(received_avp="rcv")
            phone.avps = {"rcv": [value]}
            self.assertEqual(phone.register(c("a")).status, status, value)

    def test_parameter(self) -> None:
        """A contact's own ``received`` parameter is kept, if it is a SIP URI."""
        for value, kept in [('"sip:5.5.5.5:1"', ';received="sip:5.5.5.5:1"'), ('"foo"', "")]:
            self.assertEqual(contacts(Phone().register(c("a", f";received={value}"))), f"a;expires=3600{kept}")

    def test_socket_header(self) -> None:
        """``socket-header`` takes the socket from a header; one that is not ours is not taken."""
        phone = Phone(sock_hdr_name="Sock-Info")
        for line, flags, port in [
            ("Sock-Info: udp:127.0.0.1:5070", "socket-header", 5070),
            ("Sock-Info: udp:127.0.0.1:5070", "", 5060),
            ("Sock-Info: udp:9.9.9.9:5070", "s", 5060),
            ("Sock-Info: garbage", "s", 5060),
            ("X: y", "s", 5060),
        ]:
            phone.register(c("a"), line, flags=flags)
            self.assertEqual(phone.table.bindings("bob@example.org")[0].socket.port, port, (line, flags))


class AnswerTests(SynchronousTestCase):
    """What the answer lists."""

    def test_only_request_contacts(self) -> None:
        """With the flag, the contacts of the request alone; a fetch lists none then."""
        phone = Phone()
        phone.register(c("a"))
        phone.play(
            self,
            ({"lines": (c("b"), c("a", ";expires=0")), "flags": "only-request-contacts"}, OK, "b;expires=3600"),
            ({"flags": "o"}, OK, ""),
            ((), OK, "b;expires=3600"),
        )

    def test_as_a_line(self) -> None:
        """One Contact header field with all values."""
        phone = Phone()
        answer = phone.register(c("a", ";q=0.5"), c("b"))
        self.assertEqual(
            answer.headers, "Contact: <sip:a@1.1.1.1>;q=0.5;expires=3600, <sip:b@1.1.1.1>;expires=3600\r\n",
        )


class AnyTests(SynchronousTestCase):
    """Whatever is sent."""

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["Contact", "Expires", "Path", "Supported", "Allow", "User-Agent"]),
                st.text(st.sampled_from(list('<>"*;,:@=?sip.expires=q10lr\\ ')), max_size=40)
                | st.sampled_from(["*", "0", "<sip:a@b>;q=0.1", "sip:a@b", "path", "<sip:p@h;lr>", "<sip:x@y>;expires=70"]),
            ),
            max_size=5,
        ),
        st.sampled_from(["", "p1", "p2v", "c1", "c1f", "M1", "M<x>", "o", "reject-too-brief"]),
    )
    def test_answered(self, headers: list[tuple[str, str]], flags: str) -> None:
        """Every REGISTER gets an answer whose lines are whole, and a refused one leaves the table as it was."""
        phone = Phone()
        phone.register(c("a"))
        before = [(binding.contact, binding.expires) for _, record in phone.table for binding in record]
        answer = phone.register(*(f"{name}: {value}" for name, value in headers), flags=flags)
        self.assertIn(answer.status, (200, 400, 420, 423, 503))
        self.assertRegex(answer.headers, r"\A(?:[A-Za-z-]+: [^\r\n]*\r\n)*\Z")
        if answer.status != 200:
            after = [(binding.contact, binding.expires) for _, record in phone.table for binding in record]
            self.assertEqual(after, before)
