"""b2b_entities: the legs of back-to-back calls; ``b2b_logic`` says what passes between them.

See ``sipgw/b2bua/legs.py`` for what a leg is and docs/states/b2bua.md for its states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sipgw.b2bua.legs import Leg, Role
from sipgw.b2bua.own import OwnSession
from sipgw.b2bua.rows import ENTITIES, ENTITIES_VERSION, ENTITY_KEY, kept_of, lasts, leg_row, read_leg, text_of
from sipgw.b2bua.store import Row
from sipgw.exports import mi, param, requires
from sipgw.modules._b2b_port import Entities
from sipgw.modules._b2b_store import Storing
from sipgw.modules._dialog_base import one_of
from sipgw.modules._ua_sessions import UaSessions
from sipgw.modules.uac_auth import UacAuth
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import is_token


def key_prefix(text: str) -> None:
    """Refuse what cannot begin a tag."""
    if not is_token(text):
        raise ValueError(f"{text!r} cannot begin a tag: letters, digits and -.!%*_+`'~ can")


class B2bEntities(UaSessions, Storing):
    """Keeps the legs of back-to-back calls, and of the server's own."""

    name = "b2b_entities"
    later = {
        "cluster_id": "sipgw speaks no cluster protocol",
    }

    script_req_route: str = param("", "The route that sees each request within a call, and may change it, before all else")
    script_reply_route: str = param("", "The route that sees each response but 100 so")
    uac_auth: UacAuth | None = requires("uac_auth", optional=True)

    server_hsize: int = param(9, "Size of a hash table", unused="legs are in a dict, which grows by itself")
    client_hsize: int = param(9, "Size of a hash table", unused="legs are in a dict, which grows by itself")
    b2b_key_prefix: str = param(
        "B2B", "What our tags and Call-IDs begin with: servers in a row need one each", check=key_prefix
    )

    db_table: str = param("b2b_entities", "The table of legs")
    cachedb_key_prefix: str = param("b2be$", "What the keys of legs in a Redis begin with")
    passthru_prack: int = param(
        0, "Who acknowledges reliable provisional responses: 0 we, 1 who called", check=one_of(0, 1)
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.entities: Entities = None  # type: ignore[assignment]  # made by start
        self.restored: dict[str, tuple[Leg, Row]] = {}
        """Legs that were stored, with their rows, until their session takes them."""
        self.kept_with: Callable[[Any], Mapping[str, Any]] = lambda _session: {}
        """What else of a session is stored with its first leg."""

    async def start(self) -> None:
        """Be ready to take what comes for legs."""
        self.entities = Entities(self.server.user, self.tm, self.b2b_key_prefix)
        self.entities.auth = self.uac_auth
        self.entities.reliability.passes_pracks = bool(self.passthru_prack)
        self.entities.shown.requests, self.entities.shown.replies = self.script_req_route, self.script_reply_route
        for name in filter(None, (self.script_req_route, self.script_reply_route)):
            if name not in self.server.user.routes.named:
                raise ValueError(f"b2b_entities: there is no route[{name}]")
        self.server.user.on_request.append(self.entities.taken)
        self.server.user.kin.append(self.entities.kin)
        for row in await self.open_store(ENTITIES_VERSION, ENTITY_KEY, ENTITIES, self._rows, "param"):
            try:
                leg = read_leg(row, self.server.user.find_socket)
            except (ValueError, TypeError, SipError) as error:
                name = text_of(row["tag1"] if row["type"] == 0 else row["callid"])
                self.server.user.log(-1, f"b2b_entities: the row of {name!r} in {self.db_table} cannot be used: {error}")
                continue
            own = kept_of(row).get("own")
            if own is None:
                self.restored[leg.key] = leg, row
            else:
                self._restore_own(leg, row, own)
        if self.store is not None:
            self.entities.on_changed.append(self.store.changed)
            self.entities.on_over.append(self.store.ended)

    def _rows(self, session: Any) -> dict[str, Row]:
        """The rows of the legs of a session."""
        rows: dict[str, Row] = {}
        for leg in session.legs:
            if lasts(leg) and self.entities.has(session, leg):
                if isinstance(session, OwnSession):
                    own = {"own": {"letters": session.letters, "ends": session.ends}}
                    rows[leg.key] = leg_row(leg, session.key, self.name, own)
                else:
                    rows[leg.key] = leg_row(leg, session.key, more=None if rows else self.kept_with(session))
        return rows

    def _restore_own(self, leg: Leg, row: Row, own: Mapping[str, Any]) -> None:
        """Go on with a call of the server's own."""
        session = OwnSession(leg, self.entities, self._tell, str(own.get("letters", "")))
        session.ends = int(own.get("ends", 0))
        self.entities.add(session, leg)
        if self.store is not None:
            self.store.loaded(session, {leg.key: row})
        session.limit = self.entities.after(max(0, session.ends - int(self.server.user.wall_clock())), session.expired)
        self.entities.after(0, session.resume)

    @mi("list", alias="b2be_list")
    def list_entities(self) -> list[dict[str, Any]]:
        """``b2b_entities:list``: the legs that there are."""
        return [
            self.entry(leg, "" if isinstance(session, OwnSession) else session.key)
            for session, leg in self.entities.legs.values()
        ]

    @staticmethod
    def describe(leg: Leg) -> dict[str, Any]:
        """What b2b_logic says of one leg."""
        dialog = leg.dialog
        invite = leg.invite
        own, theirs = ("", "") if dialog is None else (dialog.id.local_tag, dialog.id.remote_tag)
        server = leg.role is Role.SERVER
        return {
            "type": leg.role.value, "key": leg.key, "id": leg.id, "state": leg.state.value, "callid": invite.call_id,
            "fromtag": theirs if server else invite.from_tag or "", "totag": own if server else theirs,
            "from_uri": invite.from_.uri_text, "to_uri": invite.to.uri_text, "contact": leg.contact,
            "remote_contact": "" if dialog is None else dialog.remote_target,
            "cseq": [0 if dialog is None else dialog.local_cseq or 0, 0 if dialog is None else dialog.remote_cseq or 0],
        }
