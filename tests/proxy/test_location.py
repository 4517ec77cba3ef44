"""Tests of sipgw.proxy.location."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.location import Binding, LocationTable, binding_key, find_contact
from sipgw.sip.uri import Uri, same_uri


def bind(table: LocationTable, contact: str, expires: float = 3600, q: int = -1, aor: str = "alice@x") -> Binding:
    """Put one binding into ``table``."""
    binding = Binding(aor, contact, binding_key(Uri.parse(contact)), expires, "call", 1, 0)
    binding.q = q
    table.insert(binding)
    return binding


def contacts(table: LocationTable, now: float = 0, aor: str = "alice@x") -> str:
    """The users of the live contacts in order."""
    return " ".join(binding.contact[4:-2] for binding in table.live(aor, now))


class OrderTests(SynchronousTestCase):
    """The order in which contacts are tried."""

    def test_by_q(self) -> None:
        """The highest q is first, contacts without q are last, and those of the same q stay in order of arrival."""
        table = LocationTable()
        for user, q in [("a", -1), ("b", 500), ("c", 1000), ("d", 0), ("e", 500), ("f", -1)]:
            bind(table, f"sip:{user}@x", q=q)
        self.assertEqual(contacts(table), "c b e d a f")

    def test_new_q(self) -> None:
        """A binding whose q changes moves to its new place; one whose q stays keeps its place."""
        table = LocationTable()
        first, second, third = (bind(table, f"sip:{user}@x", q=500) for user in "abc")
        third.q = 700
        table.changed(third, 500)
        self.assertEqual(contacts(table), "c a b")
        table.changed(second, 500)
        self.assertEqual(contacts(table), "c a b")
        first.q = 100
        table.changed(first, 500)
        self.assertEqual(contacts(table), "c b a")

    def test_by_time(self) -> None:
        """By time, what was written last is first, whatever its q."""
        table = LocationTable(by_time=True)
        first = bind(table, "sip:a@x", q=1000)
        bind(table, "sip:b@x", q=100)
        self.assertEqual(contacts(table), "b a")
        table.changed(first)
        self.assertEqual(contacts(table), "a b")


class ExpiryTests(SynchronousTestCase):
    """Bindings end."""

    def test_live(self) -> None:
        """A binding is live until its end, and asking for it afterwards removes it."""
        table = LocationTable()
        bind(table, "sip:a@x", 10)
        bind(table, "sip:b@x", 20)
        self.assertEqual(contacts(table, 9.9), "a b")
        self.assertEqual(contacts(table, 10), "b")
        self.assertEqual((table.count, table.expired, len(table)), (1, 1, 1))
        self.assertEqual(contacts(table, 20), "")
        self.assertEqual((table.count, table.expired, len(table)), (0, 2, 0))

    def test_sweep(self) -> None:
        """A sweep removes what expired before its tick, and nothing else."""
        table = LocationTable(tick=10)
        for index, expires in enumerate([5, 9.9, 10, 15, 100, inf]):
            bind(table, f"sip:{index}@x", expires, aor=f"user{index}@x")
        self.assertEqual(table.sweep(9.99), 0)
        self.assertEqual(table.sweep(10), 2)
        self.assertEqual(table.sweep(19), 0)
        self.assertEqual(table.sweep(20), 2)
        self.assertEqual(sorted(aor for aor, _ in table), ["user4@x", "user5@x"])
        self.assertEqual(table.sweep(1e12), 1)
        self.assertEqual((table.count, table.expired), (1, 5))

    def test_sweep_in_parts(self) -> None:
        """A sweep stops at its limit and the next one goes on."""
        table = LocationTable(tick=10)
        for index in range(25):
            bind(table, f"sip:{index}@x", 5 + index % 2 * 10, aor=f"user{index}@x")
        self.assertEqual([table.sweep(100, 10) for _ in range(4)], [10, 10, 5, 0])

    def test_refresh(self) -> None:
        """A refreshed binding lives on; one whose time was cut short goes earlier; nothing of the old time stays behind."""
        table = LocationTable(tick=10)
        binding = bind(table, "sip:a@x", 15)
        other = bind(table, "sip:b@x", 100)
        binding.expires = 50
        table.changed(binding)
        other.expires = 12
        table.changed(other)
        self.assertEqual(table.sweep(20), 1)
        self.assertEqual(contacts(table, 20), "a")
        for expires in range(60, 10000, 7):
            binding.expires = expires
            table.changed(binding)
        self.assertEqual(len(table._buckets), 1)

    def test_seconds_left(self) -> None:
        """What is left is rounded, 1 at least, and the largest number for what never ends."""
        binding = Binding("a@x", "sip:a@x", 0, 100.0, "c", 1, 0)
        self.assertEqual([binding.seconds_left(now) for now in (0.0, 0.4, 0.6, 99.0, 99.9)], [100, 100, 99, 1, 1])
        binding.expires = inf
        self.assertEqual(binding.seconds_left(5), 2**32 - 1)


class WalkTests(SynchronousTestCase):
    """Going over the whole table."""

    def test_changed_meanwhile(self) -> None:
        """A walk may be interrupted by changes: what is gone is left out, what is new is not seen."""
        table = LocationTable()
        bindings = [bind(table, f"sip:{index}@x", aor=f"user{index}@x") for index in range(4)]
        walk = iter(table)
        self.assertEqual(next(walk)[0], "user0@x")
        table.remove(bindings[1])
        bind(table, "sip:new@x", aor="new@x")
        self.assertEqual([aor for aor, _ in walk], ["user2@x", "user3@x"])

    def test_remove_twice(self) -> None:
        """To remove what is gone does nothing."""
        table = LocationTable()
        binding = bind(table, "sip:a@x")
        table.remove(binding)
        table.remove(binding)
        self.assertEqual((table.count, len(table), table._buckets), (0, 0, {}))

    def test_values(self) -> None:
        """Values are kept with an address-of-record as long as it has a binding."""
        table = LocationTable()
        self.assertFalse(table.keep("alice@x", "k", "v"))
        binding = bind(table, "sip:a@x")
        self.assertEqual(table.values("alice@x"), {})
        both = {"k": "v", "l": "w"}
        for name, value, left in [("k", "v", {"k": "v"}), ("l", None, {"k": "v"}), ("l", "w", both), ("l", "", {"k": "v"})]:
            self.assertTrue(table.keep("alice@x", name, value))
            self.assertEqual(table.values("alice@x"), left)
        table.remove(binding)
        bind(table, "sip:a@x")
        self.assertEqual(table.values("alice@x"), {})


URIS = [
    "sip:a@h", "SIP:a@h", "sips:a@h", "sip:A@h", "sip:%61@h", "sip:a@H", "sip:a@h:5060", "sip:a@h;transport=udp",
    "sip:a@h;transport=UDP", "sip:a@h;transport=tcp", "sip:a@h;x=1", "sip:a@h;x=2", "sip:a@h;x=1;y=2", "sip:a:pw@h",
    "sip:h", "sip:a@h?X=1", "sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", "tel:+1-2-3", "tel:+123", "tel:+124",
    "sip:%2541@h", "sip:%41@h", "sip:%C3%A9@h", "sip:%c3%a9@h",
]


class MatchTests(SynchronousTestCase):
    """Which binding a contact means."""

    def test_key(self) -> None:
        """URIs that are equal have the same key."""
        for one in URIS:
            for other in URIS:
                if same_uri(one, other):
                    self.assertEqual(binding_key(Uri.parse(one)), binding_key(Uri.parse(other)), (one, other))

    def test_as_rfc_3261_says(self) -> None:
        """A contact is found by URI equality (19.1.4), the same text first."""
        table = LocationTable()
        for contact in ("sip:a@h;x=1", "sip:a@h", "sip:b@h"):
            bind(table, contact)
        found = table.bindings("alice@x")
        for contact, expected in [
            ("sip:a@h", "sip:a@h"),
            ("sip:a@H", "sip:a@h;x=1"),
            ("sip:a@H;x=2", "sip:a@h"),
            ("sip:%62@h;y", "sip:b@h"),
            ("sip:a@h:5060", None),
            ("sips:a@h", None),
        ]:
            binding = find_contact(found, contact)
            self.assertEqual(binding and binding.contact, expected, contact)

    def test_call_id(self) -> None:
        """With a Call-ID, only bindings of that Call-ID are found."""
        table = LocationTable()
        one, other = bind(table, "sip:a@h"), bind(table, "sip:a@h")
        other.call_id = "other"
        self.assertIs(find_contact([one, other], "sip:a@h", "other"), other)
        self.assertIs(find_contact([one, other], "SIP:a@h", "other"), other)
        self.assertIsNone(find_contact([one, other], "sip:a@h", "third"))


class ModelTests(SynchronousTestCase):
    """Any sequence of writes."""

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("ircs"), st.integers(0, 5), st.integers(0, 3), st.integers(1, 300), st.integers(-1, 3)),
            max_size=60,
        )
    )
    def test_like_a_plain_dict(self, steps: list[tuple[str, int, int, int, int]]) -> None:
        """The table holds what a dict of (user, contact) -> end would hold, and no bucket is left over."""
        table = LocationTable(tick=10)
        model: dict[tuple[str, str], float] = {}
        now = 0.0
        for what, user, contact, seconds, q in steps:
            aor, uri = f"u{user}@x", f"sip:{contact}@h"
            binding = find_contact(table.bindings(aor), uri)
            if what == "s":
                now += seconds
                table.sweep(now)
                table.sweep(now)
            elif what == "r" and binding is not None:
                table.remove(binding)
                del model[aor, uri]
            elif what in "ic":
                model[aor, uri] = now + seconds
                if binding is None:
                    bind(table, uri, now + seconds, q, aor)
                else:
                    old, binding.q, binding.expires = binding.q, q, now + seconds
                    table.changed(binding, old)
            # the sweep is as late as its tick, reading is exact
            for key in [key for key, end in model.items() if end < now // 10 * 10]:
                del model[key]
            held = {(aor, binding.contact): binding.expires for aor, record in table for binding in record}
            self.assertEqual(held, model)
            for _, record in table:
                self.assertEqual([b.q for b in record], sorted((b.q for b in record), reverse=True))
        self.assertEqual(sum(map(len, table._buckets.values())), table.count)
        self.assertTrue(all(table._buckets.values()))
