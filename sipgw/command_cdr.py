"""``sipgw cdr``: what module acc has written into a database, as CSV (RFC 4180) on standard output.

Names and numbers in it come from strangers. A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@`` or a control
character for a formula: such texts get an apostrophe in front, which tells it not to; ``--raw`` leaves that out, for programs."""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime

from sipgw.db.errors import DatabaseError, Refused
from sipgw.db.session import Store, open_store
from sipgw.interfaces import Value

PAGE = 5000
"""Rows that are asked for at a time."""
DANGEROUS = tuple("=+-@\t\r\n|")


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="the database, such as sqlite:///var/lib/sipgw/opensips.sqlite")
    where.add_argument("-c", "--config", metavar="FILE", help="a script: its acc's db_url, or its db_default_url")
    parser.add_argument("--from", dest="first", metavar="TIME", type=moment, help="not earlier: 2026-11-01 or 2026-11-01T08:30")
    parser.add_argument("--to", dest="last", metavar="TIME", type=moment, help="earlier than this")
    parser.add_argument("--missed", action="store_true", help="missed calls instead of those that were answered")
    parser.add_argument("--table", help="another table")
    parser.add_argument("--raw", action="store_true", help="texts as they are: not for spreadsheets")


def moment(text: str) -> datetime:
    """A date, or a date and a time, of this machine's clock unless it says which."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 2026-11-01 or 2026-11-01T08:30") from None
    return found.astimezone().replace(tzinfo=None) if found.tzinfo else found


def run(options: argparse.Namespace) -> int:
    """Print it; the exit status."""
    try:
        url, table, column = _where(options)
        terms = [(column, operator, at) for operator, at in ((">=", options.first), ("<", options.last)) if at is not None]
        with closing(open_store(url)) as store:
            for line in lines(store, table, terms, options.raw):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except DatabaseError as error:
        print(f"sipgw cdr: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # sipgw cdr | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _where(options: argparse.Namespace) -> tuple[str, str, str]:
    """The URL, the table, and the name of its column with the time."""
    found: Mapping[str, object] = {}
    url = str(options.url or "")
    if options.config:
        from sipgw.configuration import read_configuration, settings_of

        reading = read_configuration(options.config)
        for remark in reading.errors:
            raise Refused(remark.render())
        found = {item.name: item.value.value for item in reading.config.modparams if re.fullmatch(item.modules, "acc")}
        url = str(found.get("db_url") or settings_of(reading.config)["db_default_url"] or "")
        if not url:
            raise Refused(f"{options.config} names no database: neither acc's db_url nor db_default_url is set")
    name = ("db_table_missed_calls", "missed_calls") if options.missed else ("db_table_acc", "acc")
    return url, str(options.table or found.get(name[0]) or name[1]), str(found.get("acc_time_column") or "time")


def lines(store: Store, table: str, terms: Sequence[tuple[str, str, Value]], raw: bool = False) -> Iterator[bytes]:
    """The rows of ``table`` for which all ``terms`` hold, in the order in which they were written, after a line of names."""
    names = [column.name for column in store.columns(table)]
    if not names:
        raise Refused(f"{store.name} has no table {table}")
    if "id" not in names:
        raise Refused(f"the table {table} of {store.name} has no column id: it is none of acc's")
    said = [name for name in names if name != "id"]
    yield _line(said)
    last: Value = -1
    while True:
        rows = store.select(table, ["id", *said], [("id", ">", last), *terms], "id", PAGE).rows
        for number, *values in rows:
            last = number
            yield _line([cell(value, raw) for value in values])
        if len(rows) < PAGE:
            return


def cell(value: Value, raw: bool = False) -> str:
    """A value as the text of a cell, which no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, int | float):
        return str(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return f"'{text}" if text.startswith(DANGEROUS) and not raw else text


def _line(cells: Sequence[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    return written.getvalue().encode("utf-8", "replace")
