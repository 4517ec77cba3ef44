"""uac: other names in From and To, and answers to the challenges of servers that calls are sent to.

The machinery is ``proxy/disguise.py`` and ``uac_auth``. What a call was changed to is kept in our Record-Route, so the script
must ``record_route()``, and nothing is lost by a restart. Challenges in the middle of a call move its numbers on,
too: that is kept with its dialog where module dialog follows it, else in memory alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from sipgw.exports import BRANCH, FAILURE, REQUEST, HeaderText, Module, every, function, param, requires
from sipgw.modules.dialog import Dialog
from sipgw.modules.rr import Rr
from sipgw.modules.tm import Tm
from sipgw.modules.uac_auth import UacAuth
from sipgw.proxy import disguise
from sipgw.proxy.ahead import Ahead
from sipgw.proxy.authentication import parse_algorithms
from sipgw.proxy.credentials import CHALLENGES
from sipgw.proxy.disguise import Disguise, Uris
from sipgw.proxy.following import within_of
from sipgw.proxy.record_route import RouteParam, routed
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request

MAX_CHALLENGES = 3
"""How many challenges of one transaction are answered (hardening P7): one for a proxy, one for a registrar, one stale."""


@dataclass(slots=True)
class _Answers:
    """The answers of one transaction to challenges: of each header and realm the last one, and how many there were.

    COMPAT: a failure route begins with the edits of the request route, so what an earlier one answered is put in again; OpenSIPS
    forgets it, and a proxy and a server that both ask then ask for ever."""

    lines: dict[tuple[str, str], str] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True, slots=True)
class _Written:
    """A note: what answers the challenges so far, whose ``count`` has moved the CSeq on."""

    count: int
    text: str


def _lines(edits: EditList, _way: Any) -> str:
    """The lines that answer challenges."""
    return edits.notes(_Written)[-1].text


def check_mode(value: str) -> None:
    """Refuse an unknown mode."""
    if value not in ("none", "manual", "auto"):
        raise ValueError(f"unknown restore_mode {value!r}: write none, manual or auto")


def check_param(value: str) -> None:
    """Refuse what is no name of a parameter."""
    if not is_token(value):
        raise ValueError(f"{value!r} is no name of a parameter")


class Uac(Module):
    """Calls as somebody else, and with a password."""

    tm: Tm = requires("tm")
    uac_auth_module: UacAuth = requires("uac_auth")
    rr: Rr | None = requires("rr", optional=True)
    dialog: Dialog | None = requires("dialog", optional=True)

    restore_mode: str = param("auto", "How later requests get the same names: none, manual or auto", check=check_mode)
    restore_passwd: str = param("", "What the names in our Record-Route are sealed with")
    rr_from_store_param: str = param("vsf", "The parameter of our Record-Route with what From was", check=check_param)
    rr_to_store_param: str = param("vst", "The parameter of our Record-Route with what To was", check=check_param)
    force_dialog: int = param(0, "1: a call whose names are changed gets a dialog, if the script makes none")

    async def start(self) -> None:
        """Look at each Route of ours."""
        self._disguise = Disguise(self.restore_passwd)
        self._params = {"from": self.rr_from_store_param.lower(), "to": self.rr_to_store_param.lower()}
        if self.rr is not None:
            self.rr.on_route.append(self._routed)
        elif self.restore_mode != "none":
            raise ValueError(f'uac: restore_mode "{self.restore_mode}" needs loadmodule "rr.so"')
        if self.force_dialog and self.dialog is None:
            raise ValueError('uac: force_dialog needs loadmodule "dialog.so"')
        self._ahead = Ahead(self.server.user.clock)

    # -- names

    def _replace(self, run: Run, name: str, display: str | None, uri: str) -> bool:
        try:
            address = disguise.address_of(run.message, name)
        except MalformedMessage as error:
            run.user.log_rarely("uac_replace", -1, f"uac_replace_{name}: {error}")
            return False
        if uri and not disguise.is_uri(uri):
            run.user.log_rarely("uac_replace", -1, f"uac_replace_{name}: {uri!r} is no URI")
            return False
        shown = address.display if display is None else disguise.displayed(display)
        disguise.put(run, name, shown, uri or address.uri_text)
        if self.restore_mode != "none":
            self.tm.rewrite_replies(run, disguise.undisguised)
            if uri and uri != address.uri_text and run.message.to_tag is None:
                text = self._disguise.close(Uris(address.uri_text, uri))
                run.edits = run.edits.note(RouteParam(f";{self._params[name]}={text}"))
        message = run.message
        if self.force_dialog and self.dialog is not None and run.kind is RouteKind.REQUEST and message.to_tag is None:
            if message.method == "INVITE":
                self.dialog.create_dialog(run)
        return True

    @function(REQUEST | FAILURE | BRANCH)
    def uac_replace_from(self, run: Run, display: HeaderText | None, uri: HeaderText) -> bool:
        """Give From another display name ("": none; left out: as it is) and URI ("": as it is), for the whole dialog."""
        return self._replace(run, "from", display, uri)

    @function(REQUEST | FAILURE | BRANCH)
    def uac_replace_to(self, run: Run, display: HeaderText | None, uri: HeaderText) -> bool:
        """Give To another display name ("": none; left out: as it is) and URI ("": as it is), for the whole dialog."""
        return self._replace(run, "to", display, uri)

    def _restore(self, run: Run, name: str) -> bool:
        """Change the party that our Route tells of: in a request of the caller in ``name``, of the callee in the other one."""
        text = routed(run).param(self._params[name])
        if not text or self.rr is None:
            return False
        uris = self._disguise.open(text)
        if uris is None:
            run.user.log_rarely("uac_restore", 1, f"uac: {self._params[name]} of a Route was not made with this restore_passwd")
            return False
        try:
            if self.rr.is_upstream(run):
                disguise.put_uri(run, "to" if name == "from" else "from", uris.before)
            else:
                disguise.put_uri(run, name, uris.behind)
        except MalformedMessage:
            return False
        self.tm.rewrite_replies(run, disguise.undisguised)
        return True

    @function(REQUEST | FAILURE | BRANCH)
    def uac_restore_from(self, run: Run) -> bool:
        """Change the caller's URI in a request within the dialog as our Route tells; for restore_mode "manual"."""
        return self._restore(run, "from")

    @function(REQUEST | FAILURE | BRANCH)
    def uac_restore_to(self, run: Run) -> bool:
        """Change the callee's URI in a request within the dialog as our Route tells; for restore_mode "manual"."""
        return self._restore(run, "to")

    def _routed(self, run: Run, params: str) -> None:
        """Do what the Route of a request within a dialog asks for."""
        if self.restore_mode == "auto":
            self._restore(run, "from")
            self._restore(run, "to")
        by = self._told(run) + self._ahead.find(run.message)
        if by:
            disguise.shift(run, by)
            self.tm.rewrite_replies(run, disguise.undisguised)
        if run.message.method == "BYE":
            self._ahead.over(run.message)

    def _told(self, run: Run) -> int:
        """By how much our Route says that the CSeq is ahead: in requests of the caller."""
        return 0 if self.rr is None or self.rr.is_upstream(run) else disguise.shift_in(routed(run).params)

    @every(60)
    def sweep(self) -> None:
        """Forget calls that are over."""
        self._ahead.sweep()

    # -- CSeq and passwords

    def _shift(self, run: Run, by: int) -> None:
        """Move the CSeq on by ``by``, for the rest of the dialog, too."""
        request = run.message
        total = disguise.shift(run, by)
        if request.to_tag is None:
            disguise.remember_shift(run, by)
        else:
            total -= self._told(run)
            found = within_of(run)
            if found is not None and found.target is not None and self.dialog is not None:
                found.target.moved(request.cseq.number, request.cseq.number + total, request.method == "INVITE")
                self.dialog.follower.save(found.call)
            else:
                self._ahead.note(request, total)
        self.tm.rewrite_replies(run, disguise.undisguised)

    @function(REQUEST | FAILURE | BRANCH)
    def uac_inc_cseq(self, run: Run, increment: int) -> bool:
        """Move the CSeq on by ``increment``, for the whole dialog; responses have the caller's again."""
        if not 1 <= increment <= disguise.MAX_SHIFT:
            run.user.log_rarely("uac_inc_cseq", -1, f"uac_inc_cseq: {increment} is not between 1 and {disguise.MAX_SHIFT}")
            return False
        self._shift(run, increment)
        return True

    @function(REQUEST | FAILURE | BRANCH)
    def uac_auth(self, run: Run, algorithms: Annotated[str, parse_algorithms] | None = None) -> bool:
        """In a failure route: answer the challenge of the branch that failed, so that ``t_relay()`` tries it again.

        ``algorithms``: only these. The Request-URI becomes the one that was challenged, the CSeq goes on by one."""
        context = run.transaction
        if run.kind is not RouteKind.FAILURE or context is None or context.picked is None:
            run.user.log_rarely("uac_auth", -1, "uac_auth: there is no challenge outside of a failure route")
            return False
        response, request = context.picked.response, run.message
        assert isinstance(request, Request)
        if response is None or response.status not in CHALLENGES:
            return False
        answers: _Answers = context.kept.setdefault("uac_auth", _Answers())
        if answers.count >= MAX_CHALLENGES:
            run.user.log_rarely("uac_auth", 1, f"uac_auth: challenged more than {MAX_CHALLENGES} times, given up")
            return False
        uri = context.picked.run.uri.partition("?")[0]
        body = request.body if run.edits.new_body is None else run.edits.new_body
        try:
            made = self.uac_auth_module.answer(run, response, request.method, uri, body, algorithms or "")
        except ValueError as error:
            run.user.log_rarely("uac_auth", -1, f"uac_auth: {error}")
            return False
        if made is None:
            return False
        answers.count += 1
        answers.lines[made.name, made.credentials.realm] = f"{made.name}: {made.credentials}"
        run.uri = context.picked.run.uri
        edits = run.edits
        written = edits.notes(_Written)
        if not written:
            edits = edits.later(len(request.lines) - 1, _lines)
        run.edits = edits.note(_Written(answers.count, "\r\n".join(answers.lines.values())))
        self._shift(run, answers.count - (written[-1].count if written else 0))
        return True
