"""The functions that every script has without loading a module (language 1.14).

Two things differ from OpenSIPS on purpose. A function that would leave a Request-URI which nobody can read fails instead
(-1, the old URI stays), so that text from a message cannot break the request line (hardening P5). And a branch moved away is
gone also when it was the first one.

What is a statement of its own in the language (``xlog``, ``log``, ``route``, ``assert``...) is in the compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from sipgw.core.surroundings import DEFAULT_PORTS
from sipgw.exports import Constant, Flag, HeaderText, Module, SocketName, Writable, function
from sipgw.modules.tm import proxy_uri
from sipgw.proxy import branches
from sipgw.proxy.forward import NoWay, find_flow, forward, return_response
from sipgw.proxy.headers import header_text
from sipgw.script.run import Branch, Run
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Request, stamp_via
from sipgw.sip.uri import Uri


def _rewrite(run: Run, what: str, change: Callable[[Uri], Uri]) -> bool:
    """Give the Request-URI what ``change`` makes of it; False and a log line if it cannot."""
    try:
        run.uri = change(run.request_uri).text
    except SipError as error:
        run.user.log(-1, f"{what}: {run.uri!r} stays: {error.reason}")
        return False
    return True


def _split_hostport(text: str) -> tuple[str, int | None]:
    """Cut ``host:port``; an IPv6 address needs its brackets if a port follows."""
    bracket = text.rfind("]")
    colon = text.rfind(":")
    if colon <= bracket or (bracket < 0 and text.count(":") > 1):
        return text, None
    return text[:colon], parse_uint(text[colon + 1 :], 65535, "port")


def _with_host(uri: Uri, host: str) -> Uri:
    if not host:
        raise MalformedMessage("no host")
    return uri.without_param("maddr").with_host(host)


def _is_host(text: str) -> bool:
    try:
        return Uri.parse(f"sip:{text}").host == text
    except MalformedMessage:
        return False


_VIA_FLAGS = ("force-rport", "add-local-rport", "force-tcp-alias")


def _via_flags(text: str) -> list[str]:
    """The flags of ``set_via_handling``. OpenSIPS's ``reply-to-via`` is refused: it would let a stranger aim our replies
    (hardening P13)."""
    flags = [flag.strip() for flag in text.split(",")]
    for flag in flags:
        if flag not in _VIA_FLAGS:
            raise ValueError(f"unknown flag {flag!r}: write some of {', '.join(_VIA_FLAGS)}")
    return flags


def _check_destination(text: str) -> None:
    """Refuse what is no ``[proto:]host[:port]``."""
    try:
        Uri.parse(f"sip:{proxy_uri(text)}")
    except MalformedMessage:
        raise ValueError(f"bad destination {text!r}: write [proto:]host[:port]") from None


Destination = Annotated[str, _check_destination]


def _check_append_flags(value: str) -> None:
    if value != "inherite":
        raise ValueError(f"unknown flag {value!r}: write inherite")


def _check_keep(value: str) -> None:
    if value != "keep":
        raise ValueError(f"unknown flag {value!r}: write keep")


def _strip_main(run: Run) -> None:
    """Forget what belongs to the Request-URI but itself."""
    branches.set_main(run, Branch(run.uri))


class Core(Module):
    """Functions on flags, the Request-URI, the next hop and the branches; always there."""

    # -- flags

    @function()
    def setflag(self, run: Run, flag: Flag) -> bool:
        """Set a flag of the message."""
        run.flags |= flag
        return True

    @function()
    def resetflag(self, run: Run, flag: Flag) -> bool:
        """Clear a flag of the message."""
        run.flags &= ~flag
        return True

    @function()
    def isflagset(self, run: Run, flag: Flag) -> bool:
        """Whether a flag of the message is set."""
        return run.flags & flag != 0

    @function()
    def setbflag(self, run: Run, flag: Constant, branch_idx: int | None = None) -> bool:
        """Set a flag of a branch; 0, the default, is that of the Request-URI."""
        return self._branch_flag(run, flag, branch_idx, True)

    @function()
    def resetbflag(self, run: Run, flag: Constant, branch_idx: int | None = None) -> bool:
        """Clear a flag of a branch."""
        return self._branch_flag(run, flag, branch_idx, False)

    def _branch_flag(self, run: Run, flag: str, index: int | None, value: bool) -> bool:
        mask = run.user.branch_flags.mask(flag)
        if not index:
            run.branch_flags = run.branch_flags | mask if value else run.branch_flags & ~mask
            return True
        if not 0 < index <= len(run.branches):
            return False
        branch = run.branches[index - 1]
        branch.flags = branch.flags | mask if value else branch.flags & ~mask
        return True

    @function()
    def isbflagset(self, run: Run, flag: Constant, branch_idx: int | None = None) -> bool:
        """Whether a flag of a branch is set."""
        mask: int = run.user.branch_flags.find(flag)
        if not branch_idx:
            return run.branch_flags & mask != 0
        return 0 < branch_idx <= len(run.branches) and run.branches[branch_idx - 1].flags & mask != 0

    # -- the Request-URI

    @function()
    def seturi(self, run: Run, uri: str) -> bool:
        """Replace the Request-URI."""
        return _rewrite(run, "seturi", lambda _old: Uri.parse(uri))

    @function()
    def sethost(self, run: Run, host: str) -> bool:
        """Replace the host of the Request-URI; its ``maddr`` goes, since it would be preferred."""
        return _rewrite(run, "sethost", lambda uri: _with_host(uri, host))

    @function()
    def sethostport(self, run: Run, hostport: str) -> bool:
        """Replace host and port of the Request-URI; its ``maddr`` goes."""

        def change(uri: Uri) -> Uri:
            host, port = _split_hostport(hostport)
            return _with_host(uri, host).with_port(port)

        return _rewrite(run, "sethostport", change)

    @function()
    def setport(self, run: Run, port: str) -> bool:
        """Replace the port of the Request-URI; "" takes it away."""
        return _rewrite(run, "setport", lambda uri: uri.with_port(parse_uint(port, 65535, "port") if port else None))

    @function()
    def setuser(self, run: Run, user: str) -> bool:
        """Replace the user of the Request-URI; "" takes it away."""
        return _rewrite(run, "setuser", lambda uri: uri.with_user(user or None))

    @function()
    def setuserpass(self, run: Run, userpass: str) -> bool:
        """Replace user and password of the Request-URI, written ``user:password``."""

        def change(uri: Uri) -> Uri:
            user, colon, password = userpass.partition(":")
            return uri.with_password(None).with_user(user or None).with_password(password if colon else None)

        return _rewrite(run, "setuserpass", change)

    @function()
    def prefix(self, run: Run, text: str) -> bool:
        """Put ``text`` before the user of the Request-URI."""
        return _rewrite(run, "prefix", lambda uri: uri.with_user(text + (uri.user or "")))

    @function()
    def strip(self, run: Run, n: int) -> bool:
        """Take the first ``n`` characters off the user of the Request-URI."""
        return _rewrite(run, "strip", lambda uri: uri.with_user((uri.user or "")[max(n, 0) :]))

    @function()
    def strip_tail(self, run: Run, n: int) -> bool:
        """Take the last ``n`` characters off the user of the Request-URI."""
        return _rewrite(run, "strip_tail", lambda uri: uri.with_user((uri.user or "")[: -n if n > 0 else None]))

    @function()
    def revert_uri(self, run: Run) -> bool:
        """Put back the Request-URI as it was received."""
        if isinstance(run.message, Request):
            run.uri = run.message.uri
        return True

    # -- the next hop

    @function()
    def setdsturi(self, run: Run, uri: str) -> bool:
        """Send the request to ``uri``, whatever the Request-URI says (``$du``)."""
        try:
            Uri.parse(uri)
        except MalformedMessage as error:
            run.user.log(-1, f"setdsturi: {uri!r}: {error.reason}")
            return False
        run.dst_uri = uri
        return True

    @function()
    def resetdsturi(self, run: Run) -> bool:
        """Let the Request-URI decide again where the request goes."""
        run.dst_uri = None
        return True

    @function()
    def isdsturiset(self, run: Run) -> bool:
        """Whether ``$du`` is set."""
        return run.dst_uri is not None

    @function()
    def force_send_socket(self, run: Run, socket: SocketName) -> bool:
        """Send the request from one of our sockets, ``proto:address:port``."""
        found = run.user.find_socket(socket)
        if found is None:
            run.user.log(-1, f"force_send_socket: {socket!r} is not a socket of ours")
            return False
        run.send_socket = found
        return True

    @function()
    def socket_belongs_to_bond(self, run: Run, socket: str, bond: str) -> bool:
        """Whether a socket is a member of a bond (``socket = bond:name {...}``)."""
        user = run.user
        found, known = user.find_socket(socket), user.bonds.get(bond.removeprefix("bond:"))
        if found is None or known is None:
            what = f"{socket!r} is not a socket of ours" if found is None else f"there is no bond {bond}"
            user.log(-1, f"socket_belongs_to_bond: {what}")
            return False
        return found in known.members

    @function()
    def set_advertised_address(self, run: Run, address: str) -> bool:
        """Write ``address`` into the Via and Record-Route of this request."""
        if not _is_host(address):
            run.user.log(-1, f"set_advertised_address: {address!r} is no host")
            return False
        run.advertised_host = address
        return True

    @function()
    def set_advertised_port(self, run: Run, port: str) -> bool:
        """Write ``port`` into the Via and Record-Route of this request."""
        try:
            run.advertised_port = parse_uint(port, 65535, "port")
        except MalformedMessage:
            run.user.log(-1, f"set_advertised_port: {port!r} is no port")
            return False
        return True

    @function()
    def force_rport(self, run: Run) -> bool:
        """Take it that the sender asked for rport (RFC 3581): replies go to the port that the request came from."""
        if isinstance(run.message, Request) and run.flow is not None:
            run.force_rport = True
            stamp_via(run.message, run.flow.host, run.flow.port, force_rport=True)
        return True

    @function()
    def add_local_rport(self, run: Run) -> bool:
        """Ask for rport in the Via that this request leaves with."""
        run.keep()["local_rport"] = True
        return True

    @function()
    def set_via_handling(self, run: Run, flags: Annotated[str, _via_flags]) -> bool:
        """Do what ``force_rport``, ``add_local_rport`` and ``force_tcp_alias`` do; the flags have hyphens."""
        try:
            chosen = _via_flags(flags)
        except ValueError as error:
            run.user.log(-1, f"set_via_handling: {error}")
            return False
        if "force-rport" in chosen:
            self.force_rport(run)
        if "add-local-rport" in chosen:
            self.add_local_rport(run)
        return "force-tcp-alias" not in chosen or self.force_tcp_alias(run)

    @function()
    def force_tcp_alias(self, run: Run, port_alias: int | None = None) -> bool:
        """Send requests to ``port_alias`` of the sender (its Via's port by default) over the connection that this one came on.

        False if another connection has that port already. Where there is no connection (UDP) there is nothing to do."""
        flow = run.flow
        if flow is None or not flow.reliable or not isinstance(run.message, Request):
            return True
        port = port_alias if port_alias is not None else run.message.via.port or DEFAULT_PORTS.get(flow.transport, 5060)
        done: bool = flow.alias(port)  # type: ignore[attr-defined]  # every reliable flow has it: transport.flow
        return done

    @function()
    def tcp_close_conn(self, run: Run, ipport: str) -> bool:
        """Close the connection of that number, or those with the peer ``[proto:]address:port``; False if there is none."""
        connections = run.user.connections
        try:
            found = [] if connections is None else connections.named(ipport)
        except ValueError as error:
            run.user.log(-1, f"tcp_close_conn: {error}")
            return False
        for connection in found:
            connection.close()
        return bool(found)

    @function()
    async def forward(self, run: Run, destination: Destination | None = None) -> bool:
        """Send the request on without a transaction, to ``[proto:]host[:port]`` or where ``$du`` or ``$ru`` say.

        Its replies find their way back by their Vias."""
        if not isinstance(run.message, Request):
            return False
        self._take_replies(run)
        return await forward(run, None if destination is None else f"sip:{proxy_uri(destination)}")

    def _take_replies(self, run: Run) -> None:
        """See to it that replies to what was forwarded are passed on (``disable_stateless_fwd`` drops only others)."""
        user = run.user
        if user.on_unmatched is None:
            user.on_unmatched = partial(return_response, user)

    @function()
    async def send(self, run: Run, destination: Destination, headers: HeaderText | None = None) -> bool:
        """Send the message as it was received to ``[proto:]host[:port]``: no edits, no Via; ``headers`` come first in it."""
        edits = NO_EDITS
        if headers:
            if not header_text(run, "send", headers):
                return False
            edits = edits.insert_before(1, headers)
        kept, run.dst_uri = run.dst_uri, f"sip:{proxy_uri(destination)}"
        try:
            flow = await find_flow(run)
        except NoWay as error:
            run.user.log_rarely(("send", destination), -1, f"send to {destination}: {error.phrase}")
            return False
        finally:
            run.dst_uri = kept
        flow.send(write(run.message, edits, ensure_length=flow.reliable))
        return True

    @function()
    def is_myself(self, run: Run, host: str, port: int | None = None) -> bool:
        """Whether ``host`` (and ``port``) is one of our sockets or aliases."""
        ours: bool = run.user.is_myself(host, port or 0)
        return ours

    # -- branches

    @function()
    def append_branch_old(
        self, run: Run, uri: str | None = None, qvalue: Annotated[str, branches.parse_q] | None = None
    ) -> bool:
        """Add a branch with all that the Request-URI has; without ``uri`` it takes the place of the Request-URI's own."""
        branch = branches.main_branch(run)
        if uri is not None:
            branch.uri = uri
            branch.q = -1
        if not self._set_q(run, branch, qvalue) or not branches.append(run, branch):
            return False
        if uri is None:
            _strip_main(run)
        return True

    @function()
    def append_msg_branch(
        self,
        run: Run,
        uri: str,
        qvalue: Annotated[str, branches.parse_q] | None = None,
        flags: Annotated[str, _check_append_flags] | None = None,
    ) -> bool:
        """Add a branch for ``uri``; with the flag ``inherite`` it has all else that the Request-URI has."""
        branch = branches.main_branch(run) if flags == "inherite" else Branch(uri)
        branch.uri = uri
        return self._set_q(run, branch, qvalue) and branches.append(run, branch)

    def _set_q(self, run: Run, branch: Branch, qvalue: str | None) -> bool:
        if qvalue:
            try:
                branch.q = branches.parse_q(qvalue)
            except ValueError as error:
                run.user.log(-1, f"no branch for {branch.uri}: {error}")
                return False
        return True

    @function()
    def remove_msg_branch(self, run: Run, branch_idx: int) -> bool:
        """Remove a branch, counted from 0 beside the Request-URI."""
        if not 0 <= branch_idx < len(run.branches):
            return False
        del run.branches[branch_idx]
        return True

    @function()
    def move_msg_branch(
        self,
        run: Run,
        src_idx: int | None = None,
        dst_idx: int | None = None,
        keep: Annotated[str, _check_keep] | None = None,
    ) -> bool:
        """Put one branch over another, the Request-URI where no index is given; it leaves its place unless ``keep``."""
        return branches.move(
            run, -1 if src_idx is None else src_idx, -1 if dst_idx is None else dst_idx, keep == "keep"
        )

    @function()
    def swap_msg_branches(self, run: Run, br1_idx: int | None = None, br2_idx: int | None = None) -> bool:
        """Exchange two branches; the Request-URI where no index is given."""
        return branches.swap(run, -1 if br1_idx is None else br1_idx, -1 if br2_idx is None else br2_idx)

    @function()
    def serialize_branches(self, run: Run, clear_previous: int, keep_order: int | None = None) -> bool:
        """Put all branches aside, to be tried in order of q by ``next_branches``."""
        branches.serialize(run, clear_previous != 0, bool(keep_order))
        return True

    @function()
    def next_branches(self, run: Run) -> int:
        """Take the next group of those put aside: 1 if more follow, 2 if it was the last, -1 if there was none."""
        return branches.next_set(run)

    # -- values

    @function()
    def pv_printf(self, run: Run, pv: Writable, fmt_str: str) -> bool:
        """Give ``pv`` the text ``fmt_str``; false if it cannot take it."""
        return pv.set(run, fmt_str) is not False

    @function()
    def construct_uri(
        self, run: Run, proto: str, user: str | None, domain: str, port: str | None, extra: str | None, result: Writable
    ) -> bool:
        """Give ``result`` the URI made of the parts that are not empty."""
        text = f"{proto}:" + (f"{user}@" if user else "") + domain + (f":{port}" if port else "") + (f";{extra}" if extra else "")
        try:
            if not proto or not domain:
                raise MalformedMessage("protocol and domain are needed")
            Uri.parse(text)
        except MalformedMessage as error:
            run.user.log(-1, f"construct_uri: {text!r}: {error.reason}")
            return False
        return result.set(run, text) is not False

    @function()
    def get_timestamp(self, run: Run, sec_avp: Writable, usec_avp: Writable) -> bool:
        """Give the variables the time now: seconds since 1970, and microseconds of the second."""
        now = int(run.user.wall_clock() * 1_000_000)
        sec_avp.set(run, now // 1_000_000)
        usec_avp.set(run, now % 1_000_000)
        return True

    @function()
    def avp_print(self, run: Run) -> bool:
        """Log every AVP of the message, at level INFO."""
        if run.user.log_level >= 3:
            for name, values in run.avps.items():
                for value in reversed(values):
                    run.user.log(3, f"avp {name} = {value!r}")
        return True
