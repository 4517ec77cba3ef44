"""Tests of sipgw.b2bua.rows: legs and sessions as rows, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.legs import Leg, Role, State
from sipgw.b2bua.rows import (
    ENTITIES,
    GAP,
    LENGTHS,
    LOGIC,
    SESSION_LENGTHS,
    SessionRow,
    kept_of,
    lasts,
    leg_row,
    read_leg,
    unanswered,
)
from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, parse

COMPARED = ("id", "local", "remote", "remote_target", "route_set", "remote_cseq", "early", "secure")


@dataclass(frozen=True)
class Place:
    """A socket."""

    transport: str = "udp"
    host: str = "192.0.2.9"
    port: int = 5060


def invite(from_: str = "<sip:a@x>", to: str = "<sip:b@x>", call_id: str = "c") -> Request:
    """An INVITE."""
    found = parse(
        f"INVITE sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: {from_};tag=f\r\nTo: {to}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: 7 INVITE\r\nContact: <sip:a@192.0.2.1>\r\n\r\n".encode("utf-8", "surrogateescape")
    )
    assert isinstance(found, Request)
    return found


def talking(role: Role, request: Request, *, key: str = "B2B.1", routes: tuple[str, ...] = (), target: str = "sip:p@h") -> Leg:
    """A leg that talks."""
    name = key if role is Role.SERVER else request.call_id
    leg = Leg(name, role, request, id="one", socket=Place(), contact="<sip:us@192.0.2.9>")
    leg.state = State.TALKING
    from_, to = str(request.from_).partition(";tag=")[0], str(request.to)
    if role is Role.SERVER:
        leg.dialog = Dialog(DialogId(request.call_id, key, "f"), to, from_, target, [*routes], None, 7, early=False, secure=False)
    else:
        leg.dialog = Dialog(DialogId(request.call_id, "f", "r"), from_, to, target, [*routes], 7, None, early=False, secure=False)
    return leg


def back(row: dict[str, Any]) -> Leg:
    """The leg that is read."""
    return read_leg(row, lambda name: Place() if name == "udp:192.0.2.9:5060" else None)


class LegTests(SynchronousTestCase):
    """Rows of legs."""

    def same(self, leg: Leg) -> Leg:
        """What is read is what was written."""
        row = leg_row(leg, "12.3")
        self.assertEqual(set(row), set(ENTITIES))
        found = back(row)
        for name in COMPARED:
            self.assertEqual(getattr(found.dialog, name), getattr(leg.dialog, name), name)
        for name in ("key", "id", "role", "state", "contact", "socket", "avps", "flags", "contact_params"):
            self.assertEqual(getattr(found, name), getattr(leg, name), name)
        assert found.dialog is not None and leg.dialog is not None
        self.assertEqual(found.dialog.local_cseq, (leg.dialog.local_cseq or 0) + GAP)
        self.assertEqual(
            [str(value) for value in (found.invite.uri, found.invite.from_, found.invite.to, found.invite.cseq)],
            [str(value) for value in (leg.invite.uri, leg.invite.from_, leg.invite.to, leg.invite.cseq)],
        )
        return found

    def test_back(self) -> None:
        """Both roles, with routes, names and values."""
        for role in Role:
            leg = talking(role, invite('"A, B" <sip:a@x>', "Bob <sip:b@x;p=1>"), routes=("<sip:r1;lr>", '"x" <sip:r2;lr>;a=b'))
            leg.avps = {"n": [1, "two"]}
            self.same(leg)

    def test_states(self) -> None:
        """What has been answered lasts, nothing else."""
        for state in State:
            leg = talking(Role.CLIENT, invite())
            leg.state = state
            self.assertEqual(lasts(leg), state in (State.ANSWERED, State.PARTING, State.TALKING, State.LEAVING))
            if lasts(leg):
                self.same(leg)

    def test_contact_with_parameters(self) -> None:
        """A Contact of ours that is more than a URI."""
        leg = talking(Role.SERVER, invite())
        leg.contact = "<sip:us@192.0.2.9>;+sip.rendering=no"
        self.same(leg)

    def test_choices(self) -> None:
        """What was chosen for a leg, and a tag that is not its key."""
        leg = talking(Role.SERVER, invite())
        assert leg.dialog is not None
        leg.flags, leg.contact_params = {"transparent-auth"}, ";audio"
        leg.dialog.id = leg.dialog.id._replace(local_tag=f"{leg.key}.2")
        self.same(leg)

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(
        st.text(st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=("Cs", "Cc")), max_size=300),
        st.text("ab1", min_size=1, max_size=300), st.sampled_from(list(Role)), st.binary(max_size=3),
    )
    def test_any(self, name: str, call_id: str, role: Role, octets: bytes) -> None:
        """Names of any length, and octets that are no UTF-8: columns hold what they can, nothing is lost."""
        odd = octets.decode("utf-8", "surrogateescape")
        odd = "".join(each for each in odd if (each.isprintable() and each not in '"\\') or "\udc80" <= each <= "\udcff")
        leg = talking(role, invite(f'"{name}{odd}" <sip:a@x>', call_id=call_id), target="sip:" + call_id)
        row = leg_row(leg, "12.3")
        for column, length in LENGTHS.items():
            value = row[column]
            if isinstance(value, str):
                self.assertLessEqual(len(value), length, column)
                value.encode()
        self.same(leg)

    def test_of_opensips(self) -> None:
        """Columns alone are enough; what OpenSIPS keeps in ``storage`` does not matter."""
        for role in Role:
            row = leg_row(talking(role, invite()), "12.3") | {"storage": b"\x01\x00bin", "leg_cseq": 99}
            self.assertEqual(kept_of(row), {})
            found = back(row)
            assert found.dialog is not None
            self.assertEqual((found.state, found.dialog.remote_cseq), (State.TALKING, None))

    def test_refused(self) -> None:
        """Rows that are no leg."""
        good = leg_row(talking(Role.SERVER, invite()), "12.3")
        for wrong in ({"state": 3}, {"state": 7}, {"callid": "a\r\nb"}, {"from_uri": "<"}, {"callid": ""}, {"tag0": "a b"}):
            with self.assertRaises((ValueError, SipError), msg=str(wrong)):
                back({**good, **wrong})


class SessionTests(SynchronousTestCase):
    """Rows of sessions."""

    def test_back(self) -> None:
        """Two legs, three, and one."""
        legs = [talking(Role.SERVER, invite()), *(talking(Role.CLIENT, invite(call_id=call_id)) for call_id in "de")]
        for count in (1, 2, 3):
            row = SessionRow("1.2", "x" * 70, 4, 123).row(legs[:count])
            self.assertEqual(set(row), set(LOGIC))
            self.assertTrue(all(len(str(row[name])) <= length for name, length in SESSION_LENGTHS.items()))
            found = SessionRow.read(row)
            self.assertEqual((found.key, found.state, found.ends), ("1.2", 4, 123))
            self.assertEqual((found.legs, found.ids), ([leg.key for leg in legs[:count]], ["one"] * count))

    def test_unanswered(self) -> None:
        """A leg that nobody has answered stands in for itself, over."""
        row = SessionRow("1.2", "", 4, 0).row([talking(Role.SERVER, invite()), talking(Role.CLIENT, invite(call_id="d"))])
        for number, role in ((1, Role.SERVER), (2, Role.CLIENT)):
            leg = unanswered(row, number)
            self.assertEqual((leg.role, leg.id, leg.is_over), (role, "one", True))
