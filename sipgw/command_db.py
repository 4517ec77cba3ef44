"""``sipgw db``: make, compare, upgrade, copy the tables of a database; it ends with 0, or with 1 and a line that says why."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing

from sipgw.db.dumping import dump, load
from sipgw.db.errors import DatabaseError
from sipgw.db.making import check, create
from sipgw.db.migrate import migrate
from sipgw.db.schema import tables
from sipgw.db.session import Store, open_store

EPILOG = """URL: sqlite:///path, mysql://user:password@host/name, postgres://user:password@host/name, text:///folder.
TABLE: a table, or a group of them as OpenSIPS makes them together, such as auth_db; without any, all."""


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, work in (
        ("create", "make tables that are not there, and note their versions", _create),
        ("check", "compare versions and columns with what sipgw needs; exit status 0 or 1", _check),
        ("migrate", "bring tables of older OpenSIPS releases to today's form; the old ones are kept beside", _migrate),
        ("dump", "write rows as lines of JSON, for load into a database of any kind", _dump),
        ("load", "read what dump wrote, from a file or stdin, into tables that are empty", _load),
    ):
        action = actions.add_parser(name, help=text, description=text, epilog=EPILOG)
        action.add_argument("url", metavar="URL")
        if name == "load":
            action.add_argument("file", metavar="FILE", nargs="?", help="what dump wrote; without it, stdin")
        else:
            action.add_argument("tables", metavar="TABLE", nargs="*")
        if name == "create":
            action.add_argument("-q", "--quiet", action="store_true", help="say nothing of what is made")
        action.set_defaults(work=work)
    listing = actions.add_parser("list", help="list the tables that sipgw knows: name, version, group")
    listing.set_defaults(work=_list)


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    work: Callable[[argparse.Namespace], int] = options.work
    try:
        return work(options)
    except DatabaseError as error:
        print(f"sipgw db {options.action}: {error}", file=sys.stderr)
    except BrokenPipeError:  # sipgw db dump | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _tell(line: str) -> None:
    print(line, flush=True)


def _opened(options: argparse.Namespace, make: bool = False) -> closing[Store]:
    return closing(open_store(options.url, create=make))


def _create(options: argparse.Namespace) -> int:
    with _opened(options, make=True) as store:
        made = create(store, options.tables, (lambda _line: None) if options.quiet else _tell)
        _tell(f"{store.name}: {made} tables made")
    return 0


def _check(options: argparse.Namespace) -> int:
    with _opened(options) as store:
        remarks = [*check(store, options.tables)]
    for remark in remarks:
        _tell(str(remark))
    faults = sum(remark.fault for remark in remarks)
    _tell("no fault" if not faults else "1 fault" if faults == 1 else f"{faults} faults")
    return 1 if faults else 0


def _migrate(options: argparse.Namespace) -> int:
    with _opened(options) as store:
        return 1 if migrate(store, options.tables, _tell) else 0


def _dump(options: argparse.Namespace) -> int:
    with _opened(options) as store:
        for line in dump(store, options.tables):
            print(line)
    return 0


def _load(options: argparse.Namespace) -> int:
    with _opened(options, make=True) as store:
        if options.file is None:
            load(store, sys.stdin, _tell)
            return 0
        try:
            with open(options.file, encoding="utf-8") as lines:
                load(store, lines, _tell)
        except OSError as error:
            raise DatabaseError(f"{options.file}: {error.strerror}") from error
    return 0


def _list(_options: argparse.Namespace) -> int:
    for table in tables().values():
        print(f"{table.name:28}{table.version:<8}{table.group}")
    return 0
