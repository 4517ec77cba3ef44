"""Configurations of older releases: old names become today's, with one hint for each use.

Real configurations are old, from 2.4 on. What has only changed its name or its spelling is rewritten here, as
nodes, so that the checker, the compiler and the modules know today's names only; `modernise` does it.
Variables are replaced where they are read (`formats` looks into `VARIABLES`), since they also stand
inside strings. What has gone without a successor that means the same has advice in `GONE`: the checker
shows it with the error. """

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sipgw.script.errors import ScriptWarning
from sipgw.script.nodes import (
    Call,
    Config,
    Int,
    Item,
    LoadModule,
    ModParam,
    Node,
    Setting,
    Str,
    Variable,
    children,
    field_names,
)
from sipgw.script.symbols import Kind, Symbols

VARIABLES: dict[str, tuple[str, str | None, int | None]] = {
    "Ri": ("socket_in", "ip", None),
    "Rp": ("socket_in", "port", None),
    "pr": ("socket_in", "proto", None),
    "proto": ("socket_in", "proto", None),
    "af": ("socket_in", "af", None),
    "fs": ("socket_out", None, None),
    "br": ("branch", "uri", 0),
}
"""Old variables (before 3.2): the name, subname and index of today's."""

OLD_VARIABLE = re.compile(r"(?<!\$)\$\(?(?:<\w+>)?(" + "|".join(VARIABLES) + r")(?![\w.(])")

FUNCTIONS: dict[str, str] = {
    "rewritehost": "sethost",
    "rewritehostport": "sethostport",
    "rewriteport": "setport",
    "rewriteuri": "seturi",
    "rewriteuser": "setuser",
    "rewriteuserpass": "setuserpass",
    "seth": "sethost",
    "sethp": "sethostport",
    "setp": "setport",
    "setu": "setuser",
    "setup": "setuserpass",
    "setduri": "setdsturi",
    "resetduri": "resetdsturi",
    "isduriset": "isdsturiset",
    "add_rport": "force_rport",
    "add_tcp_alias": "force_tcp_alias",
    "append_branch": "append_branch_old",
    "avp_db_query": "sql_query",
    "avp_db_load": "sql_avp_load",
    "avp_db_store": "sql_avp_store",
    "avp_db_delete": "sql_avp_delete",
    "is_user_in": "db_is_user_in",
    "jwt_authorize": "jwt_db_authorize",
    "sip_trace": "trace",
    "uri_param": "ruri_has_param",
    "add_uri_param": "ruri_add_param",
    "del_uri_param": "ruri_del_param",
    "tel2sip": "ruri_tel2sip",
}
"""Functions that have another name now and take the same parameters."""

MODULES: dict[str, str] = {
    "avpops": "sqlops",
    "b2b_logic_xml": "b2b_logic",
    "event_jsonrpc": "event_stream",
    "mi_json": "mi_http",
    "mi_xmlrpc_ng": "mi_xmlrpc",
    "rabbitmq": "event_rabbitmq",
    "siptrace": "tracer",
}
"""Modules that have another name now; their parameters go along."""

BUILT_IN: dict[str, str] = {
    "event_route": "event_route is part of the core now",
    "xlog": "xlog is part of the core now",
}
"""Modules that nobody needs to load any more: the line is dropped, with its parameters."""

PARAMETERS: dict[tuple[str, str], str] = {
    ("tm", "fr_timer"): "fr_timeout",
    ("tm", "fr_inv_timer"): "fr_inv_timeout",
    ("usrloc", "db_mode"): "working_mode_preset",
}
"""Parameters of modules that have another name now."""

USRLOC_MODES = {
    0: "single-instance-no-db",
    1: "single-instance-sql-write-through",
    2: "single-instance-sql-write-back",
    3: "sql-only-cluster",
}
"""What the numbers of usrloc's db_mode are called now."""

GONE_PARAMETERS = frozenset(
    """acc.acc_created_avp_name auth_aaa.service_type auth_db.password_column_2 b2b_entities.replication_mode
    cachedb_mongodb.exec_treshold cachedb_redis.enable_raw_query_quoting
    dialog.event_id_format event_rabbitmq.sync_mode event_stream.sync_mode event_xmlrpc.sync_mode
    lua.lua_user_debug lua.warn_missing_free_fixup mi_datagram.reply_indent mi_fifo.reply_indent
    mi_http.mi_http_method perl.unsafemodfnc pi_http.framework presence.server_address
    proto_bin.bin_async_local_connect_timeout proto_bins.bins_async_handshake_timeout
    proto_bins.bins_async_local_connect_timeout proto_hep.hep_async_local_connect_timeout
    proto_tcp.tcp_async_local_connect_timeout proto_tls.tls_async_handshake_timeout
    proto_tls.tls_async_local_connect_timeout rls.server_address rtpproxy.rtpproxy_tout
    tls_mgm.tls_handshake_timeout tls_mgm.tls_send_timeout uac_redirect.acc_db_table
    uac_redirect.acc_function""".split()
)
"""Parameters that have gone and whose absence changes little: they are dropped."""

