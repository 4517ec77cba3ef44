"""OpenSIPS's own command line: ``sipgw -f opensips.cfg -m 512 -u opensips -P /run/sipgw.pid`` does what ``opensips`` would.

So a unit file or a container changes only the program's name. The letters are translated into those of ``twistd`` and of
``twistd sipgw``; what has no meaning in one Python process (memory, workers, allocators) is accepted and named in one line."""

from __future__ import annotations

import getopt
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

LETTERS = "f:cCl:n:rRvdDFiN:W:Vhb:a:k:s:e:m:M:w:t:u:g:p:P:G:A:o:"

WITHOUT_EFFECT = {
    "-n": "there are no worker processes",
    "-N": "there are no worker processes",
    "-m": "memory is Python's own",
    "-M": "memory is Python's own",
    "-a": "memory is Python's own",
    "-k": "memory is Python's own",
    "-s": "memory is Python's own",
    "-e": "memory is Python's own",
    "-b": "the kernel grants what it grants",
    "-W": "Twisted chooses how to poll",
    "-i": "modules are Python classes",
    "-r": "received is added by comparing addresses",
    "-R": "received is added by comparing addresses",
    "-v": "responses go only where their transaction or their Via leads",
}
"""What OpenSIPS takes and sipgw has no use for, each with why."""

DEFAULT_LEVEL = 2
"""OpenSIPS's log_level, from which each ``-d`` counts up."""

USAGE = """\
sipgw also takes the options of opensips:
  -f FILE  the script (- reads it from standard input)     -c, -C  only check it
  -F       stay in the foreground                          -D      foreground, debug level
  -d       one log level more                              -l ADDR listen there instead of on the script's sockets
  -A ADDR  the address to advertise                        -p CMD  send the script through a command first
  -o N=V   define $argv(N)                                 -w DIR  working directory      -t DIR  chroot
  -u USER, -g GROUP  whom to become                        -P FILE pid file               -G FILE process group file
  --log-file FILE  where a daemon logs if not to syslog: SIGUSR1 opens it anew after a rotation
  --log-json       each line of the log is a JSON object
  -V version   -h this   -m -M -n -N -a -k -s -e -b -W -i -r -R -v  accepted without effect
"""


class BadInvocation(Exception):
    """The command line cannot be understood; the text says why."""


@dataclass
class Invocation:
    """What an OpenSIPS command line means here.

    ``twistd``: arguments for twistd before the plugin's name; ``sipgw``: those after it. ``check``: only look at ``file``."""

    file: str | None = None
    check: bool = False
    version: bool = False
    usage: bool = False
    foreground: bool = False
    preprocessor: str | None = None
    twistd: list[str] = field(default_factory=list)
    sipgw: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    group_file: str | None = None

    def arguments(self) -> list[str]:
        """The whole command line of twistd, without its name."""
        found = list(self.twistd)
        if self.foreground:
            found.insert(0, "--nodaemon")
        if not any(argument.startswith("--pidfile") for argument in found):
            found.append("--pidfile=")
        found.append("sipgw")
        if self.file is not None:
            found += ["--config", self.file]
        return found + self.sipgw


def understand(arguments: Sequence[str]) -> Invocation:
    """Read an OpenSIPS command line; ``BadInvocation`` if it is none."""
    try:
        given, rest = getopt.getopt(list(arguments), LETTERS, ["log-file=", "log-json"])
    except getopt.GetoptError as error:
        raise BadInvocation(str(error)) from None
    if rest:
        raise BadInvocation(f"what is {rest[0]!r} for? Options only, or a command: sipgw check|exports|run")
    made = Invocation()
    level = DEFAULT_LEVEL
    for letter, value in given:
        if letter == "-d":
            level += 1
        elif letter == "-D":
            made.foreground = True
            level = 4
        else:
            _take(made, letter, value)
    if level != DEFAULT_LEVEL:
        made.sipgw += ["--log-level", str(min(level, 4))]
    return made


_SWITCHES = {"-c": "check", "-C": "check", "-F": "foreground", "-V": "version", "-h": "usage"}
_TEXTS = {"-f": "file", "-G": "group_file"}
_TWISTD = {"-P": "--pidfile", "-w": "--rundir", "-t": "--chroot", "-u": "--uid", "-g": "--gid"}
_SIPGW = {"-l": "--socket", "-o": "-o", "-A": "--advertised", "--log-file": "--log-file"}


def _take(made: Invocation, letter: str, value: str) -> None:
    if letter in WITHOUT_EFFECT:
        made.notes.append(f"{letter} {value}".strip() + f": no effect, {WITHOUT_EFFECT[letter]}")
    elif letter in _SWITCHES:
        setattr(made, _SWITCHES[letter], True)
    elif letter in _TEXTS:
        setattr(made, _TEXTS[letter], value)
    elif letter in _TWISTD:
        made.twistd.append(f"{_TWISTD[letter]}={value}")
    elif letter == "--log-json":
        made.sipgw.append(letter)
    elif letter == "-p":
        made.preprocessor = value
        made.sipgw += ["--preprocessor", value]
    else:
        made.sipgw += [_SIPGW[letter], value]


def run(arguments: Sequence[str]) -> int:
    """Do what an OpenSIPS command line asks for; the exit status."""
    from sipgw import __version__

    try:
        wanted = understand(arguments)
    except BadInvocation as error:
        print(f"sipgw: {error}\n{USAGE}", file=sys.stderr, end="")
        return 255
    if wanted.usage:
        print(USAGE, end="")
        return 0
    if wanted.version:
        print(f"version: sipgw {__version__} (Python {sys.version.split()[0]})")
        return 0
    if wanted.file == "-":
        wanted.file = _standard_input()
    for note in wanted.notes:
        print(f"sipgw: {note}", file=sys.stderr)
    if wanted.check:
        from sipgw.command import check_file
        from sipgw.first_start import DEFAULT

        return 255 if check_file(wanted.file or DEFAULT, wanted.preprocessor) else 0
    if wanted.group_file is not None:
        with open(wanted.group_file, "w", encoding="ascii") as file:
            file.write(f"{os.getpgrp()}\n")
    from twisted.scripts import twistd

    sys.argv = ["twistd", *wanted.arguments()]
    twistd.run()  # type: ignore[no-untyped-call]
    return 0


def _standard_input() -> str:
    """Keep the script that comes on standard input in a file of its own, readable by us only."""
    handle, name = tempfile.mkstemp(prefix="sipgw-", suffix=".cfg")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(sys.stdin.read())
    return name
