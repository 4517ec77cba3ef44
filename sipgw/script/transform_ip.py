"""The transformations of IP addresses: ``{ip.*}``. Binary addresses are texts of 4 or 16 octets.

``{ip.resolve}`` and its kin ask the DNS and so may wait: they take the run first and are coroutine functions."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from sipgw.script.values import decode, encode, parse_ip

if TYPE_CHECKING:
    from sipgw.script.run import Run, Value

PRIVATE: Final = tuple(
    IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8")
)
"""What ``{ip.isprivate}`` knows; no IPv6 network is among them."""


def _address(value: Value) -> IPv4Address | IPv6Address | None:
    return parse_ip(value) if isinstance(value, str) and value else None


def _write(address: IPv4Address | IPv6Address) -> str:
    """As OpenSIPS writes addresses: IPv6 as eight groups in capitals."""
    if isinstance(address, IPv4Address):
        return str(address)
    return ":".join(f"{int(group, 16):X}" for group in address.exploded.split(":"))


def pton(value: Value) -> Value:
    """``{ip.pton}``: the octets of an address."""
    address = _address(value)
    return None if address is None else decode(address.packed)


def ntop(value: Value) -> Value:
    """``{ip.ntop}``: the address that 4 or 16 octets are."""
    data = encode(str(value)) if value is not None else b""
    return _write(ip_address(data)) if len(data) in (4, 16) else None


def isip(value: Value) -> Value:
    """``{ip.isip}``: 1 for an address (brackets allowed around IPv6), else 0; null for nothing."""
    return None if value is None or value == "" else int(_address(value) is not None)


def isip4(value: Value) -> Value:
    """``{ip.isip4}``."""
    return None if value is None or value == "" else int(isinstance(_address(value), IPv4Address))


def isip6(value: Value) -> Value:
    """``{ip.isip6}``."""
    return None if value is None or value == "" else int(isinstance(_address(value), IPv6Address))


def family(value: Value) -> Value:
    """``{ip.family}`` of 4 or 16 octets: INET or INET6."""
    return None if value is None else {4: "INET", 16: "INET6"}.get(len(encode(str(value))))


def matches(value: Value, network: Value) -> Value:
    """``{ip.matches,network/length}``: 1 or 0; null when one of them is none, or their families differ."""
    address = _address(value)
    base, slash, bits = str(network).partition("/")
    start = parse_ip(base) if base else None
    if address is None or start is None or not slash or not (bits.isascii() and bits.isdigit()):
        return None
    if address.version != start.version or int(bits) > start.max_prefixlen:
        return None
    return int(address in ip_network(f"{start}/{int(bits)}", strict=False))


def isprivate(value: Value) -> Value:
    """``{ip.isprivate}``: 1 for an IPv4 address of a private network, else 0."""
    if value is None or value == "":
        return None
    address = _address(value)
    return int(isinstance(address, IPv4Address) and any(address in net for net in PRIVATE))


async def _resolve(run: Run, value: Value, wanted: str) -> Value:
    """One address of a name; an address is its own. ``wanted``: "4", "6", or "" for either."""
    if value is None or value == "":
        return None
    address = _address(value)
    if address is None:
        found = await run.user.resolve_host(str(value), wanted)
        address = None if found is None else parse_ip(found)
    return None if address is None or (wanted and str(address.version) != wanted) else _write(address)


async def resolve(run: Run, value: Value) -> Value:
    """``{ip.resolve}``: the first address of a name."""
    return await _resolve(run, value, "")


async def resolve4(run: Run, value: Value) -> Value:
    """``{ip.resolve4}``."""
    return await _resolve(run, value, "4")


async def resolve6(run: Run, value: Value) -> Value:
    """``{ip.resolve6}``."""
    return await _resolve(run, value, "6")
