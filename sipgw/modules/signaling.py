"""One function to answer a request, with or without a transaction, as the script has chosen.

After ``t_newtran`` the reply goes through the transaction, otherwise it is stateless (RFC 3261 8.2.7)."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.exports import ERROR, FAILURE, REQUEST, Module, function, pvar, requires
from sipgw.modules.sl import Sl, check_status, refuses_line
from sipgw.proxy.redirect import contact_line
from sipgw.script.run import Run
from sipgw.sip.message import Request


class Signaling(Module):
    """Answers requests through ``tm`` where there is a transaction, through ``sl`` where there is none."""

    tm: Any = requires("tm", optional=True)
    sl: Sl | None = requires("sl", optional=True)

    async def start(self) -> None:
        """Make sure that there is a way to answer."""
        if self.tm is None and self.sl is None:
            raise ValueError('signaling needs loadmodule "tm.so" or "sl.so" before it')

    def reply(self, run: Run, status: int, reason: str, *, headers: str = "", body: bytes = b"", content_type: str = "") -> bool:
        """Answer ``run.message``; for scripts and for other modules. False, with an error logged, if it cannot be done."""
        transaction = run.transaction
        if transaction is None:
            if self.sl is None:
                run.user.log(-1, "send_reply: there is no transaction, and module sl is not loaded")
                return False
            return self.sl.reply(run, status, reason, headers=headers, body=body, content_type=content_type)
        if not 100 <= status <= 699 or refuses_line(run, "send_reply", reason):
            return False
        if 300 <= status < 400:
            contact = contact_line(run)
            if contact:
                headers = f"{contact}\r\n{headers}"
        transaction.reply(run, status, reason, headers=headers, body=body, content_type=content_type)
        return True

    @function(REQUEST | FAILURE | ERROR)
    def send_reply(self, run: Run, code: Annotated[int, check_status], reason: str) -> bool:
        """Answer the request with ``code`` and ``reason``."""
        if run.transaction is None and self.sl is not None:
            return self.sl.reply(run, code, reason)
        return self.reply(run, code, reason)

    @pvar("sig_local_totag")
    def sig_local_totag(self, run: Run) -> str | None:
        """The To tag that ``send_reply`` would use now; null in a reply."""
        request = run.message
        if not isinstance(request, Request):
            return None
        transaction = run.transaction
        tag: str = run.user.new_tag(request) if transaction is None else transaction.tag()
        return tag
