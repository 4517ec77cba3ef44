"""options: OPTIONS requests that are for this server itself are answered with what it can do (RFC 3261 11.2)."""

from __future__ import annotations

from sipgw.exports import REQUEST, Module, function, param, requires
from sipgw.modules.signaling import Signaling
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage


def _check_line(value: str) -> None:
    """Refuse what cannot stand in a header."""
    if any(char in value for char in "\r\n\0"):
        raise ValueError("a header has no line end or NUL in it")


class Options(Module):
    """Answers OPTIONS requests, as one asks a server whether it is there."""

    signaling: Signaling = requires("signaling")

    accept: str = param("*/*", "The Accept header of the answer; empty: none", check=_check_line)
    accept_encoding: str = param("", "The Accept-Encoding header of the answer; empty: none", check=_check_line)
    accept_language: str = param("en", "The Accept-Language header of the answer; empty: none", check=_check_line)
    support: str = param("", "The Supported header of the answer; empty: none", check=_check_line)

    async def start(self) -> None:
        """Write the headers of all answers."""
        fields = {
            "Accept": self.accept,
            "Accept-Encoding": self.accept_encoding,
            "Accept-Language": self.accept_language,
            "Supported": self.support,
        }
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)

    @function(REQUEST)
    def options_reply(self, run: Run) -> bool:
        """Answer the request 200 with what this server can do; false if it is no OPTIONS, or for a user."""
        if run.message.method != "OPTIONS":
            run.user.log(-1, f"options_reply: called for {run.message.method}")
            return False
        try:
            user = run.request_uri.user
        except MalformedMessage as error:
            run.user.log(-1, f"options_reply: {error.reason}")
            return False
        if user is not None:
            run.user.log(-1, "options_reply: the Request-URI has a user")
            return False
        return self.signaling.reply(run, 200, "OK", headers=self._headers)
