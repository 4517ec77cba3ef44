"""``sipgw user``: who may register. Passwords are asked for without echo, or read from stdin; never given as an argument, where
every user of the machine would see them, and never kept (``db/subscribers.py``)."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import closing
from getpass import getpass

from sipgw.db.errors import DatabaseError, Refused
from sipgw.db.session import open_store
from sipgw.db.subscribers import Subscribers, new_password
from sipgw.first_start import database_url

COLUMNS = {
    "user_column": "user",
    "domain_column": "domain",
    "password_column": "hash",
    "hash_column_sha256": "hash_sha256",
    "hash_column_sha512t256": "hash_sha512t256",
}
"""The parameters of auth_db that name columns, and what they are to ``Subscribers``."""


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, work in (
        ("add", "add a user; the password is asked for, or read from stdin", _add),
        ("passwd", "give a user another password", _passwd),
        ("rm", "remove a user", _rm),
        ("list", "list the users", _list),
    ):
        action = actions.add_parser(name, help=text, description=text)
        if name == "list":
            action.add_argument("user", metavar="@DOMAIN", nargs="?", default="", help="only those of a domain")
        else:
            action.add_argument("user", metavar="USER@DOMAIN", help="the domain is also the realm of the password")
        where = action.add_mutually_exclusive_group()
        where.add_argument("--url", help="the database, such as sqlite:///x.sqlite [default: that of sipgw run without a script]")
        where.add_argument("-c", "--config", metavar="FILE", help="a script: its auth_db's db_url, or its db_default_url")
        action.add_argument("--table", default="subscriber", help="the table [default: subscriber]")
        if name in ("add", "passwd"):
            action.add_argument("--random", action="store_true", help="make a password, and print it")
        action.set_defaults(work=work)


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    work: Callable[[Subscribers, argparse.Namespace], None] = options.work
    try:
        url, columns = _database(options)
        with closing(open_store(url)) as store:
            work(Subscribers(store, options.table, **columns), options)
    except (DatabaseError, EOFError) as error:
        print(f"sipgw user {options.action}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 1
    return 0


def _database(options: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """The URL, and the columns that are called otherwise."""
    if options.url:
        return options.url, {}
    if not options.config:
        return database_url(), {}
    from sipgw.configuration import read_configuration, settings_of

    reading = read_configuration(options.config)
    for remark in reading.errors:
        raise Refused(remark.render())
    found = {
        item.name: item.value.value for item in reading.config.modparams if re.fullmatch(item.modules, "auth_db")
    }
    url = str(found.get("db_url") or settings_of(reading.config)["db_default_url"] or "")
    if not url:
        raise Refused(f"{options.config} names no database: neither auth_db's db_url nor db_default_url is set")
    return url, {field: str(found[name]) for name, field in COLUMNS.items() if name in found}


def _name(text: str) -> tuple[str, str]:
    """The user and the domain; a SIP URI will do."""
    found = re.fullmatch(r"(?:sips?:)?([^@]*)@([^@]+)", text)
    if found is None:
        raise Refused(f"{text!r}: write user@domain")
    return found[1], found[2].lower()


def _password(options: argparse.Namespace) -> str:
    """A password from whoever runs the command, or a new one."""
    if options.random:
        return new_password()
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    given = getpass("Password: ")
    if getpass("Once more: ") != given:
        raise Refused("these were two passwords")
    return given


def _show(options: argparse.Namespace, password: str) -> None:
    """Tell a password that nobody else knows."""
    if options.random:
        print(f"The password is {password}")


def _add(subscribers: Subscribers, options: argparse.Namespace) -> None:
    user, domain = _name(options.user)
    password = _password(options)
    subscribers.add(user, domain, password)
    print(f"{user}@{domain} is added")
    _show(options, password)


def _passwd(subscribers: Subscribers, options: argparse.Namespace) -> None:
    user, domain = _name(options.user)
    password = _password(options)
    subscribers.change(user, domain, password)
    print(f"{user}@{domain} has another password")
    _show(options, password)


def _rm(subscribers: Subscribers, options: argparse.Namespace) -> None:
    user, domain = _name(options.user)
    subscribers.remove(user, domain)
    print(f"{user}@{domain} is removed")


def _list(subscribers: Subscribers, options: argparse.Namespace) -> None:
    domain = options.user.removeprefix("@")
    for user, found in subscribers.all(domain):
        print(f"{user}@{found}")
