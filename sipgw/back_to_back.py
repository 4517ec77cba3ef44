"""``twistd sipgw-b2bua``: a back-to-back user agent from a few options, by a configuration that is made of them.

It is the server of ``twistd sipgw`` with another script; ``--show`` prints that, for whoever wants to go on from there."""

from __future__ import annotations

import re
from typing import Any

from twisted.python import usage

from sipgw import options, service
from sipgw.configuration import reading_of
from sipgw.modules.b2b_logic import header_names
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

__all__ = ["TEMPLATE", "Options", "makeService"]

TEMPLATE = """\
# made by twistd sipgw-b2bua

log_level = 3
xlog_level = 3

@SOCKETS@
@LOADMODULES@
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "b2b_entities.so"
loadmodule "b2b_logic.so"

modparam("b2b_logic", "b2bl_th_init_timeout", @SETUP@)
modparam("b2b_logic", "max_duration", @DURATION@)
modparam("b2b_logic", "custom_headers", "@HEADERS@")

route {
	# requests within calls, and CANCELs, do not come here
	if (is_method("INVITE") && !has_totag()) {
		$du = "@NEXT_HOP@";
		b2b_init_request("top hiding");
		exit;
	}
	if (is_method("OPTIONS") && !has_totag()) {
		sl_send_reply(200, "OK");
		exit;
	}
	if (!is_method("ACK"))
		sl_send_reply(405, "Method Not Allowed");
}
"""
"""The configuration, but for what the options say."""

_socket = re.compile(r"(udp|tcp):(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_FOREIGN = ("config", "preprocessor", "database")
"""Options of ``twistd sipgw`` that mean nothing where the configuration is made here."""


class Options(options.Options):
    """What ``twistd sipgw-b2bua`` takes."""

    synopsis = "--listen udp:HOST:PORT --next-hop sip:HOST [options]"
    longdesc = "Answers each call that comes and makes it again to the next hop: neither side learns of the other."

    optParameters = [
        ["next-hop", None, None, "The SIP URI of the server that all calls go to"],
        ["headers", None, "", "Names of more headers that are passed on, with semicolons between them"],
        ["setup-timeout", None, 60, "Seconds that a call may take to be answered", int],
        ["max-duration", None, 43200, "Seconds that a call may last", int],
    ]
    optFlags = [["show", None, "Print the configuration that the options make, and leave"]]

    def opt_listen(self, text: str) -> None:
        """Listen on udp:host:port or tcp:host:port; may be repeated"""
        if not _socket(text):
            raise usage.UsageError(f"--listen {text}: write udp:host:port or tcp:host:port")
        self["sockets"].append(text)

    def postOptions(self) -> None:
        """Make the configuration, and read it."""
        for name in _FOREIGN:
            if self[name]:
                raise usage.UsageError(f"--{name} is for twistd sipgw: sipgw-b2bua has a configuration of its own (--show)")
        level = self["log-level"]
        if level is not None and not -3 <= level <= 4:
            raise usage.UsageError(f"--log-level {level}: between -3 and 4")
        text = self.configuration()
        if self["show"]:
            print(text, end="")
            raise SystemExit(0)
        self.reading = reading_of(text, "sipgw-b2bua.cfg")

    def configuration(self) -> str:
        """The script that the options make; ``UsageError`` if they make none."""
        if not self["sockets"] or not self["next-hop"]:
            raise usage.UsageError("--listen and --next-hop must be given")
        hop = self["next-hop"]
        transports = dict.fromkeys(text.partition(":")[0] for text in self["sockets"])
        needed = "udp"
        try:
            needed = (Uri.parse(hop).param("transport") or needed).lower()
            fits = Uri.parse(hop).is_sip and not re.search(r'["\\$\x00-\x20]', hop)
        except MalformedMessage:
            fits = False
        if not fits:
            raise usage.UsageError(f"--next-hop {hop}: write a SIP URI")
        if needed != "udp" and needed not in transports:
            raise usage.UsageError(f"--next-hop {hop} is reached over {needed} only: add --listen {needed}:HOST:PORT")
        try:
            header_names(self["headers"])
        except ValueError as error:
            raise usage.UsageError(f"--headers: {error}") from None
        if self["setup-timeout"] < 1 or self["max-duration"] < 1:
            raise usage.UsageError("--setup-timeout and --max-duration are seconds, 1 at least")
        made: dict[str, Any] = {
            "SOCKETS": "\n".join(f"socket = {text}" for text in self["sockets"]) + "\n",
            "LOADMODULES": "\n".join(f'loadmodule "proto_{name}.so"' for name in transports),
            "SETUP": self["setup-timeout"], "DURATION": self["max-duration"], "HEADERS": self["headers"], "NEXT_HOP": hop,
        }
        text = TEMPLATE
        for name, value in made.items():
            text = text.replace(f"@{name}@", str(value))
        return text


makeService = service.makeService
"""Makes the server, as for ``twistd sipgw``."""
