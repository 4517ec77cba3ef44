"""SIP over UDP (RFC 3261 18): the module whose loading permits ``socket = udp:...``.

The sockets themselves are ``sipgw/transport/udp.py``, bound by ``sipgw/service.py``."""

from __future__ import annotations

from sipgw.exports import Module, param


def _check_port(value: int) -> None:
    if not 1 <= value <= 65535:
        raise ValueError("must be between 1 and 65535")


class ProtoUdp(Module):
    """Lets sipgw listen and send over UDP."""

    name = "proto_udp"

    udp_port: int = param(5060, "The port of every UDP socket that is written without one", check=_check_port)
