"""db_virtual: several databases that look like one, ``virtual://set``; what is in a set stands in ``db_urls``::

    modparam("db_virtual", "db_urls", "define set1 FAILOVER")
    modparam("db_virtual", "db_urls", "mysql://opensips:secret@10.0.0.1/opensips")
    modparam("db_virtual", "db_urls", "mysql://opensips:secret@10.0.0.2/opensips")
"""

from __future__ import annotations

from typing import Any

from sipgw.db.databases import scheme_of
from sipgw.db.errors import DatabaseError
from sipgw.db.virtual import Member, Mode, VirtualDatabase
from sipgw.exports import Module, mi, param
from sipgw.mi.jsonrpc import MIError


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("write 1 or more")


class DbVirtual(Module):
    """Opens sets of databases: one that fails is replaced by the next, or all are used."""

    name = "db_virtual"

    db_urls: str = param(None, '"define NAME FAILOVER" (or PARALLEL, or ROUND) begins a set, a URL is one of it', each="add")
    db_probe_time: int = param(10, "Seconds between two tries of a database that is down", check=_positive)
    db_max_consec_retrys: int = param(10, "How often a database may come and fail before it is left alone", check=_positive)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._sets: list[tuple[str, Mode, list[str]]] = []
        self.open: list[VirtualDatabase] = []
        self._timer: Any = None
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("virtual", self.make)

    def add(self, text: str) -> None:
        """Begin a set, or add a database to the last one."""
        words = text.split()
        if not words or text.startswith("#"):
            return
        if words[0] != "define":
            if not self._sets:
                raise ValueError(f'{text!r} belongs to no set: write "define NAME MODE" before')
            try:
                scheme = scheme_of(text)
            except DatabaseError as error:
                raise ValueError(str(error)) from None
            if scheme == "virtual":
                raise ValueError("a set cannot be in a set")
            self._sets[-1][2].append(text.strip())
        elif len(words) != 3 or words[2] not in Mode.__members__:
            raise ValueError(f'{text!r}: write "define NAME MODE", with FAILOVER, PARALLEL or ROUND')
        elif any(words[1] == name for name, _, _ in self._sets):
            raise ValueError(f"there is a set {words[1]} already")
        else:
            self._sets.append((words[1], Mode[words[2]], []))

    async def start(self) -> None:
        """Begin to try what is down."""
        if not self._sets:
            raise ValueError("no set is defined: db_urls")
        for name, _, urls in self._sets:
            if not urls:
                raise ValueError(f"the set {name} has no databases")
            self.set_of(name)
        self._timer = self.server.later(self.db_probe_time, self._probe)

    async def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _probe(self) -> None:
        self._timer = self.server.later(self.db_probe_time, self._probe)
        for each in self.open:
            self.server.user.launch(each.probe())

    def set_of(self, name: str) -> VirtualDatabase:
        """The database of a set; it is the same for all who ask."""
        for each in self.open:
            if each.set_name == name:
                return each
        for known, mode, urls in self._sets:
            if known == name:
                members = [Member(url, self.db_max_consec_retrys) for url in urls]
                made = VirtualDatabase(name, mode, members, self.server.databases.open, self.server.user.log)
                self.open.append(made)
                self.open.sort(key=lambda each: [known for known, _, _ in self._sets].index(each.set_name))
                return made
        raise DatabaseError(f"virtual://{name}: db_urls defines no such set")

    def make(self, url: str) -> VirtualDatabase:
        """The database of ``url``."""
        return self.set_of(url.partition(":")[2].strip("/"))

    @mi(alias="db_get")
    def get(self) -> dict[str, Any]:
        """Tells of each set its databases: whether they can be used, may be used, and are tried for ever."""
        return {
            "SETS": [
                {
                    "index": index,
                    "name": each.set_name,
                    "mode": each.mode.value,
                    "DBS": [
                        {
                            "index": number,
                            "name": member.name,
                            "can": int(member.can),
                            "may": int(member.may),
                            "r_rec": int(member.stubborn),
                        }
                        for number, member in enumerate(each.members)
                    ],
                }
                for index, each in enumerate(self.open)
            ]
        }

    @mi(alias="db_set")
    def set(self, set_index: int, db_url_index: int, may_use_db_flag: int, ingore_retries: int = 0) -> None:
        """Says whether a database may be used, and whether it is tried however often it fails."""
        if not 0 <= set_index < len(self.open) or not 0 <= db_url_index < len(self.open[set_index].members):
            raise MIError(400, "Bad parameter value", "there is no such set or database")
        if may_use_db_flag not in (0, 1) or ingore_retries not in (0, 1):
            raise MIError(400, "Bad parameter value", "write 0 or 1")
        found = self.open[set_index]
        found.allow(found.members[db_url_index], bool(may_use_db_flag), bool(ingore_retries))


