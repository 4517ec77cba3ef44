"""The SSH server of the module manhole (twisted.conch): public keys only, and nothing but sessions.

With a terminal an admin gets the Python shell, an operator the prompt of management commands. Without one, and in the subsystem
``mi``, both get management commands line by line; ``ssh host command`` runs a single one, with its exit status. There is no
forwarding of ports, agents or X11, and no sftp: Conch has none of them unless an avatar offers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.manhole_ssh import TerminalSessionTransport
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION, SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.interfaces import Server
from sipgw.manhole.keys import ADMIN, Identity, KeyChecker
from sipgw.manhole.prompt import Lines, Prompt, answer

MAX_CLIENTS = 16
"""Connections at a time."""
LOGIN_TIME = 30
"""Seconds to prove who one is."""
MI = b"mi"
"""The subsystem of management commands."""
ATTEMPTS = 6
"""Keys that may be tried."""


class KeysOnly(SSHUserAuthServer):
    """Asks who somebody is, not for long."""

    loginTimeout = LOGIN_TIME
    attemptsBeforeDisconnect = ATTEMPTS


class SshTransport(SSHServerTransport):
    """One connection."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        """Take it, if there are not too many."""
        self.factory.clients.add(self)
        super().connectionMade()
        if len(self.factory.clients) > MAX_CLIENTS:
            self.transport.abortConnection()

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """The client leaves; that it wants to is no error."""
        if reasonCode != DISCONNECT_BY_APPLICATION:
            super().receiveError(reasonCode, description)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """One less."""
        self.factory.clients.discard(self)
        super().connectionLost(reason)


class ManholeFactory(SSHFactory):
    """Makes the server's end of each connection. ``shell(who)`` makes what an admin with a terminal gets."""

    protocol = SshTransport
    noisy = False

    def __init__(self, server: Server, key: Key, keys: str, shell: Callable[[Identity], Any]) -> None:
        self.clients: set[SshTransport] = set()
        self.privateKeys = {key.sshType(): key}
        self.publicKeys = {key.sshType(): key.public()}
        self.services = {b"ssh-userauth": KeysOnly, b"ssh-connection": SSHConnection}
        realm: Any = Realm(server, shell)
        checker: Any = KeyChecker(keys, server.user.log)
        self.portal = Portal(realm, [checker])

    def getPrimes(self) -> None:
        """No primes of our own: keys are agreed on curves."""
        return None


@implementer(IRealm)
class Realm:
    """Makes the avatar of each user."""

    def __init__(self, server: Server, shell: Callable[[Identity], Any]) -> None:
        self.server = server
        self.shell = shell

    def requestAvatar(self, who: Identity, _mind: Any, *_interfaces: Any) -> Any:
        """One user has proved who he is."""
        log = self.server.user.log
        log(2, f"manhole: {who.name} comes in, role {who.role}")
        return IConchUser, Avatar(self, who), lambda: log(2, f"manhole: {who.name} leaves")


class Channel(SSHSession):
    """One channel; the subsystem ``mi`` is a session whose terminal, if there is one, is nothing."""

    def request_subsystem(self, data: bytes) -> int:
        """Begin a subsystem."""
        if getNS(data)[0] != MI:
            return super().request_subsystem(data)
        opened: Any = self._session
        opened.forget_terminal()
        return self.request_shell(b"")


class Avatar(ConchUser):
    """What a user may open: sessions."""

    def __init__(self, realm: Realm, who: Identity) -> None:
        super().__init__()
        self.realm = realm
        self.who = who
        self.channelLookup = {b"session": Channel}

    def lines(self, waiting: Callable[[], int]) -> Lines:
        """Management commands line by line."""
        return Lines(self.realm.server, self.who, waiting)

    def terminal(self, waiting: Callable[[], int]) -> Any:
        """What a terminal shows."""
        if self.who.role != ADMIN:
            return Prompt(self.realm.server, self.who)
        shell = self.realm.shell(self.who)
        shell.waiting = waiting
        return shell


class _Transport:
    """The transport of what runs in a session: ``write`` takes what it says, or what the client sends."""

    def __init__(self, write: Callable[[bytes], Any], lose: Callable[[], Any]) -> None:
        self.write = write
        self.loseConnection = lose

    def closeStdin(self) -> None:
        """Nothing more comes."""


@implementer(ISession)
class Session:
    """One session of a user."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._size: tuple[int, int] | None = None
        self._lines: Lines | None = None
        self._terminal: ServerProtocol | None = None

    def getPty(self, _terminal: bytes, size: tuple[int, int, int, int], _modes: Any) -> None:
        """There is a terminal of that size."""
        self._size = size[1], size[0]

    def windowChanged(self, size: tuple[int, int, int, int]) -> None:
        """It has another size now: lines are short, nothing follows."""
        self._size = size[1], size[0]

    def forget_terminal(self) -> None:
        """What comes is no terminal's."""
        self._size = None

    def openShell(self, process: Any) -> None:
        """Begin what the user's role has."""

        def waiting() -> int:
            """Octets that the client has not read."""
            return len(process.session.buf)

        if self._size is not None:
            self._terminal = ServerProtocol(self._avatar.terminal, waiting)
            TerminalSessionTransport(process, self._terminal, self._avatar, *self._size)
            return
        lines = self._lines = self._avatar.lines(waiting)
        connection: Any = self._avatar.conn
        process.makeConnection(_Transport(lines.dataReceived, lines.connectionLost))
        transport: Any = _Transport(process.write, lambda: connection.sendClose(process.session))
        lines.makeConnection(transport)

    def execCommand(self, process: Any, command: bytes) -> None:
        """Run one management command; its exit status is 0 or 1."""
        process.makeConnection(_Transport(lambda _data: None, lambda: None))
        realm = self._avatar.realm
        text = command.decode("utf-8", "replace")

        def done(result: tuple[int, str]) -> None:
            status, shown = result
            (process.errReceived if status else process.outReceived)(f"{shown}\n".encode("utf-8", "replace"))
            process.processEnded(Failure(ProcessTerminated(status) if status else ProcessDone(0)))

        def broken(failure: Failure) -> None:
            realm.server.user.broken(failure.value)
            done((2, "the server failed; its log says how"))

        def run() -> None:
            Deferred.fromCoroutine(answer(realm.server, self._avatar.who, text)).addErrback(broken).addCallback(
                lambda result: None if result is None else done(result)
            )

        realm.server.reactor.callLater(0, run)  # the client hears first that it may run it

    def eofReceived(self) -> None:
        """The client sends nothing more."""
        if self._lines is not None:
            self._lines.finish()

    def closed(self) -> None:
        """It is over: what runs in the terminal is told, which Conch does not do."""
        if self._lines is not None:
            self._lines.connectionLost()
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.connectionLost(Failure(ConnectionDone()))


registerAdapter(Session, Avatar, ISession)
