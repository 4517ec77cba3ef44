"""How texts from elsewhere go to phones: through the script's own routes, or to a proxy."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.inner import bring_in
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import new_request, originate
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.xmpp.message import Page


async def send_page(
    user: Any, receiver: str, sender: str, page: Page, *, proxy: str, transport: str, host: str, origin: Any
) -> tuple[int, str]:
    """Send a MESSAGE into the script's routes, or to ``proxy``; its final status and reason."""
    try:
        request = new_request(
            user, "MESSAGE", receiver, f"<{sender}>", f"<{receiver}>",
            headers=f"{page.headers}Content-Type: {page.kind}\r\n", body=page.body, call_id=page.call_id,
        )
        if proxy:
            return await _to_proxy(user, request, proxy)
        outcome = await bring_in(user, request, transport=transport, host=host, origin=origin)
    except MalformedMessage as error:
        user.log(1, f"{transport}: no MESSAGE can be made for {receiver!r}: {error.reason}")
        return 400, error.reason
    return outcome.status, "" if outcome.response is None else outcome.response.reason


async def _to_proxy(user: Any, request: Request, proxy: str) -> tuple[int, str]:
    done: Deferred[tuple[int, str]] = Deferred()

    def answer(status: int, response: Response | None) -> None:
        if status >= 200 and not done.called:
            done.callback((status, "" if response is None else response.reason))

    try:
        sent = await originate(user, request, answer, next_hop=proxy)
    except NoWay as error:
        return error.status, str(error)
    return (403, "Forbidden") if sent is None else await done
