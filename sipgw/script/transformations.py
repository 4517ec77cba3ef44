"""The table of transformations: the 95 of OpenSIPS's core, as the checker and the compiler look them up.

A new one is a function in ``transform_text``, ``transform_sip`` or ``transform_ip`` and a row here: name, function, how many
arguments. Three rows have needs that the compiler knows by their names: ``s.eval`` (it reads a format when it runs),
``re.subst`` (its constant is compiled once) and ``ip.resolve``, ``ip.resolve4``, ``ip.resolve6`` (they wait for the DNS).
``nameaddr`` may have an index before the name: ``{nameaddr.1.uri}``."""

from __future__ import annotations

import re
from typing import Any, Final

from sipgw.script import transform_ip as ip
from sipgw.script import transform_sip as sip
from sipgw.script import transform_text as text
from sipgw.script.symbols import Transformation

EVAL: Final = "s.eval"
SUBST: Final = "re.subst"
WAITING: Final = frozenset({"ip.resolve", "ip.resolve4", "ip.resolve6"})

ROWS: Final[list[tuple[str, Any, int, int]]] = [
    ("s.len", text.length, 0, 0),
    ("s.int", text.number, 0, 0),
    ("s.md5", text.DIGESTS["md5"], 0, 0),
    ("s.crc32", text.crc32, 0, 0),
    *[(f"s.{name}", text.DIGESTS[name], 0, 0) for name in ("sha1", "sha224", "sha256", "sha384", "sha512")],
    *[(f"s.{name}_hmac", call, 1, 1) for name, call in text.HMACS.items()],
    ("s.substr", text.substring, 2, 2),
    ("s.select", text.select, 2, 2),
    ("s.encode.hexa", text.encode_hexa, 0, 0),
    ("s.decode.hexa", text.decode_hexa, 0, 0),
    ("s.b64encode", text.b64encode, 0, 0),
    ("s.b64decode", text.b64decode, 0, 0),
    ("s.escape.common", text.escape_common, 0, 0),
    ("s.unescape.common", text.unescape_common, 0, 0),
    ("s.escape.user", text.escape_user, 0, 0),
    ("s.unescape.user", text.unescape, 0, 0),
    ("s.escape.param", text.escape_param, 0, 0),
    ("s.unescape.param", text.unescape, 0, 0),
    ("s.tolower", text.lower, 0, 0),
    ("s.toupper", text.upper, 0, 0),
    ("s.reverse", text.reverse, 0, 0),
    ("s.trim", text.trim, 0, 0),
    ("s.triml", text.trim_left, 0, 0),
    ("s.trimr", text.trim_right, 0, 0),
    ("s.index", text.index, 1, 2),
    ("s.rindex", text.rindex, 1, 2),
    ("s.fill.left", text.fill_left, 2, 2),
    ("s.fill.right", text.fill_right, 2, 2),
    ("s.width", text.width, 1, 1),
    ("s.hex2dec", text.hex2dec, 0, 0),
    ("s.dec2hex", text.dec2hex, 0, 0),
    ("s.date2unix", text.date2unix, 0, 0),
    ("s.xor", text.xor, 1, 1),
    (EVAL, None, 0, 0),
    ("uri.user", sip.uri_user, 0, 0),
    ("uri.host", sip.uri_host, 0, 0),
    ("uri.domain", sip.uri_host, 0, 0),
    ("uri.passwd", sip.uri_passwd, 0, 0),
    ("uri.port", sip.uri_port, 0, 0),
    ("uri.params", sip.uri_params, 0, 0),
    ("uri.param", sip.uri_param, 1, 1),
    ("uri.headers", sip.uri_headers, 0, 0),
    ("uri.transport", sip.uri_transport, 0, 0),
    ("uri.ttl", sip.uri_ttl, 0, 0),
    ("uri.uparam", sip.uri_uparam, 0, 0),
    ("uri.maddr", sip.uri_maddr, 0, 0),
    ("uri.method", sip.uri_method, 0, 0),
    ("uri.lr", sip.uri_lr, 0, 0),
    ("uri.r2", sip.uri_r2, 0, 0),
    ("uri.schema", sip.uri_schema, 0, 0),
    ("via.name", sip.via_name, 0, 0),
    ("via.version", sip.via_version, 0, 0),
    ("via.transport", sip.via_transport, 0, 0),
    ("via.host", sip.via_host, 0, 0),
    ("via.domain", sip.via_host, 0, 0),
    ("via.port", sip.via_port, 0, 0),
    ("via.comment", sip.via_comment, 0, 0),
    ("via.params", sip.via_params, 0, 0),
    ("via.param", sip.via_param, 1, 1),
    ("via.branch", sip.via_branch, 0, 0),
    ("via.received", sip.via_received, 0, 0),
    ("via.rport", sip.via_rport, 0, 0),
    ("param.value", sip.param_value, 1, 1),
    ("param.exist", sip.param_exist, 1, 1),
    ("param.valueat", sip.param_valueat, 1, 1),
    ("param.name", sip.param_name, 1, 1),
    ("param.count", sip.param_count, 0, 0),
    ("nameaddr.name", sip.nameaddr_name, 0, 0),
    ("nameaddr.uri", sip.nameaddr_uri, 0, 0),
    ("nameaddr.len", sip.nameaddr_len, 0, 0),
    ("nameaddr.param", sip.nameaddr_param, 1, 1),
    ("nameaddr.params", sip.nameaddr_params, 0, 0),
    ("csv.count", text.csv_count, 0, 0),
    ("csv.value", text.csv_value, 1, 1),
    ("sdp.line", sip.sdp_line, 1, 2),
    ("sdp.stream", sip.sdp_stream, 1, 1),
    ("sdp.stream-delete", sip.sdp_stream_delete, 1, 1),
    ("ip.pton", ip.pton, 0, 0),
    ("ip.ntop", ip.ntop, 0, 0),
    ("ip.isip", ip.isip, 0, 0),
    ("ip.isip4", ip.isip4, 0, 0),
    ("ip.isip6", ip.isip6, 0, 0),
    ("ip.family", ip.family, 0, 0),
    ("ip.matches", ip.matches, 1, 1),
    ("ip.isprivate", ip.isprivate, 0, 0),
    ("ip.resolve", ip.resolve, 0, 0),
    ("ip.resolve4", ip.resolve4, 0, 0),
    ("ip.resolve6", ip.resolve6, 0, 0),
    (SUBST, text.substitute, 1, 1),
]

TRANSFORMATIONS: Final = tuple(Transformation(name, call, least, most) for name, call, least, most in ROWS)
"""All of the core, for ``ModuleSymbols.transformations``."""

_INDEXED = re.compile(r"nameaddr\.(-?[0-9]{1,4})\.(\w+)").fullmatch


def split_index(name: str) -> tuple[str, int | None]:
    """The name and the index of ``nameaddr.1.uri``; (name, None) without one."""
    found = _INDEXED(name)
    return (name, None) if found is None else (f"nameaddr.{found[2]}", int(found[1]))