SETTINGS: dict[str, str] = {
    "children": "udp_workers",
    "tcp_children": "tcp_workers",
    "debug": "log_level",
    "xlog_default_level": "xlog_print_level",
    "log_facility": "syslog_facility",
    "log_name": "syslog_name",
    "tcp_listen_backlog": "tcp_socket_backlog",
}
"""Globals that have another name now."""

GONE_SETTINGS: dict[str, str] = {
    "fork": "twistd decides whether it stays in the foreground (-n)",
    "disable_tcp": 'without loadmodule "proto_tcp.so" there is no TCP',
    "disable_tls": 'without loadmodule "proto_tls.so" there is no TLS',
    "tcp_parallel_read_on_workers": "it has no meaning here",
    "tcp_send_timeout": 'write modparam("proto_tcp", "tcp_send_timeout", ...)',
    "disable_dns_sip_blacklist": "it has no meaning here",
    "user": "twistd has --uid",
    "group": "twistd has --gid",
    "uid": "twistd has --uid",
    "gid": "twistd has --gid",
    "port": "the port stands in socket = udp:host:port",
    "server_signature_header": "write server_header",
}
"""Globals that are dropped: what to do instead."""

WITHOUT_CLUSTER: dict[str, str] = {
    "t_anycast_replicate": "it needs OpenSIPS's clusterer, whose protocol sipgw does not speak",
}
"""Functions of OpenSIPS that there will not be, each with why."""

GONE: dict[str, str] = {
    "as_relay_sl": "the module seas has gone",
    "as_relay_t": "the module seas has gone",
    "avp_check": 'compare: if ($avp(x) == "...")',
    "avp_copy": "assign: $avp(a) = $avp(b)",
    "avp_delete": "assign: $avp(x) = NULL, or $avp(x) := NULL for all",
    "avp_insert": "assign: $(avp(x)[append]) = ...",
    "avp_op": "assign: $avp(x) = $avp(x) + 1",
    "avp_pushto": "assign: $ru = $avp(x)",
    "avp_shuffle": "write shuffle_avps($avp(x)) of cfgutils",
    "avp_subst": "use a transformation: $(avp(x){re.subst,/a/b/})",
    "enum_pv_query": "write enum_query(...), which takes a variable",
    "exec_avp": 'write exec("command", , $avp(x)) of exec',
    "exec_dset": 'write exec("command", , $avp(x)) of exec, then append_branch_old($avp(x))',
    "exec_getenv": "read $env(NAME) of cfgutils",
    "exec_msg": 'write exec("command", $mb) of exec',
    "fetch_event_params": "read $param(name)",
    "get_user_group": "write db_get_user_group(uri, $avp(x)) of group",
    "is_avp_set": "test it: if ($avp(x) != NULL)",
    "next_routing": "write use_next_gw() of drouting",
    "remove_branch": "write remove_msg_branch(index), which counts the Request-URI as 0",
    "sca_set_calling_line": "write sca_set_called_line() of presence_callinfo",
    "sms_send_msg": "the module sms has gone",
    "sms_send_msg_to_net": "the module sms has gone",
    "lcr": "drouting does least cost routing",
    "seas": "there is no successor",
    "sms": "smpp is what comes nearest",
}
"""Functions and modules without a successor that means the same: what to write instead."""


