"""The management commands of tm: requests of our own, and transactions that are answered or cancelled from outside."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.user import TransactionUser
from sipgw.exports import mi
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._tm_base import TmBase
from sipgw.proxy.forward import NoWay
from sipgw.proxy.headers import is_header_text
from sipgw.proxy.originate import name_addr, new_request
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import reason_for
from sipgw.sip.uri import Uri

_OURS = frozenset({"via", "from", "to", "call-id", "cseq", "content-length", "max-forwards"})
"""Headers of ``uac_dlg`` that have a place of their own in the request, or are made here."""

_OPTIONS = ("next_hop", "socket", "body")


def _recipes() -> tuple[tuple[str, ...], ...]:
    """What ``uac_dlg`` can be called with: three parameters, and any of three others."""
    chosen: list[tuple[str, ...]] = [()]
    for option in _OPTIONS:
        chosen += [(*before, option) for before in chosen]
    return tuple(("method", "ruri", "headers", *options) for options in sorted(chosen, key=len))


class TmCommands(TmBase):
    """What tm does when it is asked from outside."""

    @mi(name="hash", alias="t_hash")
    def mi_hash(self) -> list[dict[str, int]]:
        """How many transactions there are: one row, since there is one table."""
        total = self.UAS_transactions.value + self.UAC_transactions.value
        return [{"index": 0, "Current": self.layer.in_use, "Total": total}]

    @mi(name="reply", alias="t_reply", named_only=True,
        recipes=tuple(("code", "reason", "trans_id", "to_tag", *rest)
                      for rest in ((), ("new_headers",), ("body",), ("new_headers", "body"))))
    def mi_reply(
        self, code: int, reason: str, trans_id: str, to_tag: str, new_headers: str | None = None, body: str | None = None
    ) -> None:
        """Answer a transaction: ``trans_id`` is its ``$T_id``; ``new_headers`` are lines, among them the type of a ``body``."""
        if not 100 < code <= 699:
            raise MIError(400, "Invalid code")
        if re.search(r"[\r\n\0]", reason) or (to_tag and not is_token(to_tag)):
            raise MIError(400, "Invalid reason or to_tag")
        headers = _lines(new_headers or "")
        if body and not re.search(r"^(?:content-type|c)[ \t]*:", headers, re.IGNORECASE | re.MULTILINE):
            raise MIError(400, "Content-Type missing")
        context = self.transaction_of(trans_id)
        if context is None:
            raise MIError(404, "Transaction not found")
        data = (body or "").encode("utf-8", "surrogateescape")
        if not context.reply(context.reply_run(), code, reason, to_tag=to_tag, headers=headers, body=data):
            raise MIError(500, "Reply failed")

    @mi(name="uac_cancel", alias="t_uac_cancel")
    def mi_uac_cancel(self, callid: str, cseq: str) -> None:
        """Cancel an INVITE that tm sent: of its own, or relayed; ``cseq`` is its number."""
        number, _, method = cseq.strip().partition(" ")
        if not number.isascii() or not number.isdigit() or len(number) > 10 or method.strip() not in ("", "INVITE"):
            raise MIError(400, "Invalid cseq")
        owner = self.local_invites.get((callid, int(number)))
        if owner is not None and owner.cancel():
            return
        context = self.find_call(callid, int(number))
        if context is None or context.request.method != "INVITE" or not context.is_open():
            raise MIError(481, "No such transaction")
        for branch in context.branches:
            if not branch.over:
                context.cancel_branch(branch)

    @mi(name="uac_dlg", alias="t_uac_dlg", named_only=True, recipes=_recipes())
    async def mi_uac_dlg(
        self,
        method: str,
        ruri: str,
        headers: str,
        next_hop: str | None = None,
        socket: str | None = None,
        body: str | None = None,
    ) -> Any:
        """Send a request with these ``headers``, From and To among them, and answer with its final response.

        With ``pass_provisional_replies`` a provisional one, but for 100, is answer enough."""
        user: TransactionUser = self.server.user
        request = _request(user, method, ruri, headers, body)
        if next_hop is not None and not _is_uri(next_hop):
            raise MIError(400, "Invalid next_hop")
        local = None if socket is None else user.find_socket(socket)
        if socket is not None and local is None:
            raise MIError(404, "Local socket not found")
        least = 101 if self.pass_provisional_replies else 200
        heard: Deferred[tuple[int, Response | None]] = Deferred()

        def answer(status: int, response: Response | None) -> None:
            if status >= least and not heard.called:
                heard.callback((status, response))

        try:
            sent = await self.originate(request, answer, next_hop=next_hop, socket=local)
        except NoWay as error:
            raise MIError(error.status, f"{error.phrase} ({error.number}/MI/UAC)") from None
        if not sent:
            raise MIError(500, "The request was dropped by local_route")
        status, response = await heard
        if response is None:
            return {"Status": f"{status} {reason_for(status)}"}
        head = "\r\n".join([*response.lines[1:], "", ""])
        return {"Status": f"{status} {response.reason}", "Message": head + response.body.decode("utf-8", "surrogateescape")}


_length = re.compile(r"^(?:content-length|l)[ \t]*:.*\r\n", re.IGNORECASE | re.MULTILINE).sub


def _lines(headers: str) -> str:
    """``headers`` as whole lines, but for Content-Length, which is counted here; the last one's end may be missing."""
    if headers and not headers.endswith("\r\n"):
        headers += "\r\n"
    if headers and not is_header_text(headers):
        raise MIError(400, "Bad headers")
    return _length("", headers)


def _is_uri(text: str) -> bool:
    try:
        Uri.parse(text)
    except MalformedMessage:
        return False
    return True


def _request(user: TransactionUser, method: str, ruri: str, headers: str, body: str | None) -> Request:
    """The request that ``uac_dlg`` is to send; ``MIError`` says what is wrong with it."""
    if not is_token(method) or method in ("ACK", "CANCEL"):
        raise MIError(400, "Invalid method")
    if not _is_uri(ruri):
        raise MIError(400, "Invalid ruri")
    try:
        given = parse(f"{method} sip:x SIP/2.0\r\n{_lines(headers)}\r\n".encode("utf-8", "surrogateescape"))
        from_, to, call_id = given.header("From"), given.header("To"), given.header("Call-ID")
        if to is None:
            raise MIError(400, "To missing")
        if from_ is None:
            raise MIError(400, "From missing")
        if call_id is not None and not re.fullmatch(r"\S+", call_id):
            raise MIError(400, "Bad headers")
        if body and given.header("Content-Type") is None:
            raise MIError(400, "Content-Type missing")
        cseq = 10
        if given.header("CSeq") is not None:
            cseq, same = given.cseq.number, given.cseq.method == method
            if not same:
                raise MIError(400, "Bad headers")
        rest = "".join(
            f"{given.lines[at]}\r\n" for at in range(1, len(given.lines)) if given.names[at] not in _OURS
        )
        made = new_request(
            user, method, ruri, name_addr(from_), name_addr(to), headers=rest,
            body=(body or "").encode("utf-8", "surrogateescape"), call_id=call_id or "", cseq=cseq,
        )
        made.from_.uri  # noqa: B018  # what cannot be read is refused here, not by a route
        made.to.uri  # noqa: B018
    except MalformedMessage as error:
        raise MIError(400, "Bad headers") from error
    return made
