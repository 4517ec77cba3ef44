"""topology_hiding: neither side of a call learns of the other, or of what lies behind it. See ``proxy/hiding.py``."""

from __future__ import annotations

from os import urandom
from typing import Annotated, Any

from sipgw.exports import REQUEST, Module, function, param, pvar, requires
from sipgw.modules.dialog import Dialog, match_mode
from sipgw.modules.tm import Tm
from sipgw.proxy.dialogs import CallFlag
from sipgw.proxy.following import DID_FALLBACK, call_of, within_of
from sipgw.proxy.hidden_contacts import DECODED, HiddenContacts, OneWay, Side
from sipgw.proxy.hiding import HIDDEN, LETTERS, HiddenCalls, HideFlag, Passed, fit_user, names_of
from sipgw.script.run import Run, Value
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request


def hide_flags(text: str) -> HideFlag:
    """The flags of ``topology_hiding``."""
    flags = HideFlag(0)
    for letter in text.replace(" ", "").replace(",", ""):
        if letter not in LETTERS:
            raise ValueError(f"topology_hiding knows no flag {letter!r}; it takes {', '.join(LETTERS)}")
        flags |= LETTERS[letter]
    return flags


def shown_users(text: str) -> tuple[str, str]:
    """The users of our Contact, for the caller and for the callee: ``both``, ``/caller``, ``//callee`` or ``/caller/callee``."""
    if not text.startswith("/"):
        return fit_user(text), fit_user(text)
    caller, _, callee = text[1:].partition("/")
    return fit_user(caller), fit_user(callee)


def encode_param(text: str) -> tuple[str, str, str]:
    """The name, the password and the layout of ``th_contact_encode_param_password``."""
    name, _, rest = text.partition(":")
    password, _, layout = rest.partition(":")
    if not is_token(name):
        raise ValueError(f"{name!r} is no name of a parameter: write name, name:password or name:password:C")
    if layout.upper() not in ("", "C", "L"):
        raise ValueError(f"the layout is C or L, not {layout!r}")
    return name, password, layout.upper()


def uri_part(text: str) -> None:
    """Refuse what is no part of a URI."""
    if text.lower() not in ("host", "port", "user", "params"):
        raise ValueError(f"write host, port, user or params, not {text!r}")


def scheme(text: str) -> None:
    """Refuse what is no way to encode."""
    if text.lower() not in ("base64", "base32"):
        raise ValueError(f"write base64 or base32, not {text!r}")


