"""registrar: REGISTER requests answered, and calls sent to the contacts that they bound.

The machinery is in ``proxy/registrar.py`` and ``proxy/lookup.py``, the contacts are in usrloc's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, FAILURE, LOCAL, ONREPLY, REQUEST, Constant, Fixup, Module, Writable, function
from sipgw.modules._registrar_base import RegistrarBase, avp
from sipgw.modules.usrloc import with_tables
from sipgw.proxy.awaken import NOBODY
from sipgw.proxy.location import Binding, LocationTable
from sipgw.proxy.location_drafts import TRIES, Conflict, Draft, Drafted, NotStored, Remote
from sipgw.proxy.location_rows import written_socket
from sipgw.proxy.location_shared import Federated
from sipgw.proxy.lookup import NO_AOR, PUSHED, is_at, lookup, registered
from sipgw.proxy.register import Rejected
from sipgw.proxy.registrar import Answer
from sipgw.proxy.registrar_flags import SaveFlags, lookup_flags, save_flags
from sipgw.script.run import Run
from sipgw.script.symbols import Kind, ModuleSymbols
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request

TURN = 10_000
"""Contacts that ``remove_ip_port`` looks at in one turn of the reactor."""

Variable = Annotated[Writable, Fixup(Kind.VAR)]
"""A variable that is read, with all its values if it is an AVP."""


class Registrar(RegistrarBase):
    """Saves the contacts of REGISTER requests and looks them up."""

    writers = {"save": "save_waiting", "remove": "remove_waiting"}
    """The functions that wait where contacts must be safe first, and what takes their place (``Usrloc.coloured``)."""
    readers = {
        each: f"{each}_waiting" for each in ("lookup", "is_registered", "is_contact_registered", "is_ip_registered")
    }
    """The functions that wait where nothing is in memory."""

    @classmethod
    def declared(cls, instance: Module | None = None) -> ModuleSymbols:
        """What the compiler sees: with ``instance``, usrloc's table is there as soon as a script names it."""
        symbols = super().declared(instance)
        if not isinstance(instance, Registrar) or instance.usrloc is None:
            return symbols
        return with_tables(instance.usrloc.coloured(symbols, instance), instance.usrloc)

    # -- REGISTER

    @function(REQUEST | ONREPLY)
    def save(
        self, run: Run, domain: Constant, flags: Annotated[str, save_flags] | None = None, aor: str | None = None
    ) -> int:
        """Apply the REGISTER and answer it; -2 if it was refused. ``aor``: a URI to take instead of To's.

        In a reply route the REGISTER that was relayed is applied as the other registrar has granted it; nothing is answered."""
        read = self._save_flags(run, flags)
        if read is None:
            return -1
        table = self.usrloc.table(domain)
        return self._answer(run, table, read, aor, self.registration.save(run, table, read, aor))

    async def save_waiting(self, run: Run, domain: str, flags: str | None = None, aor: str | None = None) -> int:
        """``save`` where contacts must be safe before the answer says so."""
        read = self._save_flags(run, flags)
        table: Any = self.usrloc.table(domain)
        if read is None:
            return -1
        name = self.registration.aor_of(run, aor)
        if name is None:  # it will be refused
            return self._answer(run, table, read, aor, self.registration.save(run, Draft(table, "", (), {}), read, aor))
        if table.remote and read.memory_only:  # there is none
            read = replace(read, memory_only=False)
        edits = run.edits
        draft: Draft | None = None
        answer: Answer | None = None
        tried = 0
        while tried < TRIES:
            tried += 1
            try:
                draft = await (table.draft(name, run.now) if draft is None else table.again(draft, run.now))
                run.edits = edits
                answer = self._saved(run, table, draft, read, aor)
                if answer.status < 300:
                    await table.commit(draft)
                else:
                    table.leave(draft)
                break
            except NotStored as error:
                if isinstance(error, Conflict) and tried < TRIES:
                    continue
                if draft is not None and isinstance(error, Conflict):
                    table.leave(draft)
                run.user.log_rarely("save", -1, f"contacts are not saved: {error}")
                answer = self.registration.not_saved(answer, draft, run.user.clock(), error)
                break
        assert answer is not None
        return self._answer(run, draft if table.remote and draft else table, read, aor, answer)

    def _saved(self, run: Run, table: Drafted, draft: Draft, flags: SaveFlags, aor: str | None) -> Answer:
        """The answer to a REGISTER that is applied to ``draft``."""
        try:
            return self.registration.save(run, draft, flags, aor)
        except BaseException:
            table.leave(draft)
            raise

    def _save_flags(self, run: Run, flags: str | None) -> SaveFlags | None:
        """The flags of ``save()``; None if it cannot be done at all."""
        if run.request is None and not isinstance(run.message, Request):
            run.user.log(-1, "save: a reply without its transaction names no REGISTER")
            return None
        try:
            return save_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, str(error))
            return None

    def _answer(self, run: Run, table: LocationTable, flags: SaveFlags, aor: str | None, answer: Answer) -> int:
        """Count a REGISTER, and answer it."""
        accepted = answer.status < 300
        if accepted:
            self.accepted_regs.value += 1
            if run.flags & self._persistent:
                self._keep_connection(run, table, aor)
        else:
            self.rejected_regs.value += 1
        if not flags.no_reply and isinstance(run.message, Request):
            self.signaling.reply(run, answer.status, answer.reason, headers=answer.headers)
        return 1 if accepted else -2

    def _keep_connection(self, run: Run, table: LocationTable, aor: str | None) -> None:
        """Keep the connection that a REGISTER came on, however idle, until the contacts that it bound expire."""
        request, flow = run.message, run.flow
        if isinstance(request, Request) and flow is not None and flow.reliable:
            ends = [each.expires for each in self._bindings(run, table, aor) if each.call_id == request.call_id]
            if ends:
                flow.keep(max(ends) - run.now)  # type: ignore[attr-defined]  # every reliable flow has it: transport.flow

    # -- destinations

    @function(REQUEST | FAILURE | ONREPLY)
    def lookup(
        self, run: Run, domain: Constant, flags: Annotated[str, lookup_flags] | None = None, aor: str | None = None
    ) -> int:
        """Send the request to the contacts of its Request-URI (or of ``aor``).

        1 if there are some, 2 if all of them sleep and have been asked for (each is called as soon as it wakes up), -1 if there
        are none, -2 if none takes the method (method-filtering), -3 if it is no SIP URI."""
        try:
            read = lookup_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, str(error))
            return NO_AOR
        return lookup(self.registration, run, self.usrloc.table(domain), read, aor, self._wake if self.alarm else None)

    def _wake(self, run: Run, table: LocationTable, bindings: list[Binding]) -> int:
        """Ask for the phones of ``bindings``, for a request that can wait; 0 if there are too many transactions (503 is sent)."""
        assert self.alarm is not None and self.tm is not None
        if not isinstance(run.message, Request) or run.message.method in ("ACK", "CANCEL"):
            return NO_AOR
        context = self.tm.context(run)
        if context is None:
            return 0
        context.made_to_wait = False
        self.alarm.wake(context, table, bindings)
        return PUSHED

    @function(REQUEST)
    async def pn_process_purr(self, run: Run, domain: Constant) -> int:
        """Wake the phone that a request within a dialog goes to, and wait for it, if the PURR in the request names one.

        1 if it was asked for (and has registered, or the time is over), 2 if nobody had to be, -1 for a reply."""
        if self.alarm is None:
            return NOBODY
        return await self.alarm.wake_within_dialog(run, self.usrloc.table(domain))

    async def lookup_waiting(self, run: Run, domain: str, flags: str | None = None, aor: str | None = None) -> int:
        """``lookup`` where not all is in memory."""
        aors = self._aors([aor or run.uri, *(branch.uri for branch in run.branches)])
        table = self.usrloc.table(domain)
        view: LocationTable | None = table
        if not isinstance(table, Federated):
            view = await self.usrloc.view(run, domain, aors)
        elif self._goes_everywhere(flags):
            try:
                view = await table.everywhere(aors, run.now)
            except NotStored as error:
                run.user.log_rarely("lookup", -1, f"other servers cannot be asked: {error}")
        return NO_AOR if view is None else self.lookup(run, view, flags, aor)  # type: ignore[arg-type]

    @staticmethod
    def _goes_everywhere(flags: str | None) -> bool:
        try:
            return lookup_flags(flags or "").everywhere
        except ValueError:
            return False

    # -- questions

    def _aors(self, uris: Iterable[str]) -> list[str]:
        """The addresses-of-record of those of ``uris`` that have one."""
        found = []
        for uri in uris:
            try:
                found.append(self.registration.target(uri)[0])
            except Rejected:
                continue
        return found

    async def _view(self, run: Run, domain: str, aor: str | None) -> Any:
        """What is known of one user where nothing is in memory; None if that cannot be found out."""
        try:
            uri = aor or self._own(run)
        except MalformedMessage:
            uri = None
        return await self.usrloc.view(run, domain, self._aors([uri] if uri else []))

    @staticmethod
    def _own(run: Run) -> str | None:
        """The user that a question without one means: that of To of a REGISTER, else that of From; a reply has none."""
        message = run.message
        if not isinstance(message, Request):
            run.user.log(-1, "a reply has no user of its own: tell the function which one is meant")
            return None
        return message.to.uri_text if message.method == "REGISTER" else message.from_.uri_text

    def _bindings(self, run: Run, domain: str | LocationTable, aor: str | None) -> tuple[Binding, ...]:
        """The contacts of ``aor``, or of the device if it is a GRUU; by default those of To of a REGISTER, else of From."""
        try:
            if aor is None:
                aor = self._own(run)
            return tuple(self.registration.live(self.usrloc.table(domain), aor, run.now)) if aor else ()
        except (Rejected, MalformedMessage):
            run.user.log(1, f"no address-of-record: {aor}")
            return ()

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def is_registered(self, run: Run, domain: Constant, AOR: str | None = None) -> bool:
        """Whether a user has a contact; ``attr_avp`` gets what is kept with each."""
        bindings = self._bindings(run, domain, AOR)
        attribute = self.registration.settings.attr_avp
        if attribute:
            for binding in bindings:
                if binding.attr:
                    run.avps.setdefault(attribute, []).append(binding.attr)
        return bool(bindings)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def is_contact_registered(
        self, run: Run, domain: Constant, AOR: str | None = None, contact: str | None = None, callid: str | None = None
    ) -> bool:
        """Whether a user has this contact, from this Call-ID; without either, the first contact of the message."""
        if contact is None and callid is None:
            try:
                contacts = run.message.contacts
            except MalformedMessage:
                contacts = []
            if not contacts:
                run.user.log(1, "is_contact_registered: the message has no contact")
                return False
            contact = contacts[0].uri_text
        bindings = self._bindings(run, domain, AOR)
        return any(True for _ in registered(bindings, () if contact is None else (contact,), callid))

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def is_ip_registered(
        self, run: Run, domain: Constant, AOR: str | None, IPvar: Variable, PORTvar: Variable | None = None
    ) -> bool:
        """Whether a user has registered from one of these addresses (and ports: 0 means none was written).

        Where a contact registered from counts, else the host of the contact itself; names are not resolved."""
        bindings = self._bindings(run, domain, AOR)
        hosts = _values(IPvar, run)
        ports: list[int | str | None] = [None] * len(hosts) if PORTvar is None else _values(PORTvar, run)
        for host, port in zip(hosts, ports, strict=False):
            if not isinstance(host, str) or isinstance(port, str):
                run.user.log(-1, f"is_ip_registered: an address is a string and a port a number, not {host!r} and {port!r}")
                continue
            if any(is_at(binding, host, port, with_path=False) for binding in bindings):
                return True
        return False

    async def is_registered_waiting(self, run: Run, domain: str, AOR: str | None = None) -> bool:
        """``is_registered`` where nothing is in memory."""
        view = await self._view(run, domain, AOR)
        return view is not None and self.is_registered(run, view, AOR)

    async def is_contact_registered_waiting(
        self, run: Run, domain: str, AOR: str | None = None, contact: str | None = None, callid: str | None = None
    ) -> bool:
        """``is_contact_registered`` where nothing is in memory."""
        view = await self._view(run, domain, AOR)
        return view is not None and self.is_contact_registered(run, view, AOR, contact, callid)

    async def is_ip_registered_waiting(
        self, run: Run, domain: str, AOR: str | None, IPvar: Writable, PORTvar: Writable | None = None
    ) -> bool:
        """``is_ip_registered`` where nothing is in memory."""
        view = await self._view(run, domain, AOR)
        return view is not None and self.is_ip_registered(run, view, AOR, IPvar, PORTvar)

    # -- removal

    @function(REQUEST | ONREPLY)
    def remove(
        self,
        run: Run,
        domain: Constant,
        AOR: str,
        contact: str | None = None,
        next_hop: str | None = None,
        sip_instance: str | None = None,
        bflag: Constant | None = None,
    ) -> bool:
        """Forget the contacts of a user, or those alone that have this URI, next hop, +sip.instance and branch flag."""
        try:
            name = self.registration.aor(AOR)
        except Rejected:
            run.user.log(-1, f"remove: no address-of-record: {AOR}")
            return False
        table = self.usrloc.table(domain)
        mask = run.user.branch_flags.find(bflag) if bflag is not None else 0
        for binding in [*table.bindings(name)]:
            if contact is not None and binding.contact != contact:
                continue
            if next_hop is not None and not is_at(binding, next_hop):
                continue
            if sip_instance is not None and binding.instance != sip_instance:
                continue
            if bflag is not None and not binding.flags & mask:
                continue
            table.remove(binding)
        return True

    async def remove_waiting(self, run: Run, domain: str, AOR: str, *which: str | None) -> bool:
        """``remove`` where that must be safe first."""
        try:
            name = self.registration.aor(AOR)
        except Rejected:
            return self.remove(run, domain, AOR, *which)
        return await self._change(run, domain, name, lambda there: self.remove(run, there, AOR, *which))  # type: ignore[arg-type]

    async def _change(self, run: Run, domain: str, aor: str, call: Callable[[LocationTable], bool]) -> bool:
        """Change the contacts of a user; False if that cannot be made safe."""
        try:
            return await self.usrloc.table(domain).work(aor, run.now, call)
        except NotStored as error:
            run.user.log_rarely("remove", -1, f"contacts are not removed: {error}")
            return False

    @function()
    async def remove_ip_port(self, run: Run, IP: str, Port: int, domain: Constant, AOR: str | None = None) -> bool:
        """Forget the contacts at an address and port, of one user or of all."""
        table = self.usrloc.table(domain)
        forget = partial(self._remove_at, host=IP, port=Port)
        if AOR is not None:
            try:
                name = self.registration.aor(AOR)
            except Rejected:
                run.user.log(-1, f"remove_ip_port: no address-of-record: {AOR}")
                return False
            return await self._change(run, domain, name, partial(forget, name))
        done = True
        try:
            there = iter((await table.records()).items()) if isinstance(table, Remote) else iter(table)
        except (NotStored, DatabaseError) as error:
            run.user.log_rarely("remove", -1, f"contacts are not removed: {error}")
            return False
        for seen, (name, bindings) in enumerate(there, 1):
            if any(_is_there(binding, IP, Port) for binding in bindings):
                done = await self._change(run, domain, name, partial(forget, name)) and done
            if seen % TURN == 0:
                await self._next_turn()
        return done

    @staticmethod
    def _remove_at(aor: str, table: LocationTable, host: str, port: int) -> bool:
        for binding in [*table.bindings(aor)]:
            if _is_there(binding, host, port):
                table.remove(binding)
        return True

    def _next_turn(self) -> Deferred[None]:
        """Wait until the reactor has looked at everything else."""
        waiting: Deferred[None] = Deferred()
        self.server.user.after(0, lambda _now: waiting.callback(None))
        return waiting

    # -- headers

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def add_sock_hdr(self, run: Run, hdr_name: str) -> bool:
        """Add a header that names the socket by which the request came, for ``save`` elsewhere (socket-header)."""
        if not is_token(hdr_name):
            run.user.log(-1, f"add_sock_hdr: {hdr_name!r} is no name of a header")
            return False
        if run.flow is None:
            return False
        run.edits = run.edits.append(f"{hdr_name}: {written_socket(run.flow.socket)}")
        return True


def _is_there(binding: Binding, host: str, port: int) -> bool:
    """Whether ``binding`` is at an address and port, written or not."""
    return is_at(binding, host, port) or (port == 5060 and is_at(binding, host, 0))


def _values(variable: Any, run: Run) -> list[int | str | None]:
    """All values of a variable: those of ``$avp(name)``, the newest first; others have one."""
    match = avp(getattr(variable, "name", ""))
    if match is not None:
        return list(reversed(run.avps.get(match[1], [])))
    value = variable.get(run)
    return [] if value is None else [value]
