"""aaa_radius: RADIUS servers for scripts (``radius_send_auth``, ``radius_send_acct``) and for modules that have an ``aaa_url``.

``aaa_url`` is ``radius:`` and the name of a configuration file of radiusclient (``sipgw/radius/config.py``). Every request waits
for its answer without holding up anything else; Access-Requests are signed with Message-Authenticator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipgw.aaa import Aaa, AaaError
from sipgw.exports import ANY, Module, function, param
from sipgw.script.compiler import compile_variable
from sipgw.script.errors import ScriptError
from sipgw.script.run import Run

if TYPE_CHECKING:
    from sipgw.radius.client import RadiusClient

FAILED, DENIED = -1, -2
_SET = re.compile(r"\s*([^\s=(]+)\s*=\s*\((.*)\)\s*", re.DOTALL)
_ELEMENT = re.compile(r"\s*([^\s=,$]+)\s*=\s*(\$.*)", re.DOTALL)


def parse_set(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name and the (attribute, variable) pairs of ``name = (Attribute = $variable, ...)``; ``ValueError`` if it is no set."""
    found = _SET.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no set: write name = (Attribute = $variable, ...)")
    pairs: list[tuple[str, str]] = []
    for part in _elements(found[2]):
        element = _ELEMENT.fullmatch(part)
        if element is None:
            raise ValueError(f"{part.strip()!r} in the set {found[1]} is no Attribute = $variable")
        pairs.append((element[1], element[2].strip()))
    return found[1], pairs


def _elements(text: str) -> list[str]:
    """``text`` divided at the commas that stand outside of parentheses and braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "({") - (letter in ")}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class AaaRadius(Module):
    """Asks RADIUS servers, and tells them what was done."""

    sets: str = param(
        None, "A set of attributes and variables for a request or an answer: name = (Attribute = $variable, ...)", each="add_set"
    )
    radius_config: str = param("", "The configuration file of radiusclient for radius_send_auth and radius_send_acct")
    syslog_name: str = param("", "A name for the lines of the library in syslog", unused="its lines are in sipgw's own log")
    fetch_all_values: int = param(0, "Whether variables receive all values of an attribute of the answer, or the first one")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._texts: dict[str, list[tuple[str, str]]] = {}
        self._sets: dict[str, list[tuple[str, Any]]] = {}
        self._clients: dict[str, RadiusClient] = {}
        self._own: Aaa | None = None
        super().__init__(server, **parameters)
        if server is not None:
            server.user.aaa.serve("radius", self.open)

    def add_set(self, text: str) -> None:
        """Take one set."""
        name, pairs = parse_set(text)
        self._texts[name] = pairs

    async def start(self) -> None:
        """Read the configuration, and compile the variables of the sets."""
        for name, pairs in self._texts.items():
            try:
                self._sets[name] = [(key, compile_variable(variable, self.server.symbols)) for key, variable in pairs]
            except ScriptError as error:
                raise ValueError(f"the set {name}: {error}") from None
        if self.radius_config:
            try:
                self._own = await self.open(self.radius_config)
                self._own.check([key for pairs in self._texts.values() for key, _ in pairs])
            except AaaError as error:
                raise ValueError(f"radius_config: {error}") from None

    async def stop(self) -> None:
        """Close all ports."""
        for client in self._clients.values():
            client.stop()

    async def open(self, file: str) -> Aaa:
        """The servers of a configuration file; the same ones for the same file."""
        found = self._clients.get(file)
        if found is None:
            found = self._clients[file] = self._client(file)
        return found

    def _client(self, file: str) -> RadiusClient:
        try:
            from sipgw.radius.client import RadiusClient
            from sipgw.radius.config import read_config
            from sipgw.radius.packets import Names
        except ImportError as error:
            raise AaaError(f"aaa_radius needs {error.name}: pip install sipgw[radius]") from None
        folder = Path(file).parent

        def read(name: str) -> str:
            return (folder / name).read_text(encoding="utf-8")

        try:
            config = read_config(read(Path(file).name), read)
            names = Names(str(folder / config.dictionary) if config.dictionary else "")
        except OSError as error:
            raise AaaError(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise AaaError(f"{file}: {error}") from None
        user = self.server.user

        async def resolve(host: str) -> str | None:
            found: str | None = await user.resolve_host(host, "")
            return found

        return RadiusClient(self.server.reactor, config, names, resolve)

    # -- in scripts

    def _request(self, run: Run, what: str, name: str) -> list[tuple[str, int | str]] | None:
        """The attributes of a set with what its variables hold; None, logged, if there is no such set."""
        if name not in self._sets or self._own is None:
            missing = "radius_config is not set" if self._own is None else f"there is no set {name!r}"
            run.user.log_rarely((what, name), -1, f"{what}: {missing}")
            return None
        values = [(key, variable.get(run)) for key, variable in self._sets[name]]
        return [(key, value) for key, value in values if value is not None]

    @function(ANY)
    async def radius_send_auth(self, run: Run, input_set_name: str, output_set_name: str) -> int:
        """Send an Access-Request with one set, give the variables of the other what is answered.

        1: accepted; -2: rejected; -1: nobody knows, since no server has answered or something is wrong."""
        given = self._request(run, "radius_send_auth", input_set_name)
        if given is None or self._request(run, "radius_send_auth", output_set_name) is None or self._own is None:
            return FAILED
        try:
            answer = await self._own.authenticate(given)
        except AaaError as error:
            run.user.log_rarely("radius_send_auth", -1, f"radius_send_auth: {error}")
            return FAILED
        for key, variable in self._sets[output_set_name]:
            values = answer.values(key)
            for value in values if self.fetch_all_values else values[:1]:
                variable.set(run, value)
        for name, value in answer.avps():
            run.avps.setdefault(name, []).append(value)
        return 1 if answer.accepted else DENIED

    @function(ANY)
    async def radius_send_acct(self, run: Run, input_set_name: str) -> bool:
        """Send an Accounting-Request with a set; true when a server has it."""
        given = self._request(run, "radius_send_acct", input_set_name)
        if given is None or self._own is None:
            return False
        try:
            await self._own.account(given)
        except AaaError as error:
            run.user.log_rarely("radius_send_acct", -1, f"radius_send_acct: {error}")
            return False
        return True
