"""b2b_entities: the legs of back-to-back calls; ``b2b_logic`` says what passes between them.

See ``sipgw/b2bua/legs.py`` for what a leg is and docs/states/b2bua.md for its states."""

from __future__ import annotations

from typing import Any

from sipgw.b2bua.legs import Leg, Role
from sipgw.exports import mi, param, requires
from sipgw.modules._b2b_port import Entities
from sipgw.modules._ua_sessions import UaSessions
from sipgw.modules.uac_auth import UacAuth
from sipgw.sip.grammar import is_token

_STORE = "legs that outlive the server come in a later version of sipgw"
_SCRIPT = "set the routes of b2b_logic: those of b2b_entities come in a later version of sipgw"


def key_prefix(text: str) -> None:
    """Refuse what cannot begin a tag."""
    if not is_token(text):
        raise ValueError(f"{text!r} cannot begin a tag: letters, digits and -.!%*_+`'~ can")


class B2bEntities(UaSessions):
    """Keeps the legs of back-to-back calls, and of the server's own."""

    name = "b2b_entities"
    later = {
        **dict.fromkeys(
            ("db_url", "cachedb_url", "cachedb_key_prefix", "db_table", "db_mode", "update_period", "cluster_id"), _STORE
        ),
        **dict.fromkeys(("script_req_route", "script_reply_route"), _SCRIPT),
        "passthru_prack": "100rel is taken out of what passes; reliable provisional responses come in a later version of sipgw",
    }

    uac_auth: UacAuth | None = requires("uac_auth", optional=True)

    server_hsize: int = param(9, "Size of a hash table", unused="legs are in a dict, which grows by itself")
    client_hsize: int = param(9, "Size of a hash table", unused="legs are in a dict, which grows by itself")
    b2b_key_prefix: str = param(
        "B2B", "What our tags and Call-IDs begin with: servers in a row need one each", check=key_prefix
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.entities: Entities = None  # type: ignore[assignment]  # made by start

    async def start(self) -> None:
        """Be ready to take what comes for legs."""
        self.entities = Entities(self.server.user, self.tm, self.b2b_key_prefix)
        self.entities.auth = self.uac_auth
        self.server.user.on_request.append(self.entities.taken)

    @mi("list", alias="b2be_list")
    def list_entities(self) -> list[dict[str, Any]]:
        """``b2b_entities:list``: the legs that there are."""
        return [self.entry(leg) for _, leg in self.entities.legs.values()]

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
