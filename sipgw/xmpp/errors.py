"""Final responses as stanza errors, and back (RFC 7247 7; RFC 6120 8.3.3). Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CONDITIONS", "Condition", "of_condition", "of_status"]


class Condition(NamedTuple):
    """``name`` as an element; ``type`` says what the sender may do: auth, cancel, continue, modify, wait."""

    name: str
    type: str


STATUSES: Final = {
    300: "redirect", 301: "gone", 302: "redirect", 305: "redirect", 380: "not-acceptable",
    400: "bad-request", 401: "not-authorized", 402: "bad-request", 403: "forbidden", 404: "item-not-found", 405: "not-allowed",
    406: "not-acceptable", 407: "registration-required", 408: "remote-server-timeout", 409: "conflict", 410: "gone",
    413: "policy-violation",
    414: "policy-violation", 415: "not-acceptable", 416: "not-acceptable", 420: "feature-not-implemented", 421: "not-acceptable",
    423: "resource-constraint", 430: "recipient-unavailable", 439: "feature-not-implemented", 440: "policy-violation",
    480: "recipient-unavailable", 481: "item-not-found", 482: "not-acceptable", 483: "not-acceptable", 484: "item-not-found",
    485: "item-not-found", 486: "recipient-unavailable", 487: "recipient-unavailable", 488: "not-acceptable",
    489: "policy-violation", 491: "unexpected-request", 493: "bad-request",
    500: "internal-server-error", 501: "feature-not-implemented", 502: "remote-server-not-found", 503: "service-unavailable",
    504: "remote-server-timeout", 505: "not-acceptable", 513: "policy-violation",
    600: "recipient-unavailable", 603: "recipient-unavailable", 604: "item-not-found", 606: "not-acceptable",
}
"""Each status with the condition that says it."""

CONDITIONS: Final = {
    "bad-request": ("modify", 400), "conflict": ("cancel", 409), "feature-not-implemented": ("cancel", 501),
    "forbidden": ("auth", 403), "gone": ("cancel", 410), "internal-server-error": ("cancel", 500),
    "item-not-found": ("cancel", 404), "jid-malformed": ("modify", 400), "not-acceptable": ("modify", 406),
    "not-allowed": ("cancel", 405), "not-authorized": ("auth", 401), "payment-required": ("auth", 402),
    "policy-violation": ("modify", 403), "recipient-unavailable": ("wait", 480), "redirect": ("modify", 302),
    "registration-required": ("auth", 403), "remote-server-not-found": ("cancel", 404), "remote-server-timeout": ("wait", 408),
    "resource-constraint": ("wait", 500), "service-unavailable": ("cancel", 480), "subscription-required": ("auth", 403),
    "undefined-condition": ("cancel", 400), "unexpected-request": ("wait", 491),
}
"""Each condition with its type and the status that says it. service-unavailable is what servers say of a user who is away, or
whom they do not want to speak of (RFC 6121 8.5): 480. A conflict is a name that somebody in a room has: 409, which phones take
for 400 (RFC 3261 8.1.3.2). Statuses that would ask a phone for passwords are not made."""
_CLASSES: Final = {3: "redirect", 4: "bad-request", 5: "internal-server-error", 6: "recipient-unavailable"}


def of_status(status: int) -> Condition:
    """The condition for a final response; one that nobody knows is its class's x00 (RFC 3261 8.1.3.2)."""
    name = STATUSES.get(status) or _CLASSES.get(status // 100, "undefined-condition")
    return Condition(name, CONDITIONS[name][0])


def of_condition(name: str) -> int:
    """The status for a condition; 500 for one that nobody knows. 401 and 402, which ask a phone for what it has not, are 403."""
    status = CONDITIONS.get(name, ("cancel", 500))[1]
    return 403 if status in (401, 402) else status
