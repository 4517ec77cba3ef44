"""The legs of a back-to-back call: one dialog each, and the table of its states. Pure.

A *server* leg was begun by an INVITE that came, a *client* leg by one that we sent. ``TABLE`` is the whole state machine: for the
role, the state and what happens it gives the state that follows and what is to be done, in order; where nothing is said, nothing
happens. Two rules of RFC 3261 15 make it longer than one would think: the called side may not send BYE before its 2xx is
acknowledged (``PARTING`` waits for that), and a 2xx that crosses our CANCEL must be acknowledged and hung up on.

``python -m sipgw.b2bua.legs`` writes the diagram (docs/states/b2bua.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sipgw.b2bua.description import Told
from sipgw.b2bua.port import NOTHING, Content
from sipgw.sip.dialog import Dialog
from sipgw.sip.reliable import Heard

if TYPE_CHECKING:
    from sipgw.b2bua.exchange import Exchange
    from sipgw.b2bua.port import Origin
    from sipgw.b2bua.reliable import Upstream
    from sipgw.sip.message import Request, Response

TRANSPARENT: Final = "transparent-auth"
"""Challenges and what answers them pass (of a leg: of its whole call)."""
NUMBERED: Final = "pass-legs-upstream"
"""Client: the caller has an early dialog with each phone that rings."""
REDIRECTS: Final = "pass-3xx-contact"
"""Client: the Contacts of a 3xx, the next that comes, pass."""
MAX_FORKS: Final = 32
"""How many phones that ring for one INVITE are kept apart."""


class Role(Enum):
    """Who began the dialog."""

    SERVER = "server"
    CLIENT = "client"


class State(Enum):
    """How far a leg is."""

    INVITED = "invited"
    """Server: the INVITE has no final answer yet."""
    PLANNED = "planned"
    """Client: the INVITE has not been sent yet."""
    CALLING = "calling"
    """Client: the INVITE has been sent."""
    RINGING = "ringing"
    """Client: a provisional response has come."""
    CANCELLING = "cancelling"
    """Client: the INVITE is cancelled, its final response has not come."""
    ANSWERED = "answered"
    """There was a 2xx, and no ACK yet: from the caller, or from us."""
    PARTING = "parting"
    """Server: a BYE is to be sent as soon as the ACK is there."""
    TALKING = "talking"
    LEAVING = "leaving"
    """Our BYE has been sent."""
    OVER = "over"


class Event(Enum):
    """What happens to a leg."""

    CALL = "call"
    """Client: the time for its INVITE has come."""
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "3xx-6xx"
    """Of the INVITE: sent by us on a server leg, received on a client leg."""
    ACK = "ACK"
    """Received on a server leg; on a client leg: the time to send it has come."""
    NO_ACK = "no ACK"
    """It has not come in 64*T1 (RFC 3261 13.3.1.4)."""
    CANCEL = "CANCEL"
    BYE = "BYE"
    LEAVE = "leave"
    """The leg is to end, because the other one has, or somebody wants so."""
    LEFT = "left"
    """Our BYE has been answered, or nobody will answer it."""


class Do(Enum):
    """What is done when a state changes."""

    REPLY = "reply"
    """Give the INVITE the response that is at hand."""
    REFUSE = "reply 487 or why"
    """Give the INVITE a final response: 487 if it was cancelled, else why it ends."""
    AGREE = "200 to BYE"
    CALL = "send INVITE"
    ACKNOWLEDGE = "send ACK"
    CANCEL = "send CANCEL"
    HANG_UP = "send BYE"


_A, _B = Role.SERVER, Role.CLIENT
_S, _E = State, Event

TABLE: Final[Mapping[tuple[Role, State, Event], tuple[State, tuple[Do, ...]]]] = {
    (_A, _S.INVITED, _E.PROVISIONAL): (_S.INVITED, (Do.REPLY,)),
    (_A, _S.INVITED, _E.SUCCESS): (_S.ANSWERED, (Do.REPLY,)),
    (_A, _S.INVITED, _E.FAILURE): (_S.OVER, (Do.REPLY,)),
    (_A, _S.INVITED, _E.CANCEL): (_S.OVER, (Do.REFUSE,)),
    (_A, _S.INVITED, _E.BYE): (_S.OVER, (Do.AGREE, Do.REFUSE)),
    (_A, _S.INVITED, _E.LEAVE): (_S.OVER, (Do.REFUSE,)),
    (_A, _S.ANSWERED, _E.ACK): (_S.TALKING, ()),
    (_A, _S.ANSWERED, _E.NO_ACK): (_S.LEAVING, (Do.HANG_UP,)),
    (_A, _S.ANSWERED, _E.BYE): (_S.OVER, (Do.AGREE,)),
    (_A, _S.ANSWERED, _E.LEAVE): (_S.PARTING, ()),
    (_A, _S.PARTING, _E.ACK): (_S.LEAVING, (Do.HANG_UP,)),
    (_A, _S.PARTING, _E.NO_ACK): (_S.LEAVING, (Do.HANG_UP,)),
    (_A, _S.PARTING, _E.BYE): (_S.OVER, (Do.AGREE,)),
    (_A, _S.TALKING, _E.NO_ACK): (_S.LEAVING, (Do.HANG_UP,)),
    (_A, _S.TALKING, _E.BYE): (_S.OVER, (Do.AGREE,)),
    (_A, _S.TALKING, _E.LEAVE): (_S.LEAVING, (Do.HANG_UP,)),
    (_A, _S.LEAVING, _E.BYE): (_S.LEAVING, (Do.AGREE,)),
    (_A, _S.LEAVING, _E.LEFT): (_S.OVER, ()),
    (_B, _S.PLANNED, _E.CALL): (_S.CALLING, (Do.CALL,)),
    (_B, _S.PLANNED, _E.LEAVE): (_S.OVER, ()),
    (_B, _S.CALLING, _E.PROVISIONAL): (_S.RINGING, ()),
    (_B, _S.CALLING, _E.SUCCESS): (_S.ANSWERED, ()),
    (_B, _S.CALLING, _E.FAILURE): (_S.OVER, ()),
    (_B, _S.CALLING, _E.LEAVE): (_S.CANCELLING, (Do.CANCEL,)),
    (_B, _S.RINGING, _E.SUCCESS): (_S.ANSWERED, ()),
    (_B, _S.RINGING, _E.FAILURE): (_S.OVER, ()),
    (_B, _S.RINGING, _E.LEAVE): (_S.CANCELLING, (Do.CANCEL,)),
    (_B, _S.CANCELLING, _E.SUCCESS): (_S.LEAVING, (Do.ACKNOWLEDGE, Do.HANG_UP)),
    (_B, _S.CANCELLING, _E.FAILURE): (_S.OVER, ()),
    (_B, _S.ANSWERED, _E.ACK): (_S.TALKING, (Do.ACKNOWLEDGE,)),
    (_B, _S.ANSWERED, _E.BYE): (_S.OVER, (Do.ACKNOWLEDGE, Do.AGREE)),
    (_B, _S.ANSWERED, _E.LEAVE): (_S.LEAVING, (Do.ACKNOWLEDGE, Do.HANG_UP)),
    (_B, _S.TALKING, _E.NO_ACK): (_S.LEAVING, (Do.HANG_UP,)),
    (_B, _S.TALKING, _E.BYE): (_S.OVER, (Do.AGREE,)),
    (_B, _S.TALKING, _E.LEAVE): (_S.LEAVING, (Do.HANG_UP,)),
    (_B, _S.LEAVING, _E.BYE): (_S.LEAVING, (Do.AGREE,)),
    (_B, _S.LEAVING, _E.LEFT): (_S.OVER, ()),
}


class Leg:
    """One dialog of a back-to-back call.

    ``key``: its name, which is our tag on a server leg and the Call-ID on a client leg. ``id``: what the script calls it.
    ``dialog``: None until a response with a tag has come. ``token``: the transaction of the INVITE, while it has no final answer.
    ``invite``: the INVITE that began it. ``next_hop``: the URI that a client leg's INVITE goes to, "" for its Request-URI.
    ``exchange``: the re-INVITE that is going on, whoever sent it. It, ``token``, ``timer`` and ``acks`` are of the moment, all
    else is data that can be kept."""

    __slots__ = (
        "acknowledged", "acks", "avps", "contact", "contact_params", "dialog", "early", "exchange", "flags", "forks", "heard",
        "heard_number", "id", "interval", "invite", "key", "knows_update", "next_hop", "refreshes", "renumbered", "role",
        "said", "session_timer", "socket", "state", "tags", "timer", "token", "told", "unpracked", "upstream",
    )

    def __init__(
        self, key: str, role: Role, invite: Request, *, id: str = "", socket: Any = None, contact: str = "", next_hop: str = "",
    ) -> None:
        self.key = key
        self.id = id
        self.role = role
        self.state = State.INVITED if role is Role.SERVER else State.PLANNED
        self.invite = invite
        self.dialog: Dialog | None = None
        self.socket = socket
        self.contact = contact
        self.next_hop = next_hop
        self.token: Any = None
        self.timer: Any = None
        """Server: runs out if the ACK to its 2xx does not come."""
        self.exchange: Exchange | None = None
        self.said: Content = NOTHING
        """The last session description that came from it."""
        self.told = Told()
        """What it has been told."""
        self.acknowledged = False
        """Client: our ACK to the 2xx of the first INVITE has been sent."""
        self.acks: dict[tuple[str, int], Any] = {}
        """What the port keeps of the ACKs that it has sent."""
        self.avps: dict[str, list[int | str]] = {}
        """The AVPs that the script had when it began."""
        self.flags: set[str] = set()
        """What the script wants of it (``TRANSPARENT``, ``NUMBERED``, ``REDIRECTS``)."""
        self.contact_params = ""
        """Parameters of its Contact that the other side is shown, each with its semicolon."""
        self.renumbered: dict[int, int] = {}
        """What became of the CSeq numbers of INVITEs that had to be sent again, with a password."""
        self.early: dict[str, Dialog] = {}
        """The early dialogs, by the other side's tags, of a server leg by ours; ``dialog`` is the one that spoke last."""
        self.tags: list[str] = []
        """Client: the tags of all phones that have rung or answered, in their order."""
        self.forks: dict[str, Dialog] = {}
        """Client: dialogs of other phones that have answered too, and have been hung up on, by their tags."""

        # session timers (``timers.py``)
        self.interval = 0
        """Seconds that its session lasts without a refresh; 0: any."""
        self.refreshes = False
        """Whether it refreshes it, not we."""
        self.session_timer: Any = None
        self.knows_update = False
        """Whether it has said that it allows UPDATE."""
        # reliable provisional responses, of the moment (``reliable.py``)
        self.upstream: dict[int, Upstream] = {}
        """What it has been told so in answer to its INVITE, by the number of the phone (0: whichever)."""
        self.heard = Heard()
        """What has come from it so, in answer to our INVITE with the CSeq ``heard_number``."""
        self.heard_number = 0
        self.unpracked: dict[Origin, Dialog] = {}
        """Those of them that somebody else is to acknowledge, and their dialogs."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state is State.OVER

    def ring(self, response: Response) -> None:
        """Take the dialog that a provisional response to our INVITE has made or speaks of."""
        tag = response.to_tag
        if tag:
            found = self.early.get(tag)
            if found is None:
                while len(self.early) >= MAX_FORKS:
                    del self.early[next(iter(self.early))]
                found = self.early[tag] = Dialog.as_uac(self.invite, response)
                self._count(tag)
            self.dialog = found

    def answer(self, response: Response) -> None:
        """Take the dialog of the 2xx to our INVITE: an early one goes on with its CSeq numbers (RFC 3261 13.2.2.4)."""
        found = self.early.get(response.to_tag or "")
        if found is None:
            found = Dialog.as_uac(self.invite, response)
        else:
            found.confirm(response)
        self.early.clear()
        self._count(response.to_tag or "")
        self.dialog = found

    def _count(self, tag: str) -> None:
        if tag not in self.tags and len(self.tags) < 2 * MAX_FORKS:
            self.tags.append(tag)

    def number_of(self, tag: str) -> int:
        """Which of the phones that have rung has this tag, counted from 1; 0: none."""
        return self.tags.index(tag) + 1 if tag in self.tags else 0

    def tag(self, number: int) -> str:
        """Server: our tag where the caller is told of the phone with this number; 0: of no phone in particular."""
        return f"{self.key}.{number}" if number else self.key

    def number(self, tag: str) -> int:
        """Server: the number in a tag of ours."""
        rest = tag.removeprefix(f"{self.key}.")
        return int(rest) if rest != tag and rest.isascii() and rest.isdigit() and len(rest) < 4 else 0

    def speak(self, number: int) -> None:
        """Server: go on in the early dialog that the caller has with the phone of this number."""
        tag = self.tag(number)
        found = self.early.get(tag)
        if found is None and len(self.early) < 2 * MAX_FORKS:
            found = self.early[tag] = Dialog.as_uas(self.invite, tag, early=True)
        self.dialog = found or self.dialog

    def step(self, event: Event) -> tuple[Do, ...] | None:
        """Go on; what is to be done, None if ``event`` means nothing now."""
        row = TABLE.get((self.role, self.state, event))
        if row is None:
            return None
        self.state = row[0]
        return row[1]


def diagram(role: Role) -> str:
    """The table of ``role`` as a Mermaid diagram."""
    first = State.INVITED if role is Role.SERVER else State.PLANNED
    lines = ["stateDiagram-v2", f"    [*] --> {first.value}"]
    for (its, before, event), (after, actions) in TABLE.items():
        if its is role:
            done = ", ".join(action.value for action in actions)
            lines.append(f"    {before.value} --> {after.value}: {event.value}{' / ' if done else ''}{done}")
    lines.append(f"    {State.OVER.value} --> [*]")
    return "\n".join(lines)


def page() -> str:
    """What stands in docs/states/b2bua.md."""
    source = "Drawn from `TABLE` in `sipgw/b2bua/legs.py`, by `python -m sipgw.b2bua.legs`."
    parts = [f"# The legs of a back-to-back call\n\n{source}\n"]
    for role, title in ((Role.SERVER, "A server leg: the INVITE came to us"), (Role.CLIENT, "A client leg: we sent the INVITE")):
        parts.append(f"## {title}\n\n```mermaid\n{diagram(role)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
