"""The stages of a bridge: what is done, in which order, to put another leg into the place of one. Pure.

Four legs can have a part: ``kept``, who stays; ``new``, whom it is to talk with; ``media``, a server that plays something to
``kept`` until ``new`` has answered; ``old``, who talked with ``kept`` before and waits, as long as it is not sure that all goes
well. ``TABLE`` is the whole machine: for the stage and what happens it gives the stage that follows and what is done, in order;
where nothing is said, nothing happens. *Begun* and *failed* last no time: what the bridge is like says how it goes on.

All ways are offers that cross: one side is asked for an offer, by an INVITE without one, the other is given it, and its answer
goes into the ACK for the first (RFC 3725). Who has offered and cannot get an answer yet is answered that nothing shall flow."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Stage(Enum):
    """How far a bridge is."""

    BEGUN = "begun"
    HOLDING = "holding"
    """``kept`` is being put on hold."""
    ASKING = "asking"
    """``kept`` is asked for an offer, for ``media``."""
    FETCHING = "fetching"
    """``media`` has it."""
    CALLING = "calling"
    """``new`` is called."""
    OFFERING = "offering"
    """``kept`` has the offer of ``new``."""
    RENEWING = "renewing"
    """``new`` has answered to what ``kept`` had said long ago: ``kept`` is asked for a new offer."""
    MATCHING = "matching"
    """``new`` has it."""
    JOINING = "joining"
    """``new`` is a caller: ``kept`` has its offer."""
    ADMITTING = "admitting"
    """``new`` is a caller and has been answered, its ACK has not come."""
    KNOCKING = "knocking"
    """``new`` is a caller, and ``kept`` has not answered yet."""
    EARLY_FETCHING = "early fetching"
    """``kept`` is a caller who has no answer: ``media`` has its offer."""
    EARLY_CALLING = "early calling"
    """``kept`` is a caller who has no answer: ``new`` has its offer."""
    RAISING = "raising"
    """``kept`` and ``new`` are both called, ``kept`` first."""
    PAIRING = "pairing"
    """``new`` is called, with the offer of ``kept``."""
    WAITING = "waiting"
    """The same, and ``kept`` has been told that nothing shall flow yet."""
    CLEARING = "clearing"
    """It has failed, and ``kept`` has not answered yet what it was asked."""
    FAILED = "failed"
    RESTORING = "restoring"
    """``kept`` is asked for an offer, for ``old``."""
    RETURNING = "returning"
    """``old`` has it."""
    OVER = "over"


class Turn(Enum):
    """What happens to a bridge, or what it is like."""

    HOLD = "hold"
    MEDIA = "a media server"
    PLAIN = "neither"
    EARLY_MEDIA = "kept is not answered, a media server"
    EARLY = "kept is not answered"
    CALLER = "new is a caller"
    KNOCK = "new is a caller, kept has not answered"
    BOTH = "both are to be called"
    RINGS = "new rings already"
    TALKS = "new talks already"
    KEPT_AGREES = "2xx of kept"
    KEPT_REFUSES = "kept refuses"
    KEPT_UPDATED = "2xx of kept, who had agreed to an UPDATE"
    KEPT_ENDS = "kept ends"
    NEW_OFFERS = "2xx of new, an offer"
    NEW_AGREES = "2xx of new, an answer"
    NEW_REFUSES = "new refuses or ends"
    NEW_ACKNOWLEDGES = "ACK of new"
    MEDIA_AGREES = "2xx of media"
    MEDIA_REFUSES = "media refuses or ends"
    OLD_AGREES = "2xx of old"
    OLD_REFUSES = "old refuses or ends"
    LATE = "it takes too long"
    UNTOUCHED = "old waits, kept has heard nothing"
    TOUCHED = "old waits"
    HOPELESS = "nobody waits"


class Act(Enum):
    """What is done when the stage changes."""

    HOLD = "hold kept"
    THANK = "ACK to kept"
    ASK = "ask kept for an offer"
    FETCH = "INVITE media with the offer of kept"
    PLAY = "answer of media to kept"
    PAUSE = "answer to kept: nothing shall flow"
    STOP = "BYE to media"
    CALL = "INVITE new"
    PAIR = "INVITE new with the offer of kept"
    OFFER = "offer of new to kept"
    CONNECT = "ACK to kept, its answer in the ACK to new"
    TAKE = "ACK to new"
    MATCH = "offer of kept to new"
    CROSS = "ACK to the other, its answer in the ACK to kept"
    KNOCK = "UPDATE to kept, if that is wanted"
    JOIN = "offer of the caller to kept"
    ADMIT = "200 to the caller"
    CLOSE = "ACK of the caller to kept"
    ANSWER = "answer of new to kept"
    SUCCEED = "old is hung up on"
    RETURN = "new is hung up on"
    GIVE_BACK = "offer of kept to old"
    HANG_UP = "all are hung up on"


_S, _T, _A = Stage, Turn, Act

TABLE: Final[Mapping[tuple[Stage, Turn], tuple[Stage, tuple[Act, ...]]]] = {
    (_S.BEGUN, _T.HOLD): (_S.HOLDING, (_A.HOLD,)),
    (_S.BEGUN, _T.MEDIA): (_S.ASKING, (_A.ASK,)),
    (_S.BEGUN, _T.PLAIN): (_S.CALLING, (_A.CALL,)),
    (_S.BEGUN, _T.EARLY_MEDIA): (_S.EARLY_FETCHING, (_A.FETCH,)),
    (_S.BEGUN, _T.EARLY): (_S.EARLY_CALLING, (_A.PAIR,)),
    (_S.BEGUN, _T.CALLER): (_S.JOINING, (_A.JOIN,)),
    (_S.BEGUN, _T.KNOCK): (_S.KNOCKING, (_A.KNOCK,)),
    (_S.BEGUN, _T.BOTH): (_S.RAISING, ()),
    (_S.BEGUN, _T.RINGS): (_S.CALLING, ()),
    (_S.BEGUN, _T.TALKS): (_S.RENEWING, (_A.ASK,)),
    (_S.HOLDING, _T.KEPT_AGREES): (_S.BEGUN, (_A.THANK,)),
    (_S.HOLDING, _T.KEPT_REFUSES): (_S.BEGUN, ()),
    (_S.ASKING, _T.KEPT_AGREES): (_S.FETCHING, (_A.FETCH,)),
    (_S.ASKING, _T.KEPT_REFUSES): (_S.CALLING, (_A.STOP, _A.CALL)),
    (_S.FETCHING, _T.MEDIA_AGREES): (_S.CALLING, (_A.PLAY, _A.CALL)),
    (_S.FETCHING, _T.MEDIA_REFUSES): (_S.CALLING, (_A.PAUSE, _A.CALL)),
    (_S.FETCHING, _T.LATE): (_S.CALLING, (_A.PAUSE, _A.STOP, _A.CALL)),
    (_S.CALLING, _T.NEW_OFFERS): (_S.OFFERING, (_A.STOP, _A.OFFER)),
    (_S.CALLING, _T.NEW_AGREES): (_S.RENEWING, (_A.STOP, _A.TAKE, _A.ASK)),
    (_S.CALLING, _T.NEW_REFUSES): (_S.FAILED, ()),
    (_S.OFFERING, _T.KEPT_AGREES): (_S.OVER, (_A.CONNECT, _A.SUCCEED)),
    (_S.OFFERING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.OFFERING, _T.NEW_REFUSES): (_S.CLEARING, ()),
    (_S.RENEWING, _T.KEPT_AGREES): (_S.MATCHING, (_A.MATCH,)),
    (_S.RENEWING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.RENEWING, _T.NEW_REFUSES): (_S.CLEARING, ()),
    (_S.MATCHING, _T.NEW_AGREES): (_S.OVER, (_A.CROSS, _A.SUCCEED)),
    (_S.MATCHING, _T.NEW_REFUSES): (_S.FAILED, (_A.PAUSE,)),
    (_S.JOINING, _T.KEPT_AGREES): (_S.ADMITTING, (_A.ADMIT,)),
    (_S.JOINING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.JOINING, _T.NEW_REFUSES): (_S.CLEARING, ()),
    (_S.ADMITTING, _T.NEW_ACKNOWLEDGES): (_S.OVER, (_A.CLOSE, _A.SUCCEED)),
    (_S.ADMITTING, _T.NEW_REFUSES): (_S.FAILED, (_A.PAUSE,)),
    (_S.KNOCKING, _T.KEPT_AGREES): (_S.JOINING, (_A.THANK, _A.JOIN)),
    (_S.KNOCKING, _T.KEPT_UPDATED): (_S.ADMITTING, (_A.THANK, _A.ADMIT)),
    (_S.KNOCKING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.KNOCKING, _T.NEW_REFUSES): (_S.FAILED, ()),
    (_S.EARLY_FETCHING, _T.MEDIA_AGREES): (_S.EARLY_CALLING, (_A.PLAY, _A.PAIR)),
    (_S.EARLY_FETCHING, _T.MEDIA_REFUSES): (_S.EARLY_CALLING, (_A.PAIR,)),
    (_S.EARLY_FETCHING, _T.LATE): (_S.EARLY_CALLING, (_A.STOP, _A.PAIR)),
    (_S.EARLY_CALLING, _T.NEW_AGREES): (_S.OVER, (_A.STOP, _A.ANSWER)),
    (_S.EARLY_CALLING, _T.NEW_REFUSES): (_S.OVER, (_A.STOP, _A.ANSWER)),
    (_S.RAISING, _T.KEPT_AGREES): (_S.PAIRING, (_A.PAIR,)),
    (_S.RAISING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.PAIRING, _T.NEW_AGREES): (_S.OVER, (_A.CROSS, _A.SUCCEED)),
    (_S.PAIRING, _T.NEW_REFUSES): (_S.FAILED, (_A.PAUSE,)),
    (_S.PAIRING, _T.LATE): (_S.WAITING, (_A.PAUSE,)),
    (_S.WAITING, _T.NEW_AGREES): (_S.RENEWING, (_A.TAKE, _A.ASK)),
    (_S.WAITING, _T.NEW_REFUSES): (_S.FAILED, ()),
    (_S.CLEARING, _T.KEPT_AGREES): (_S.FAILED, (_A.PAUSE,)),
    (_S.CLEARING, _T.KEPT_REFUSES): (_S.FAILED, ()),
    (_S.FAILED, _T.UNTOUCHED): (_S.OVER, (_A.RETURN,)),
    (_S.FAILED, _T.TOUCHED): (_S.RESTORING, (_A.RETURN, _A.ASK)),
    (_S.FAILED, _T.HOPELESS): (_S.OVER, (_A.HANG_UP,)),
    (_S.RESTORING, _T.KEPT_AGREES): (_S.RETURNING, (_A.GIVE_BACK,)),
    (_S.RESTORING, _T.KEPT_REFUSES): (_S.OVER, (_A.HANG_UP,)),
    (_S.RESTORING, _T.OLD_REFUSES): (_S.OVER, (_A.HANG_UP,)),
    (_S.RETURNING, _T.OLD_AGREES): (_S.OVER, (_A.CROSS,)),
    (_S.RETURNING, _T.OLD_REFUSES): (_S.OVER, (_A.HANG_UP,)),
} | {(stage, Turn.KEPT_ENDS): (Stage.OVER, (Act.HANG_UP,)) for stage in Stage if stage is not Stage.OVER}


def diagram() -> str:
    """The table as a Mermaid diagram, without the rows that are the same everywhere."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.BEGUN.name}"]
    lines += [f"    {stage.name}: {stage.value}" for stage in Stage]
    for (before, turn), (after, acts) in TABLE.items():
        if turn is not Turn.KEPT_ENDS:
            done = ", ".join(act.value for act in acts)
            lines.append(f"    {before.name} --> {after.name}: {turn.value}{' / ' if done else ''}{done}")
    lines.append(f"    {Stage.OVER.name} --> [*]")
    return "\n".join(lines)


def page() -> str:
    """What stands in docs/states/bridge.md."""
    source = "Drawn from `TABLE` in `sipgw/b2bua/stages.py`, by `python -m sipgw.b2bua.stages`."
    rest = "In every stage, when `kept` ends all are hung up on."
    return f"# A bridge: another leg in the place of one\n\n{source}\n\n{rest}\n\n```mermaid\n{diagram()}\n```\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
