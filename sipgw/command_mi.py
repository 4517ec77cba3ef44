"""``sipgw mi``: ask a running server something, or tell it, over the socket of its module mi_amp.

``sipgw mi`` lists the commands, ``sipgw mi ps`` runs one, ``sipgw mi log_level level=4`` gives it a parameter; ``--json`` prints
what came. ``--tail`` and ``--events`` print what happens, until Ctrl-C. ``sipgw mi --completion bash`` prints what makes a shell
complete commands and parameters: ``. <(sipgw mi --completion bash)``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from typing import Any

from sipgw.manhole.client import Client, Lost
from sipgw.manhole.place import find_path, folders
from sipgw.manhole.show import plain, show
from sipgw.manhole.words import complete, read_words, usage
from sipgw.mi.jsonrpc import INVALID_PARAMS, NOT_FOUND, MIError

PATIENCE = 60.0
"""Seconds that an answer may take."""
LEVELS = {-3: "ALERT", -2: "CRITICAL", -1: "ERROR", 1: "WARNING", 2: "NOTICE", 3: "INFO", 4: "DEBUG"}

COMPLETION = {
    "bash": r"""_sipgw() {
    local word line
    word=${COMP_LINE:0:COMP_POINT}
    word=${word##*[[:space:]]}
    if [ "${COMP_WORDS[1]}" != mi ]; then
        COMPREPLY=($(compgen -W "mi top run check config exports db user cdr" -- "$word"))
        return
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        # bash completes what stands behind a colon or an equals sign, for it breaks words there
        case $word in *[:=]*) line=${line#"${word%"${word##*[:=]}"}"} ;; esac
        COMPREPLY+=("$line")
    done < <(sipgw mi --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case ${COMPREPLY[0]} in *=) compopt -o nospace ;; esac
}
complete -F _sipgw sipgw
""",
    "zsh": r"""#compdef sipgw
_sipgw() {
    local -a found
    found=("${(@f)$(sipgw mi --complete "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
    compadd -Q -S '' -- ${(M)found:#*=}
    compadd -Q -- ${found:#*=}
}
compdef _sipgw sipgw
""",
}


def define(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    define_way(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, for programs")
    parser.add_argument("--tail", action="store_true", help="print the log as it is written")
    parser.add_argument("--level", type=int, default=4, metavar="N", help="with --tail: lines of level N (-3 to 4) and worse")
    parser.add_argument("--match", default="", metavar="REGEX", help="with --tail: lines in which this is found")
    parser.add_argument("--events", metavar="NAME,...", help="print events as they happen; E_CORE* is all that begin so")
    parser.add_argument("--completion", choices=sorted(COMPLETION), help="print what makes this shell complete commands")
    parser.add_argument("--complete", metavar="LINE", help=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", metavar="COMMAND", help="what to ask; without it the commands are listed")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="by position, or name=value")


def define_way(parser: argparse.ArgumentParser) -> None:
    """Say how the server is found."""
    parser.add_argument("--socket", metavar="PATH", help="the unix socket of mi_amp (default: in the run folder)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the script of the server, which names the socket")
    parser.add_argument("--tls", metavar="HOST:PORT", help="the tls_address of mi_amp")
    parser.add_argument("--certificate", metavar="FILE", help="with --tls: our certificate with its key, PEM")
    parser.add_argument("--ca", metavar="FILE", help="with --tls: who has signed the server's, PEM")


def connect(options: argparse.Namespace) -> Client:
    """The connection that ``options`` ask for; ``Lost`` says what is wrong with it."""
    if options.tls:
        host, colon, port = options.tls.rpartition(":")
        if not colon or not port.isdigit() or not options.certificate or not options.ca:
            raise Lost("--tls wants HOST:PORT, and --certificate and --ca with it")
        return Client.tls(host.strip("[]"), int(port), options.certificate, "", options.ca, patience=PATIENCE)
    path = options.socket or (options.config and path_of(options.config)) or find_path()
    if not path:
        where = " or ".join(folders())
        raise Lost(f"no socket in {where}: does the server run, with loadmodule \"mi_amp.so\"? --socket or -c tells where")
    return Client.unix(path, PATIENCE)


def path_of(file: str) -> str:
    """The socket that a script names, "" for the usual one; ``Lost`` if it has none."""
    from sipgw.configuration import read_configuration

    reading = read_configuration(file)
    if reading.errors:
        raise Lost(f"{file}: {reading.errors[0]}")
    if "mi_amp" not in reading.module_names:
        raise Lost(f'{file} has no loadmodule "mi_amp.so"')
    path = ""
    for each in reading.config.modparams:
        if each.name == "socket_name" and re.fullmatch(each.modules, "mi_amp"):
            path = str(each.value.value)
    return path


def run(options: argparse.Namespace) -> int:
    """Run one command; the exit status."""
    if options.completion:
        print(COMPLETION[options.completion], end="")
        return 0
    if "--json" in options.words:
        options.words.remove("--json")
        options.json = True
    try:
        with connect(options) as client:
            if options.complete is not None:
                return print_completions(client, options.complete)
            if options.tail or options.events:
                return follow(client, options)
            return ask(client, options.name, options.words, options.json)
    except Lost as error:
        if options.complete is None:
            print(f"sipgw mi: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # sipgw mi ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def ask(client: Client, name: str | None, words: list[str], as_json: bool) -> int:
    """Run a command of the server and print its answer; 1 if it is an error."""
    try:
        if name is None:
            print(commands(client.call("which")), flush=True)
            return 0
        described = client.describe(name)
        try:
            text = client.call_text(name, read_words(described, words))
        except ValueError as error:
            raise MIError(INVALID_PARAMS, str(error)) from None
        print(text if as_json else show(json.loads(text)), flush=True)
        return 0
    except MIError as error:
        print(explain(client, error, name or "", as_json), file=sys.stderr)
        return 1


def commands(names: list[str]) -> str:
    """All commands, those of a module behind it."""
    modules: dict[str, list[str]] = {}
    for name in names:
        module, _, rest = name.partition(":")
        modules.setdefault(module, []).append(rest)
    width = max(map(len, modules))
    return "\n".join(f"{module:>{width}}: {'  '.join(sorted(rests))}" for module, rests in sorted(modules.items()))


def explain(client: Client, error: MIError, name: str, as_json: bool) -> str:
    """What went wrong, and what to write instead."""
    if as_json:
        members = {"code": error.code, "message": error.message, "data": error.data}
        return json.dumps({"error": {key: value for key, value in members.items() if value is not None}})
    more = "" if error.data is None else f": {plain(error.data)}"
    text = f"sipgw mi: {name}: {plain(error.message)}{more} ({error.code})"
    if error.code == NOT_FOUND:
        from sipgw.script.errors import guess

        known = client.call("which")
        hint = guess(name, [*known, *(each.partition(":")[2] for each in known)])
        return f"sipgw mi: there is no command {plain(name)}{'; ' + hint if hint else ''}; `sipgw mi` lists them all"
    if error.code == INVALID_PARAMS:
        return f"{text}\n{usage(client.describe(name), 'sipgw mi')}"
    return text


def print_completions(client: Client, line: str) -> int:
    """Print what the last word of a command line may become."""
    words = line.split()
    last = words.pop() if words and not line[-1:].isspace() else ""
    words = [word for word in words[2:] if not word.startswith("--")]
    try:
        if not words:
            names = client.call("which")
            names += sorted({name.partition(":")[2] for name in names}) if ":" not in last else []
        else:
            names = complete(client.describe(words[0]), words[1:])
    except MIError:
        return 1
    for name in names:
        if name.startswith(last):
            print(name)
    return 0


def follow(client: Client, options: argparse.Namespace) -> int:
    """Print what the server tells until it ends."""
    try:
        if options.tail:
            client.tail(options.level, options.match)
        if options.events:
            client.subscribe(options.events.split(","))
    except MIError as error:
        print(f"sipgw mi: {plain(error.message)}: {plain(error.data)}", file=sys.stderr)
        return 1
    for _, value, lost in client.told():
        if lost:
            print(f"sipgw mi: {lost} lost: this terminal is too slow", file=sys.stderr)
        print(json.dumps(value) if options.json else told_line(value), flush=True)
    return 0


def told_line(value: Any) -> str:
    """What the server tells, in one line."""
    if "log" in value:
        stamp = time.strftime("%H:%M:%S", time.localtime(value["time"]))
        return f"{stamp} {LEVELS.get(value['level'], 'INFO')}: {plain(value['log'])}"
    if isinstance(value["params"], list):
        return " ".join([value["event"], *map(plain, value["params"])])
    return " ".join([value["event"], *(f"{plain(key)}={plain(each)}" for key, each in value["params"].items())])
