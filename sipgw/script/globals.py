"""The 99 assignable globals of OpenSIPS (and two more spellings of some), with what sipgw makes of each.

``socket``, ``alias``, ``dst_blacklist``, ``auto_scaling_profile`` and ``mem-group`` are definitions with
a grammar of their own (`definitions`); they stand here so that the list is whole. `INERT` are settings
of things that sipgw does not have (shared memory, worker processes, the reactor): they are read and
checked, and an INFO line says that they do nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Type(enum.Enum):
    """How the value of a global is written."""

    BOOL = "yes or no"
    INT = "a number"
    SIGNED = "a number with or without sign"
    STR = "a string in quotes"
    WORD = "a bare word"
    STR_OR_WORD = "a string or a bare word"
    INT_OR_WORD = "a number or a bare word"
    HOST = "an address, a host name or a string"
    OWN = "a definition"


@dataclass(frozen=True, slots=True)
class Global:
    """One global: ``default`` is None where OpenSIPS leaves it unset, ``inert`` when sipgw only records it.

    ``choices``: the only values there are, in lower case."""

    name: str
    type: Type
    default: int | str | None = None
    inert: bool = False
    choices: tuple[str, ...] = ()
    profile: bool = False
    """Whether ``use_auto_scaling_profile`` may follow."""


_B, _I, _S, _STR, _WORD = Type.BOOL, Type.INT, Type.SIGNED, Type.STR, Type.WORD

LOG_FORMATS = ("plain_text", "json", "json_cee")
FACILITIES = tuple(
    f"log_{name}"
    for name in (
        "auth authpriv cron daemon ftp kern lpr mail news syslog user uucp "
        "local0 local1 local2 local3 local4 local5 local6 local7"
    ).split()
)
POLL_METHODS = ("poll", "select", "epoll", "sigio_rt", "kqueue", "/dev/poll")

_TABLE = (
    # logging
    Global("log_level", _S, 2),
    Global("xlog_level", _S, 2),
    Global("xlog_print_level", _I, 2),
    Global("xlog_buf_size", _I, 4096, inert=True),
    Global("xlog_force_color", _B, 0),
    Global("pv_print_buf_size", _I, 20000, inert=True),
    Global("log_prefix", _STR),
    Global("log_stdout", _B, 0),
    Global("stderror_enabled", _B, 1),
    Global("syslog_enabled", _B, 0),
    Global("log_event_enabled", _B, 0),
    Global("stderror_level_filter", _S, 0),
    Global("syslog_level_filter", _S, 0),
    Global("log_event_level_filter", _S, 0),
    Global("stderror_log_format", _STR, "plain_text", choices=LOG_FORMATS),
    Global("syslog_log_format", _STR, "plain_text", choices=LOG_FORMATS),
    Global("log_json_buf_size", _I, 6144, inert=True),
    Global("log_msg_buf_size", _I, 4096, inert=True),
    Global("syslog_facility", _WORD, "LOG_DAEMON", choices=FACILITIES),
    Global("syslog_name", _STR),
    Global("debug_mode", _B, 0),
    Global("enable_asserts", _B, 0),
    Global("abort_on_assert", _B, 0),
    # sockets
    Global("socket", Type.OWN),
    Global("alias", Type.OWN),
    Global("auto_aliases", _B, 0),
    Global("advertised_address", Type.HOST),
    Global("advertised_port", _I),
    Global("mhomed", _B, 0),
    Global("tos", Type.INT_OR_WORD),
    Global("mcast_loopback", _B, 0),
    Global("mcast_ttl", _I),
    Global("maxbuffer", _I, 262144),
    Global("poll_method", Type.STR_OR_WORD, inert=True, choices=POLL_METHODS),
    Global("open_files_limit", _I, -1),
    # processes
    Global("udp_workers", _I, 8, profile=True),
    Global("tcp_workers", _I, 8, inert=True, profile=True),
    Global("timer_workers", _I, 1, inert=True, profile=True),
    Global("tcp_threads", _I, 0, inert=True),
    Global("auto_scaling_profile", Type.OWN, inert=True),
    Global("auto_scaling_cycle", _I, 1, inert=True),
    Global("worker_reactor_timeout", _I, 1000, inert=True),
    Global("chroot", Type.STR_OR_WORD),
    Global("workdir", Type.STR_OR_WORD),
    Global("disable_core_dump", _B, 0),
    # TCP
    Global("tcp_accept_aliases", _I, 0),
    Global("tcp_connect_timeout", _I, 100),
    Global("tcp_connection_lifetime", _I, 120),
    Global("tcp_max_connections", _I, 2048),
    Global("tcp_max_msg_time", _I, 4),
    Global("tcp_socket_backlog", _I, 10),
    Global("tcp_keepalive", _B, 1),
    Global("tcp_keepcount", _I),
    Global("tcp_keepidle", _I),
    Global("tcp_keepinterval", _I),
    Global("tcp_no_new_conn_bflag", _WORD),
    Global("tcp_no_new_conn_rplflag", _WORD),
    # SIP
    Global("check_via", _B, 0),
    Global("sip_warning", _B, 0),
    Global("server_signature", _B, 1),
    Global("server_header", _STR),
    Global("user_agent_header", _STR),
    Global("disable_stateless_fwd", _B, 1),
    Global("disable_503_translation", _B, 0),
    Global("max_while_loops", _I, 10000),
    # DNS
    Global("dns", _B, 0),
    Global("rev_dns", _B, 0),
    Global("dns_try_ipv6", _B, 0),
    Global("dns_try_naptr", _B, 1),
    Global("dns_retr_time", _I),
    Global("dns_retr_no", _I),
    Global("dns_servers_no", _I),
    Global("dns_use_search_list", _B, 1),
    Global("disable_dns_failover", _B, 0),
    Global("disable_dns_blacklist", _B, 1),
    Global("dst_blacklist", Type.OWN),
    # databases
    Global("db_default_url", _STR),
    Global("db_version_table", _STR, "version"),
    Global("db_max_async_connections", _I, 10),
    Global("query_buffer_size", _I, 0, inert=True),
    Global("query_flush_time", _I, 0, inert=True),
    Global("pi_framework", _STR),
    # memory and performance
    Global("memlog", _S, 15, inert=True),
    Global("memdump", _S, 14),
    Global("shm_memlog_size", _S, inert=True),
    Global("shm_hash_split_percentage", _I, 1, inert=True),
    Global("shm_secondary_hash_size", _I, 8, inert=True),
    Global("mem_warming", _B, inert=True),
    Global("mem_warming_pattern_file", _STR, inert=True),
    Global("mem_warming_percentage", _I, 75, inert=True),
    Global("mem-group", Type.OWN, inert=True),
    Global("restart_persistency_cache_file", _STR),
    Global("restart_persistency_size", _I, inert=True),
    Global("execmsgthreshold", _I, 0),
    Global("execdnsthreshold", _I, 0),
    Global("tcpthreshold", _I, 0),
    Global("event_shm_threshold", _I, 0),
    Global("event_pkg_threshold", _I, 0),
    Global("mpath", Type.OWN),
)

GLOBALS: dict[str, Global] = {entry.name: entry for entry in _TABLE}
"""By the first of its spellings: that is the name in a `nodes.Setting`."""

SPELLINGS: dict[str, str] = {
    "workerreactortimeout": "worker_reactor_timeout",
    "wdir": "workdir",
    "mem_log": "memlog",
    "mem_dump": "memdump",
    "mem_warming_enabled": "mem_warming",
    "exec_msg_threshold": "execmsgthreshold",
    "exec_dns_threshold": "execdnsthreshold",
    "tcp_threshold": "tcpthreshold",
}
"""Second spellings of today's globals."""

INERT: frozenset[str] = frozenset(entry.name for entry in _TABLE if entry.inert)
"""What sipgw reads and checks, and that has no meaning in it."""