class Modernisation:
    """One pass over a configuration; ``symbols`` tell where a number in quotes should be a number."""

    def __init__(self, symbols: Symbols | None) -> None:
        self.symbols = symbols
        self.warnings: list[ScriptWarning] = []
        self.has_scenarios = False
        """Whether back-to-back calls have scenarios in XML files."""

    def hint(self, node: Node, text: str, hint: str) -> None:
        """Note one use of something old."""
        self.warnings.append(ScriptWarning(*node.pos, text, hint))

    def config(self, config: Config) -> Config:
        """Rewrite a whole configuration."""
        items: list[Item] = []
        loaded = {module.name for module in config.modules}
        self.has_scenarios = any(isinstance(item, ModParam) and item.name == "script_scenario" for item in config.items)
        for item in config.items:
            if isinstance(item, Setting):
                items.extend(self.setting(item))
            elif isinstance(item, LoadModule):
                items.extend(self.module(item, loaded))
            elif isinstance(item, ModParam):
                items.extend(self.parameter(item))
            else:
                items.append(rebuild(item, self.node))
        return replace(config, items=tuple(items))

    def setting(self, setting: Setting) -> Iterable[Item]:
        """Rewrite a global."""
        name = setting.name
        if name == "log_stderror":
            self.hint(setting, "`log_stderror` has been split", "write stderror_enabled and syslog_enabled")
            yield replace(setting, name="stderror_enabled")
            yield replace(setting, name="syslog_enabled", value=int(not setting.value))
        elif name in SETTINGS:
            self.hint(setting, f"`{name}` is now called `{SETTINGS[name]}`", f"write {SETTINGS[name]}")
            yield replace(setting, name=SETTINGS[name])
        elif name in GONE_SETTINGS or name.startswith("tls_"):
            hint = GONE_SETTINGS.get(name, "TLS is set up with the parameters of tls_mgm")
            self.hint(setting, f"`{name}` has gone and is ignored", hint)
        else:
            yield setting

    def module(self, module: LoadModule, loaded: set[str]) -> Iterable[Item]:
        """Rewrite a loadmodule."""
        name = module.name
        if self.known(name):
            yield module
        elif name in BUILT_IN:
            self.hint(module, f"the module {name} has gone and is not loaded", BUILT_IN[name])
        elif name in MODULES:
            new = MODULES[name]
            self.hint(module, f"the module {name} is now {new}", f'write loadmodule "{new}.so"')
            if new not in loaded:
                loaded.add(new)
                yield replace(module, name=new, path=module.path.replace(name, new))
        else:
            yield module

    def known(self, module: str) -> bool:
        """Tell whether there is a module of that name today."""
        return self.symbols is not None and (
            module in self.symbols.catalogue or module in self.symbols.modules
        )

    def parameter(self, item: ModParam) -> Iterable[Item]:
        """Rewrite a modparam: its modules, its name, its value."""
        names = [n for n in item.modules.split("|") if self.known(n) or n not in BUILT_IN]
        if not names:
            self.hint(item, f"the module {item.modules} has gone, so its parameter is ignored", "")
            return
        modules = "|".join(n if self.known(n) else MODULES.get(n, n) for n in names)
        name, value = item.name, item.value
        if len(names) == 1 and not self.has_parameter(modules, name):
            key = (modules, name)
            if key in PARAMETERS:
                name = PARAMETERS[key]
                if isinstance(value, Int) and name == "working_mode_preset":
                    value = Str(USRLOC_MODES.get(value.value, "single-instance-no-db"), pos=value.pos)
                written = f'"{value.value}"' if isinstance(value, Str) else str(value.value)
                hint = f'write modparam("{modules}", "{name}", {written})'
                self.hint(item, f"the parameter {item.name} of {modules} has another name", hint)
            elif f"{modules}.{name}" in GONE_PARAMETERS:
                self.hint(item, f"the parameter {name} of {modules} has gone and is ignored", "")
                return
        if modules == item.modules and name == item.name:
            yield item
            return
        if modules != item.modules:
            hint = f'write modparam("{modules}", "{name}", ...)'
            self.hint(item, f"a parameter of {item.modules} is now one of {modules}", hint)
        yield replace(item, modules=modules, name=name, value=value)

    def has_parameter(self, module: str, name: str) -> bool:
        """Tell whether today's module knows the parameter."""
        if self.symbols is None:
            return False
        found = self.symbols.modules.get(module) or self.symbols.catalogue.get(module)
        return found is not None and any(p.name == name for p in found.parameters)

    def node(self, node: Node) -> Node:
        """Rewrite one node whose children are done."""
        if isinstance(node, Call):
            return self.call(node)
        if isinstance(node, Variable) and node.name == "avp" and isinstance(node.subname, str):
            if node.subname[:2] in ("s:", "i:"):
                text = f"`{node.subname[:2]}` is now part of the name of $avp({node.subname})"
                self.hint(node, text, f"write $avp({node.subname[2:]}) everywhere")
        return node

    def call(self, call: Call) -> Call:
        """Rewrite the name of a call, and numbers in quotes."""
        name = call.name
        if name in FUNCTIONS and not (self.symbols and name in self.symbols.functions):
            self.hint(call, f"`{name}` is now called `{FUNCTIONS[name]}`", f"write {FUNCTIONS[name]}(...)")
            call = replace(call, name=FUNCTIONS[name])
        call = self.rearranged(call)
        function = self.symbols.function(call.name, len(call.arguments)) if self.symbols else None
        if function is None:
            return call
        arguments = list(call.arguments)
        for number, (argument, parameter) in enumerate(
            zip(arguments, function.parameters, strict=False)
        ):
            if parameter.kind is Kind.INT and isinstance(argument, Str) and _INTEGER(argument.value):
                value = int(argument.value)
                self.hint(argument, f"{call.name}() takes a number", f"write {value} without quotes")
                arguments[number] = Int(value, pos=argument.pos)
            elif parameter.kind is Kind.FLAG and isinstance(argument, Int):
                text = f"flags have names, not numbers: {call.name}({argument.value})"
                self.hint(argument, text, f'write {call.name}("FLAG_{argument.value}")')
                arguments[number] = Str(str(argument.value), pos=argument.pos)
        if arguments == list(call.arguments):
            return call
        return replace(call, arguments=tuple(arguments))


    def rearranged(self, call: Call) -> Call:
        """Rewrite the arguments of functions that took others: a qop was 0 or 1, uac_replace_from() could have a URI alone."""
        arguments = call.arguments
        if call.name in ("www_challenge", "proxy_challenge") and len(arguments) == 2:
            qop = arguments[1]
            if isinstance(qop, Int | Str) and str(qop.value) in ("0", "1"):
                realm = arguments[:1]
                hint = f'write {call.name}(realm, "auth")' if str(qop.value) == "1" else f"write {call.name}(realm)"
                self.hint(qop, f"the qop of {call.name}() is a word, not a number", hint)
                return replace(call, arguments=(*realm, Str("auth", pos=qop.pos)) if str(qop.value) == "1" else realm)
        if call.name in ("uac_replace_from", "uac_replace_to") and len(arguments) == 1:
            self.hint(call, f"{call.name}() takes a display name before the URI", f"write {call.name}( , uri)")
            return replace(call, arguments=(None, *arguments))
        if call.name == "b2b_init_request" and arguments:
            return self.back_to_back(call, arguments)
        return call

    def back_to_back(self, call: Call, arguments: tuple[Any, ...]) -> Call:
        """Rewrite b2b_init_request() of before 3.2: flags were letters behind the id, and scenarios took parameters."""
        first = arguments[0]
        text = first.value if isinstance(first, Str) else ""
        name, _, letters = text.partition("/")
        if name == "top hiding" and letters and len(arguments) == 1 and _LETTERS(letters):
            flags = ",".join(word.format(number) for letter, number in _LETTER.findall(letters) for word in [B2B_FLAGS[letter]])
            self.hint(call, "the flags of b2b_init_request() are words", f'write b2b_init_request("top hiding", "{flags}")')
            return replace(call, arguments=(replace(first, value=name), Str(flags, pos=first.pos)))
        if not self.has_scenarios or name == "top hiding":
            return call
        second = arguments[1] if len(arguments) > 1 else None
        if letters or (second is not None and not (isinstance(second, Str) and _WORDS(second.value))):
            self.hint(call, "scenarios in XML files are begun by b2b_init_scenario()", "write b2b_init_scenario(...)")
            return replace(call, name="b2b_init_scenario")
        return call