class TopologyHiding(Module):
    """Hides the two sides of a dialog from each other."""

    name = "topology_hiding"
    tm: Tm = requires("tm")
    dialog: Dialog | None = requires("dialog", optional=True)

    force_dialog: int = param(0, "Whether topology_hiding() makes a dialog of each INVITE: 0 or 1; needs module dialog")
    th_passed_contact_uri_params: str = param("", "Parameters of a Contact's URI that the other side is to see: 'ob;pn-tok'")
    th_passed_contact_params: str = param("", "Parameters of a Contact that the other side is to see")
    th_callid_passwd: str = param("OpenSIPS", "What the Call-IDs of callees (flag C) are made with: write one of your own")
    th_callid_prefix: str = param("DLGCH_", "What the Call-IDs of callees begin with", check=fit_user)
    th_contact_encode_scheme: str = param("base64", "How what is sealed is written: base64 or base32", check=scheme)
    th_contact_caller_username_var: str = param(
        "_th_contact_caller_username_var_", "The $dlg_val with the user of the Contact that the caller is shown"
    )
    th_contact_callee_username_var: str = param(
        "_th_contact_callee_username_var_", "The $dlg_val with the user of the Contact that the callee is shown"
    )
    th_callid_loop_protection: int = param(
        0, "Keep the From tag in Call-IDs",
        unused="a Call-ID is taken back only in the dialog that it was made for, so loops do no harm",
    )
    th_use_param: str = param("thinfo", "Which of th_contact_encode_param_password new Contacts have")
    th_contact_encode_param_password: str = param(
        "", "The parameter of our Contacts without a dialog, and what seals it: 'thinfo:a-secret'; a second one is only read",
        check=encode_param, each="_key",
    )

    th_internal_trusted_tag: str = param(
        "", "The tag of sockets inside: what goes in by them without a dialog keeps its Vias, its Contact and its Record-Routes"
    )
    th_external_socket_tag: str = param(
        "", "The tag of the socket by which requests leave that come from inside by a Route of another server"
    )
    th_auto_route_on_trusted_socket: int = param(
        1, "Whether what goes in has a Record-Route of ours, by which topology_hiding_match() knows requests from inside: 0 or 1"
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._keys: list[tuple[str, str, str]] = []
        super().__init__(server, **parameters)
        self.calls: HiddenCalls | None = None
        self.contacts: HiddenContacts = None  # type: ignore[assignment]  # made by start

    def _key(self, text: str) -> None:
        if len(self._keys) == 2:
            raise ValueError("two of them at most: the current one and the one before")
        self._keys.append(encode_param(text))

    async def start(self) -> None:
        """Be ready to hide."""
        passed = Passed(names_of(self.th_passed_contact_uri_params), names_of(self.th_passed_contact_params))
        keys = []
        chance = urandom(32)
        for name, password, layout in self._keys or [(self.th_use_param, "", "")]:
            if layout == "L":
                self.server.user.log(3, f"topology_hiding: {name} is written as layout C: there is one layout in sipgw")
            if not password:
                why = "whoever hides without dialogs needs th_contact_encode_param_password with a secret to outlive a restart"
                self.server.user.log(3, f"topology_hiding: the parameter {name} has no password: {why}")
            keys.append((name, password.encode("utf-8", "surrogateescape") or chance))
        name = self.th_use_param if "th_use_param" in self.__dict__ or len(self._keys) != 1 else self._keys[0][0]
        if name not in [key for key, _ in keys]:
            raise ValueError(f"topology_hiding: th_use_param is {name!r}, which th_contact_encode_param_password does not name")
        base32 = self.th_contact_encode_scheme.lower() == "base32"
        one_way = OneWay(
            self.th_internal_trusted_tag, self.th_external_socket_tag, bool(self.th_auto_route_on_trusted_socket)
        )
        self.contacts = HiddenContacts(self.tm, passed, keys, name, base32, one_way)
        if self.dialog is not None:
            names = self.th_contact_caller_username_var, self.th_contact_callee_username_var
            self.calls = HiddenCalls(
                self.dialog.follower, self.tm, passed, names, self.th_callid_prefix, self.th_callid_passwd
            )
            self.dialog.on_loaded(self.calls.adopt)
            self.server.user.kin.append(self.calls.kin)
        elif self.force_dialog:
            raise ValueError("topology_hiding: force_dialog needs the module dialog")

    @function(REQUEST)
    def topology_hiding(
        self, run: Run, flags: Annotated[str, hide_flags] | None = None, params: Annotated[str, shown_users] | None = None
    ) -> bool:
        """Hide the dialog that this first request begins: U shows users of Contacts, C hides the Call-ID, D names the dialog in
        the user, a and A keep the Contact that the caller and the callee were shown; ``params``: other users to show."""
        request = run.message
        if not isinstance(request, Request) or request.to_tag or request.method in ("ACK", "CANCEL") or run.flow is None:
            return False
        kept = run.keep()
        if HIDDEN in kept:
            return True
        try:
            chosen = hide_flags(flags) if flags else HideFlag(0)
            users = shown_users(params) if params else ("", "")
        except ValueError as error:
            run.user.log(-1, f"topology_hiding: {error}")
            return False
        call = call_of(run)
        if call is None and self.force_dialog and self.dialog is not None and request.method == "INVITE":
            call = self.dialog.follower.create(run, CallFlag(0))
        kept[HIDDEN] = True
        if call is not None and self.calls is not None:
            self.calls.begin(run, call, chosen, users)
        else:
            self.contacts.begin(run, chosen, users)
        return True

    @function(REQUEST)
    def topology_hiding_match(self, run: Run, dlg_match_mode: Annotated[str, match_mode] | None = None) -> bool:
        """Send a request within a hidden dialog on to its other side; the modes are those of match_dialog."""
        kept = run.keep()
        if HIDDEN in kept:
            return True
        try:
            if dlg_match_mode is not None:
                mode = match_mode(dlg_match_mode)
            else:
                mode = DID_FALLBACK if self.dialog is None else self.dialog.dlg_match_mode
        except ValueError as error:
            run.user.log(-1, str(error))
            return False
        found = self.contacts.match(run) or (self.calls is not None and self.calls.match(run, mode))
        if found:
            kept[HIDDEN] = True
        return found

    @pvar("TH_callee_callid")
    def callee_call_id(self, run: Run) -> str | None:
        """``$TH_callee_callid``: the Call-ID that the callee knows the call by; null if that is not another one."""
        found = within_of(run)
        if found is None or self.calls is None or not found.call.module_flags & HideFlag.CALL_ID:
            return None
        return self.calls.call_id(found.call, found.call.winner)

    @pvar("TH_decoded_contact")
    def decoded_contact(self, run: Run) -> str | None:
        """``$TH_decoded_contact``: where the Contact leads that a request without a dialog has come by, as ``<URI>``."""
        side = _decoded(run)
        return None if side is None else f"<{side.target}>"

    @pvar("TH_decoded_contact", named=True, check=uri_part)
    def decoded_contact_part(self, run: Run, part: str) -> Value:
        """``$(TH_decoded_contact(host))``: a part of it: host, port, user or params."""
        return _part(self.decoded_contact(run), part)

    @pvar("TH_decoded_routes", indexed=True)
    def decoded_routes(self, run: Run, index: int | str | None = None) -> str | None:
        """``$(TH_decoded_routes[index])``: the routes by which that request goes on, from 0 on, or from -1 back."""
        side = _decoded(run)
        routes = () if side is None else side.routes
        place = index if isinstance(index, int) else 0
        return routes[place] if -len(routes) <= place < len(routes) else None

    @pvar("TH_decoded_routes", named=True, indexed=True, check=uri_part)
    def decoded_routes_part(self, run: Run, part: str, index: int | str | None = None) -> Value:
        """``$(TH_decoded_routes(host)[index])``: a part of one of them."""
        return _part(self.decoded_routes(run, index), part)

    @pvar("TH_decoded_routes_count")
    def decoded_routes_count(self, run: Run) -> int:
        """``$TH_decoded_routes_count``: how many they are."""
        side = _decoded(run)
        return 0 if side is None else len(side.routes)


def _decoded(run: Run) -> Side | None:
    found: Side | None = None if run.context is None else run.context.get(DECODED)
    return found


def _part(text: str | None, part: str) -> Value:
    """A part of the URI of a name-addr."""
    if text is None:
        return None
    try:
        uri = NameAddr.parse(text).uri
    except MalformedMessage:
        return None
    name = part.lower()
    if name == "port":
        return uri.port or 0
    return {"host": uri.host, "user": uri.user, "params": (uri.params or "").lstrip(";")}[name] or None
