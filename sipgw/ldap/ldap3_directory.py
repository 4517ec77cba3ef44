"""``Directory`` with ldap3: one SYNC connection, with time limits for connecting, binding and each answer.

ldap3 refuses a bind with a name and no password by itself (it would be an anonymous one that looks like a good one)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPCommunicationError, LDAPException, LDAPResponseTimeoutError

from sipgw.ldap.config import Server, Session
from sipgw.ldap.directory import Entry, LdapFault, Rejected, Unreachable

_SCOPES = {"base": ldap3.BASE, "one": ldap3.LEVEL, "sub": ldap3.SUBTREE}
SUCCESS = 0
BROKEN = frozenset((51, 52, 80, 81, 85))
"""Results after which another server may do better: busy, unavailable, other, server down, timeout."""


class Ldap3Directory:
    """A connection to ``server``."""

    def __init__(self, session: Session, server: Server) -> None:
        self._session = session
        self._where = f"{server.host}:{server.port}"
        self._connection: Any = None
        try:
            self._connection = self._open(server)
        except LDAPException as error:
            self.close()
            raise Unreachable(f"{self._where}: {error or type(error).__name__}") from None
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise Unreachable(f"{self._where}: {error}") from None

    def _open(self, server: Server) -> Any:
        session = self._session
        tls = None
        if server.tls or session.start_tls:
            tls = ldap3.Tls(
                local_private_key_file=session.ldap_key_file or None,
                local_certificate_file=session.ldap_cert_file or None,
                ca_certs_file=session.ldap_ca_cert_file or None,
                validate=ssl.CERT_REQUIRED if session.verifies else ssl.CERT_NONE,
            )
        made = ldap3.Connection(
            ldap3.Server(
                server.host,
                server.port,
                use_ssl=server.tls,
                tls=tls,
                get_info=ldap3.NONE,
                connect_timeout=session.ldap_network_timeout / 1000 or None,
            ),
            user=session.ldap_bind_dn or None,
            password=session.ldap_bind_password or None,
            version=session.ldap_version,
            client_strategy=ldap3.SYNC,
            receive_timeout=max(1, -(-session.ldap_client_bind_timeout // 1000)),  # ldap3 wants whole seconds
            check_names=False,
            auto_referrals=False,
            return_empty_attributes=False,
            read_only=True,
        )
        self._connection = made
        made.open(read_server_info=False)
        if session.start_tls and not server.tls and not made.start_tls(read_server_info=False):
            raise Unreachable(f"{self._where} refuses StartTLS: {made.result['description']}")
        made.socket.settimeout(session.ldap_client_bind_timeout / 1000 or None)
        if not made.bind(read_server_info=False):
            result = made.result
            self.close()
            fault: type[LdapFault] = Unreachable if result["result"] in BROKEN else Rejected
            raise fault(f"{self._where} refuses the bind of {session.ldap_bind_dn or 'nobody'!r}: {result['description']}")
        made.socket.settimeout(session.ldap_client_search_timeout / 1000)
        return made

    def search(self, base: str, scope: str, filter: str, attributes: Sequence[str]) -> list[Entry]:
        """The entries that fit."""
        connection = self._connection
        try:
            connection.search(
                base,
                filter,
                _SCOPES[scope],
                attributes=list(attributes) or ldap3.ALL_ATTRIBUTES,
                time_limit=self._session.ldap_server_search_timeout,
            )
        except (LDAPCommunicationError, LDAPResponseTimeoutError, OSError) as error:
            raise Unreachable(f"{self._where}: {error or type(error).__name__}") from None
        except (LDAPException, ValueError, LookupError) as error:  # ldap3 lets its own mistakes with odd filters out
            raise Rejected(f"{filter[:200]!r}: {error or type(error).__name__}") from None
        code = connection.result["result"]
        if code != SUCCESS:
            fault: type[LdapFault] = Unreachable if code in BROKEN else Rejected
            raise fault(f"{self._where}: {connection.result['description']} {connection.result['message']}".strip())
        return [
            Entry(each["dn"], {name.lower(): list(values) for name, values in each["raw_attributes"].items()})
            for each in connection.response
            if each.get("type") == "searchResEntry"
        ]

    def close(self) -> None:
        """End it, without a word if the server is silent."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.socket is not None:
            for end in (partial(connection.socket.shutdown, socket.SHUT_RDWR), connection.strategy.close):
                try:
                    end()  # the first one wakes a thread that waits for an answer
                except (LDAPException, OSError):
                    pass


def open_directory(session: Session) -> Ldap3Directory:
    """A connection to the first server that answers, in the order of the session."""
    faults: list[str] = []
    for server in session.servers:
        try:
            return Ldap3Directory(session, server)
        except Unreachable as error:
            faults.append(str(error))
    raise Unreachable("; ".join(faults))
