"""What ``sipgw run`` without a script needs: a folder with a database, and one user whose password is told once.

The folder is ``$SIPGW_STATE``, else ``sipgw`` in ``$XDG_STATE_HOME``, which is ``~/.local/state`` unless set; only its owner may
look into it. A database that is there is used as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from sipgw.db.errors import DatabaseError
from sipgw.db.making import create
from sipgw.db.session import Session
from sipgw.db.subscribers import Subscribers, new_password

__all__ = ["DEFAULT", "DOMAIN", "USER", "configuration", "database_url", "prepare"]

DEFAULT = str(files("sipgw") / "default.cfg")
"""The configuration that sipgw ships: a registrar and proxy on the loopback address."""
USER = "1000"
"""The first user."""
DOMAIN = "127.0.0.1"
"""His domain: the address that the configuration listens on."""
MARK = "# db_default_url = "
"""What the line of the shipped configuration begins with that names no database."""


def _file() -> Path:
    folder = os.environ.get("SIPGW_STATE")
    if not folder:
        state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        folder = os.path.join(state, "sipgw")
    return Path(os.path.abspath(folder)) / "sipgw.sqlite"


def database_url() -> str:
    """The URL of the database, whether it is there or not."""
    return f"sqlite://{_file()}"


def _print(line: str) -> None:
    print(line, flush=True)


def prepare(tell: Callable[[str], None] = _print) -> str:
    """Make the database with its first user, if it is not there, and tell his password; its URL, or ``DatabaseError``."""
    file = _file()
    url = database_url()
    if file.exists():
        return url
    new = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        password = new_password()
        with closing(Session(f"sqlite://{new}", create=True)) as store:
            create(store)
            Subscribers(store).add(USER, DOMAIN, password)
        new.rename(file)
    except OSError as error:
        why = f"{file.parent} cannot have a database: {error.strerror}; set SIPGW_STATE to another folder"
        raise DatabaseError(why) from error
    tell(f"First start: users and where they are will be kept in {url}")
    tell(f"Your user:   {USER}, domain {DOMAIN}, password {password}   (it is not kept: note it now)")
    tell(f"More users:  sipgw user add 1001@{DOMAIN}   Forgotten: sipgw user passwd {USER}@{DOMAIN}")
    return url


def configuration(url: str) -> str:
    """The text of the shipped configuration, with its database named."""
    text = Path(DEFAULT).read_text(encoding="utf-8")
    begin = text.index(MARK)
    end = text.index("\n", begin)
    return f'{text[:begin]}db_default_url = "{url}"{text[end:]}'
