"""The console script ``sipgw``: look at a configuration or at what there is, without starting a server; or start it.

With OpenSIPS's own options (``sipgw -f opensips.cfg -F``) it does what ``opensips`` would: see ``invocation.py``.

``sipgw check FILE`` compiles and reports: 0 if all is well, 1 if not. ``sipgw exports`` lists what each module exports, as
JSON. ``sipgw config`` prints the configuration that runs without another one. ``sipgw run`` is ``twistd -n sipgw``. ``sipgw
db`` and ``sipgw user`` look after databases: ``command_db.py``, ``command_user.py``; ``sipgw cdr`` tells what has been accounted:
``command_cdr.py``. ``sipgw mi`` and ``sipgw top`` ask a running server: ``command_mi.py``,
``command_top.py``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from sipgw import command_cdr, command_db, command_mi, command_top, command_user


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser(prog="sipgw", description="A SIP server that runs opensips.cfg scripts.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="compile a script and report every fault; exit status 0 or 1")
    check.add_argument("file", nargs="+", help="an opensips.cfg")
    check.add_argument("-p", "--preprocessor", help="send the script through this command first, such as 'm4 -P'")
    commands.add_parser("config", help="print the configuration that sipgw runs without another one, to be changed")
    commands.add_parser("exports", help="list what the modules export, as JSON")
    command_db.define(commands.add_parser("db", help="make, compare, upgrade, copy the tables of a database"))
    command_user.define(commands.add_parser("user", help="add, change, list, remove users"))
    command_cdr.define(commands.add_parser("cdr", help="print accounted calls as CSV"))
    command_mi.define(commands.add_parser("mi", help="ask a running server, or tell it: sipgw mi ps"))
    command_top.define(commands.add_parser("top", help="see what a running server does, in the whole terminal"))
    run = commands.add_parser("run", help="start the server: twistd -n sipgw", add_help=False)
    run.add_argument("rest", nargs=argparse.REMAINDER, metavar="OPTIONS", help="as for twistd sipgw: -c FILE ...")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        return run_server(given[1:])
    if given and given[0].startswith("-") and given[0] != "--help":
        from sipgw.invocation import run as run_as_opensips

        return run_as_opensips(given)
    options = parser.parse_args(given)
    if options.command in ("cdr", "mi", "top"):
        runs: dict[str, Callable[..., int]] = {"cdr": command_cdr.run, "mi": command_mi.run, "top": command_top.run}
        return runs[options.command](options)
    if options.command in ("db", "user"):
        return command_db.run(options) if options.command == "db" else command_user.run(options)
    if options.command == "exports":
        return print_exports()
    if options.command == "config":
        return print_configuration()
    return max(check_file(file, options.preprocessor) for file in options.file)


def check_file(file: str, preprocessor: str | None) -> int:
    """Compile one file and say what is wrong with it."""
    from sipgw.configuration import read_configuration
    from sipgw.service import check

    return check(read_configuration(file, preprocessor))


def print_exports() -> int:
    """Print the exports of all modules."""
    from sipgw.catalogue import exports

    try:
        print(json.dumps(exports(), indent=1, sort_keys=True), flush=True)
    except BrokenPipeError:  # sipgw exports | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def print_configuration() -> int:
    """Print the shipped configuration with its database, which is made if it is not there."""
    from sipgw.db.errors import DatabaseError
    from sipgw.first_start import configuration, prepare

    try:
        url = prepare(lambda line: print(line, file=sys.stderr))
    except DatabaseError as error:
        print(f"sipgw config: {error}", file=sys.stderr)
        return 1
    print(configuration(url), end="")
    return 0


def run_server(arguments: Sequence[str]) -> int:
    """Become ``twistd -n sipgw``."""
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "sipgw", *arguments]
    run()  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main())