B2B_FLAGS = {"t": "setup-timeout={}", "a": "transparent-auth", "p": "preserve-to"}
"""The letters that were flags of b2b_init_request()."""
_LETTER = re.compile(r"([tap])([0-9]*)")
_LETTERS: Callable[[str], Any] = re.compile(r"(?:t[0-9]+|[ap])+").fullmatch
_WORDS: Callable[[str], Any] = re.compile(r"[ ,]*(?:[a-z-]+(?:=[0-9]+)?[ ,]*)*").fullmatch


_INTEGER: Callable[[str], Any] = re.compile(r"-?[0-9]{1,9}").fullmatch


def modernise(config: Config, symbols: Symbols | None = None) -> tuple[Config, list[ScriptWarning]]:
    """Rewrite what older releases wrote otherwise; returns the configuration and a hint for each use."""
    pass_ = Modernisation(symbols)
    return pass_.config(config), pass_.warnings


def rebuild(node: Any, change: Callable[[Node], Node]) -> Any:
    """Make a tree again with ``change`` applied to each node, children first; unchanged parts are shared."""
    order: list[Node] = []
    waiting: list[Node] = [node]
    while waiting:
        order.append(waiting.pop())
        waiting.extend(children(order[-1]))
    made: dict[int, Node] = {}
    for old in reversed(order):
        changed: dict[str, Any] = {}
        for name in field_names(type(old)):
            value = getattr(old, name)
            if isinstance(value, Node):
                new: Any = made[id(value)]
            elif type(value) is tuple and value:
                new = tuple(made[id(e)] if isinstance(e, Node) else e for e in value)
                if all(a is b for a, b in zip(new, value, strict=True)):
                    continue
            else:
                continue
            if new is not value:
                changed[name] = new
        made[id(old)] = change(replace(old, **changed) if changed else old)
    return made[id(node)]
