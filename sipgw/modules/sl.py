"""Stateless replies (RFC 3261 8.2.7), and the ACKs that answer them.

A stateless reply to an INVITE brings an ACK that belongs to no transaction. Its To tag is one that this server made (it is
computed from the request, so that a retransmission gets the same one): such ACKs end here and no script sees them."""

from __future__ import annotations

from typing import Annotated

from sipgw.exports import ERROR, REQUEST, Module, function, param, statistic
from sipgw.proxy.redirect import contact_line
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request


def check_status(value: int) -> None:
    """Refuse what is no SIP status."""
    if not 100 <= value <= 699:
        raise ValueError(f"{value} is no status: write 100 to 699")


def refuses_line(run: Run, what: str, text: str) -> bool:
    """Whether ``text`` cannot stand in one line of a message; logged then (hardening P5)."""
    if "\r" in text or "\n" in text or "\0" in text:
        run.user.log(-1, f"{what}: refused, the text has a line end or NUL inside")
        return True
    return False


class Sl(Module):
    """Answers requests without keeping anything."""

    enable_stats: int = param(1, "Whether replies are counted: 0 or 1")

    replies_1xx = statistic("Provisional replies sent", name="1xx_replies")
    replies_2xx = statistic("2xx replies sent", name="2xx_replies")
    replies_3xx = statistic("3xx replies sent", name="3xx_replies")
    replies_4xx = statistic("4xx replies sent", name="4xx_replies")
    replies_5xx = statistic("5xx replies sent", name="5xx_replies")
    replies_6xx = statistic("6xx replies sent", name="6xx_replies")
    sent_replies = statistic("Replies sent")
    sent_err_replies = statistic("Replies sent by sl_reply_error()")
    received_acks = statistic("ACKs to stateless replies that ended here", name="received_ACKs")

    async def start(self) -> None:
        """See every request before the script does, for the ACKs."""
        self._classes = (
            self.replies_1xx, self.replies_2xx, self.replies_3xx, self.replies_4xx, self.replies_5xx, self.replies_6xx,
        )
        self.server.user.on_request.append(self.absorb)

    def absorb(self, run: Run) -> bool:
        """Take an ACK to a stateless reply of ours out of the way."""
        request = run.message
        if request.method != "ACK" or not run.user.is_our_tag(request.to_tag):
            return False
        if self.enable_stats:
            self.received_acks.value += 1
        return True

    def reply(self, run: Run, status: int, reason: str, *, headers: str = "", body: bytes = b"", content_type: str = "") -> bool:
        """Answer ``run.message``; an ACK is not answered, which counts as done. A 3xx names the branches in its Contact.

        False, with an error logged, where there is nothing to answer or ``reason`` cannot stand in a status line."""
        request = run.message
        if not isinstance(request, Request) or not 100 <= status <= 699 or refuses_line(run, "sl_send_reply", reason):
            return False
        if request.method == "ACK":
            return True
        if 300 <= status < 400:
            contact = contact_line(run)
            if contact:
                headers = f"{contact}\r\n{headers}"
        run.user.reply(run, status, reason, headers=headers, body=body, content_type=content_type)
        if self.enable_stats:
            self.sent_replies.value += 1
            self._classes[status // 100 - 1].value += 1
        return True

    @function(REQUEST | ERROR)
    def sl_send_reply(self, run: Run, code: Annotated[int, check_status], reason: str) -> bool:
        """Answer the request with ``code`` and ``reason``, keeping no state."""
        return self.reply(run, code, reason)

    @function(REQUEST)
    def sl_reply_error(self, run: Run) -> bool:
        """Answer the request with what went wrong last, or 500.

        The run's error is used if it is a ``SipError``."""
        error = run.error
        if isinstance(error, SipError):
            status, reason = error.status, error.reason
        else:
            status, reason = 500, "Server error occurred (1/SL)"
        sent = self.reply(run, status, reason)
        if sent and self.enable_stats and run.message.method != "ACK":
            self.sent_err_replies.value += 1
        return sent
