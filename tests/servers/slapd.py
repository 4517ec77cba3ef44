"""A private slapd with a small directory: people with H.350 attributes, one of whose names is full of special characters."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.children import HOST, free_port
from tests.servers.private import PrivateServer, folder

SLAPD = shutil.which("slapd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])) or ""
BASE = "dc=example,dc=com"
ADMIN = f"cn=proxy,{BASE}"
PASSWORD = "ge heim"

_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.1.2.1 NAME 'SIPIdentitySIPURI' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.2.2 NAME 'SIPIdentityUserName' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.2.3 NAME 'SIPIdentityPassword' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.2.4 NAME 'SIPIdentityServiceLevel' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.2.5 NAME 'callPreferenceURI' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.1.3.1 NAME 'SIPIdentity' SUP top AUXILIARY MAY ( SIPIdentitySIPURI $ SIPIdentityUserName $
  SIPIdentityPassword $ SIPIdentityServiceLevel $ callPreferenceURI ) )
pidfile {directory}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
{more}
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {directory}/data
maxsize 10485760
dbnosync
access to attrs=SIPIdentityPassword by dn="{admin}" read by * none
access to * by * read
"""

_PEOPLE = """
dn: {base}
objectClass: dcObject
objectClass: organization
dc: example
o: example

dn: ou=people,{base}
objectClass: organizationalUnit
ou: people

dn: uid=alice,ou=people,{base}
objectClass: inetOrgPerson
objectClass: SIPIdentity
uid: alice
cn: Alice
sn: Liddell
telephoneNumber: 100
telephoneNumber: 101
employeeNumber: 17
mail: alice@example.com
SIPIdentitySIPURI: sip:alice@example.com
SIPIdentityUserName: alice
SIPIdentityPassword: secret
SIPIdentityServiceLevel: longdistance
SIPIdentityServiceLevel: 900
callPreferenceURI: sip:voicemail@example.com n:15000
callPreferenceURI: sip:bob@example.com f
callPreferenceURI: sip:carol@example.com f
callPreferenceURI: no rule at all

dn: uid=bob,ou=people,{base}
objectClass: inetOrgPerson
objectClass: SIPIdentity
uid: bob
cn: Bob
sn: Builder
SIPIdentityUserName: bob

dn: uid=odd,ou=people,{base}
objectClass: inetOrgPerson
uid: odd
cn: o*d(d)\\?,+x
sn: odd
"""


def missing() -> str:
    """What keeps tests from running slapd; empty if nothing does."""
    return "" if SLAPD else "not installed: slapd"


class SlapdServer(PrivateServer):
    """One slapd; ``more`` are lines of its configuration."""

    def __init__(self, more: str = "", directory: Path | None = None) -> None:
        directory = directory or folder("slapd")
        self.port = free_port()
        config = directory / "slapd.conf"
        values = {"directory": directory, "base": BASE, "admin": ADMIN, "password": PASSWORD, "more": more}
        config.write_text(_CONFIG.format(**values))
        (directory / "data").mkdir()
        people = directory / "people.ldif"
        people.write_text(_PEOPLE.format(base=BASE))
        tool = [SLAPD, "-T", "add", "-q", "-f", str(config), "-l", str(people)]
        subprocess.run(tool, check=True, cwd=directory, capture_output=True, timeout=20)
        command = [SLAPD, "-d", "0", "-f", str(config), "-h", f"ldap://{HOST}:{self.port}/"]
        super().__init__("slapd", command, directory, self._serves)

    @property
    def url(self) -> str:
        """Its URL, as ``ldap_server_url`` has it."""
        return f"ldap://{HOST}:{self.port}"

    def _serves(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True


@functools.cache
def slapd() -> SlapdServer:
    """The slapd of this run; whoever stops or freezes it restores it."""
    server = SlapdServer()
    server.start()
    return server
