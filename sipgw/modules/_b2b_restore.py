"""Back-to-back sessions that outlive the server: their rows, and how they go on.

What the table of sessions has no column for - the context, the routes of the script - stands with the first leg. A leg whose
answer nobody has acknowledged yet is acknowledged, a BYE that nobody has answered is sent again. In the middle of a bridge who is
kept talks with the new one, if that had answered, or with the old one again, if that had not been hung up on; both get
re-INVITEs. Re-INVITEs of phones that were under way are forgotten: whoever sent one sends it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sipgw.b2bua import bridge as bridges
from sipgw.b2bua.bridge import Bridge
from sipgw.b2bua.legs import Event, Leg, Role, State
from sipgw.b2bua.port import Logic
from sipgw.b2bua.rows import LOGIC, LOGIC_KEY, LOGIC_VERSION, SessionRow, kept_of, lasts, text_of, unanswered
from sipgw.b2bua.session import Session
from sipgw.b2bua.store import Row
from sipgw.exports import param, requires
from sipgw.modules._b2b_port import Entities, Held
from sipgw.modules._b2b_store import Storing
from sipgw.modules.b2b_entities import B2bEntities

TOP_HIDING = "top hiding"
BRIDGED = 4
"""A session that talks, as OpenSIPS numbers their states."""


class Restoring(Storing):
    """The sessions, as far as they are stored. ``ends``: when the time of a session is over, in seconds since 1970."""

    b2b_entities: B2bEntities = requires("b2b_entities")

    db_table: str = param("b2b_logic", "The table of sessions")
    cachedb_key_prefix: str = param("b2bl$", "What the keys of sessions in a Redis begin with")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.sessions: dict[str, Session] = {}
        self.ends: dict[str, int] = {}

    @property
    def entities(self) -> Entities:
        """The legs."""
        return self.b2b_entities.entities

    def kept(self, session: Session) -> Mapping[str, Any]:
        """What else of a session is stored, as JSON has it."""
        raise NotImplementedError

    def logic_of(self, session: Session, kept: Mapping[str, Any]) -> Logic | None:
        """Who decides about a session that goes on."""
        raise NotImplementedError

    def ends_at(self, session: Session) -> None:
        """End a session that goes on when its time is over."""
        raise NotImplementedError

    async def restore(self) -> None:
        """Go on with the sessions that are stored."""
        rows = await self.open_store(LOGIC_VERSION, LOGIC_KEY, LOGIC, self._rows)
        if self.store is None:
            return
        if self.b2b_entities.store is None:
            raise ValueError("b2b_logic stores sessions, and b2b_entities no legs: set db_url of both, or db_mode 0 here")
        self.b2b_entities.kept_with = lambda session: {"session": self.kept(session)}
        self.entities.on_changed.append(self._changed)
        self.entities.on_ended.append(self.store.ended)
        legs = self.b2b_entities.restored
        for row in rows:
            found = SessionRow.read(row)
            keys = [key for key, (_, its) in legs.items() if text_of(its["param"]) == found.key]
            if keys:
                self._restore(found, row, {key: legs.pop(key) for key in keys})
            else:
                self.store.delete(row)
        for key in [key for key, (_, row) in legs.items() if text_of(row["mod_name"]) == self.name]:
            assert self.b2b_entities.store is not None
            self.b2b_entities.store.delete(legs.pop(key)[1])
        if self.sessions:
            self.server.user.log(2, f"b2b_logic: {len(self.sessions)} calls go on")

    def _changed(self, session: Held) -> None:
        if isinstance(session, Session) and self.store is not None:
            self.store.changed(session)

    def _rows(self, session: Any) -> dict[str, Row]:
        """The row of a session, if one of its legs can be stored."""
        if not any(lasts(leg) and self.entities.has(session, leg) for leg in session.legs):
            return {}
        row = SessionRow(session.key, session.scenario or TOP_HIDING, BRIDGED, self.ends.get(session.key, 0))
        return {session.key: row.row(session.legs)}

    def _restore(self, found: SessionRow, row: Row, legs: dict[str, tuple[Leg, Row]]) -> None:
        kept: dict[str, Any] = {}
        for leg, its in legs.values():
            kept.update(kept_of(its).get("session", {}))
            number = found.legs.index(leg.key) if leg.key in found.legs else -1
            leg.id = leg.id or (found.ids[number] if number >= 0 else "")
            if not leg.told.origin and number in (0, 1):
                leg.told.fit(text_of(row.get(f"e{number + 1}_sdp")).encode("utf-8", "surrogateescape"), False)
        pair = [
            legs[key][0] if key in legs else unanswered(row, number) for number, key in enumerate(found.legs[:2], 1)
        ]
        while len(pair) < 2:
            pair.append(unanswered(row, 1))
        session = Session(
            found.key, pair, self.entities, scenario="" if found.scenario == TOP_HIDING else found.scenario,
            values={str(name): str(value) for name, value in kept.get("values", {}).items()},
            aside=[leg for leg, _ in legs.values() if leg not in pair], is_answered=True,
        )
        session.logic = self.logic_of(session, kept)
        self.sessions[session.key] = session
        self.ends[session.key] = found.ends
        self.entities.add(session, *(leg for leg, _ in legs.values()))
        if self.b2b_entities.store is not None and self.store is not None:
            self.b2b_entities.store.loaded(session, {key: its for key, (_, its) in legs.items()})
            self.store.loaded(session, {session.key: row})
        self.ends_at(session)
        bridging = unanswered(row, 2) if kept.get("bridging") else None
        self.entities.after(0, lambda: self._go_on(session, bridging))

    def _go_on(self, session: Session, bridging: Leg | None) -> None:
        """Do what the server that has ended has left undone."""
        for leg in session.legs:
            if leg.state in (State.ANSWERED, State.PARTING):
                if leg.role is Role.SERVER and leg.state is State.ANSWERED:
                    leg.step(Event.ACK)  # which came, or will not come again: our 2xx is not repeated any more
                else:
                    session.step(leg, Event.ACK)
            elif leg.state is State.LEAVING:
                leg.state = State.TALKING
                session.leave(leg)
        if bridging is not None:
            self._join_again(session, bridging)
        elif any(leg.is_over for leg in session.pair):
            session.end()
            session.check()

    def _join_again(self, session: Session, nobody: Leg) -> None:
        """Go on with a session in the middle of a bridge: the new one may not have answered, the old one may be gone."""
        kept, new = session.pair
        others = [leg for leg in (new, *session.aside) if leg.state is State.TALKING]
        if kept.state is not State.TALKING or not others:
            session.end()
            session.check()
            return
        session.aside = [leg for leg in session.aside if leg is not others[0]]
        nobody.key = ""  # it is forgotten as soon as they are joined
        session.pair = [kept, nobody]
        bridges.begin(session, Bridge(kept, others[0]))
        for leg in others[1:]:
            session.leave(leg)
