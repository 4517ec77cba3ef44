"""What a redirect server answers (RFC 3261 8.3): the destination set of a request as the Contact of a 3xx.

It is what ``$ds`` prints: the Request-URI only where the script has changed it, then every branch."""

from __future__ import annotations

from sipgw.script.run import Run


def contact_line(run: Run) -> str:
    """``Contact: <...>;q=0.7, <...>`` without its line end, or "" when the run has no destinations."""
    targets = []
    if run.uri != getattr(run.message, "uri", ""):
        targets.append((run.uri, run.q))
    targets.extend((branch.uri, branch.q) for branch in run.branches)
    if not targets:
        return ""
    return "Contact: " + ", ".join(f"<{uri}>" if q < 0 else f"<{uri}>;q={write_q(q)}" for uri, q in targets)


def write_q(q: int) -> str:
    """A q value in thousandths as text: 700 is ``0.7``, 1000 is ``1``."""
    return f"{q / 1000:.3f}".rstrip("0").rstrip(".")
