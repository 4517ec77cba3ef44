"""dialplan: texts translated by rules in tables (``core/translation.py``).

Tables are read at the start and at ``dialplan:reload``, each whole: what cannot be read changes nothing. Rules that mean nothing
are left out, and the log says how many; the status group ``dialplan`` has an identifier for each partition."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.partitions import DEFAULT, read_partition
from sipgw.core.translation import NoOutput, Rule, Rules, read_rule
from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, EVENT, FAILURE, LOCAL, REQUEST, STARTUP, TIMER, Module, Writable, function, mi, param
from sipgw.interfaces import Database
from sipgw.mi.jsonrpc import SERVER_ERROR, MIError
from sipgw.script.run import Run

WHERE = REQUEST | FAILURE | BRANCH | LOCAL | STARTUP | TIMER | EVENT
VERSION = 5
SLICE = 1000
"""Rows of a table that are read in one turn of the reactor."""
NO_DATA, LOADING, READY, RELOADING = -2, -1, 1, 2


class Partition:
    """One table of rules, by their numbers."""

    def __init__(self, name: str, url: str, table: str) -> None:
        self.name = name
        self.url = url
        self.table = table
        self.db: Any = None
        self.status: Any = None
        self.rules: dict[int, Rules] = {}


class Dialplan(Module):
    """Translates texts by rules."""

    partition: str = param("", "One more table, name: db_url = URL; table_name = NAME; or default: name", each="add_partition")
    db_url: str = param("", "The database of partitions that name none; empty: db_default_url")
    table_name: str = param("dialplan", "The table of partitions that name none")
    dpid_col: str = param("dpid", "The column of the number of a set of rules")
    pr_col: str = param("pr", "The column of the priority; the smallest counts")
    match_op_col: str = param("match_op", "The column of the kind of match: 0 equal, 1 a pattern")
    match_exp_col: str = param("match_exp", "The column of what is matched")
    match_flags_col: str = param("match_flags", "The column of the flags: 1 ignores case")
    subst_exp_col: str = param("subst_exp", "The column of the pattern of a substitution")
    repl_exp_col: str = param("repl_exp", "The column of the text that is given")
    attrs_col: str = param("attrs", "The column of the attributes")
    timerec_col: str = param("timerec", "The column of the times in which a rule counts")
    disabled_col: str = param("disabled", "The column that says that a rule does not count")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.partitions: dict[str, Partition] = {}
        self._default = DEFAULT
        super().__init__(server, **parameters)

    def add_partition(self, text: str) -> None:
        """Note one more partition, or which one is the default."""
        name, colon, rest = (each.strip() for each in text.partition(":"))
        if name == DEFAULT and colon and rest and "=" not in rest:
            self._default = rest
            return
        name, settings = read_partition(text)
        self.partitions[name] = Partition(name, settings.get("db_url", ""), settings.get("table_name", ""))

    async def start(self) -> None:
        """Read the tables."""
        user, databases = self.server.user, self.server.databases
        if self._default == DEFAULT:
            if DEFAULT not in self.partitions and (self.db_url or user.globals.get("db_default_url") or not self.partitions):
                self.partitions[DEFAULT] = Partition(DEFAULT, "", "")
        elif self._default not in self.partitions:
            raise ValueError(f"partition default: there is no partition {self._default!r}")
        for each in self.partitions.values():
            each.table = each.table or self.table_name
            each.url = each.url or self.db_url or str(user.globals.get("db_default_url") or "")
            each.status = user.status.group("dialplan").identifier(each.name, NO_DATA, "no data loaded")
            each.db = await databases.open(each.url)
            await databases.check(each.db, each.table, VERSION)
            await self._load(each)

    async def _load(self, partition: Partition) -> None:
        status = partition.status
        before = status.status
        status.set(RELOADING if before == READY else LOADING, "data loading in progress")
        status.report("starting DB data loading")
        try:
            found, count, faults = await self._read(partition)
        except DatabaseError:
            status.report("DB data loading failed, discarding")
            status.set(READY if before == READY else NO_DATA, "data available" if before == READY else "no data loaded")
            raise
        partition.rules = found
        status.report("DB data loading successfully completed")
        status.report(f"{count} rules loaded ({len(faults)} discarded)")
        status.set(READY, "data available")
        if faults:
            text = f"dialplan: {len(faults)} rules of {partition.table} are left out; the first: {faults[0]}"
            self.server.user.log(1, text)

    async def _read(self, partition: Partition) -> tuple[dict[int, Rules], int, list[str]]:
        """The rules of a table by their numbers, how many they are, and why others mean nothing."""
        db: Database = partition.db
        columns = [self.dpid_col, self.disabled_col, self.pr_col, self.match_op_col, self.match_exp_col, self.match_flags_col]
        columns += [self.subst_exp_col, self.repl_exp_col, self.timerec_col, self.attrs_col]
        rows = await db.select(partition.table, columns)
        made: dict[int, list[Rule]] = {}
        faults: list[str] = []
        for number, (dpid, disabled, *row) in enumerate(rows, 1):
            try:
                if not int(disabled or 0):
                    made.setdefault(int(dpid), []).append(read_rule(number, row))
            except (TypeError, ValueError) as error:
                faults.append(f"rule {row[2]!r} of {dpid}: {error}")
            if number % SLICE == 0:
                turn: Deferred[None] = Deferred()
                self.server.later(0, lambda turn=turn: turn.callback(None))  # type: ignore[misc]
                await turn
        return {dpid: Rules(rules) for dpid, rules in made.items()}, sum(map(len, made.values())), faults

    @function(WHERE)
    def dp_translate(
        self,
        run: Run,
        id: int,
        input: str,
        out_var: Writable | None = None,
        attrs_var: Writable | None = None,
        partition: str | None = None,
    ) -> bool:
        """Translate ``input`` by the rules of number ``id``; false if none matches.

        ``out_var`` receives the translation if the rule has one, ``attrs_var`` its attributes."""
        found = self._partition(partition)
        if found is None:
            run.user.log(-1, f"dp_translate: there is no partition {partition or self._default!r}")
            return False
        rules = found.rules.get(id)
        rule = None if rules is None else rules.find(input, run.user.wall_clock())
        if rule is None:
            return False
        try:
            output, attributes = rule.answer(input)
        except NoOutput as error:
            run.user.log_rarely("dp_translate", -1, f"dp_translate: {error}")
            return False
        if out_var is not None and output is not None and out_var.set(run, output) is False:
            return False
        return attrs_var is None or attrs_var.set(run, attributes) is not False

    def _partition(self, name: str | None) -> Partition | None:
        return self.partitions.get(self._default if name is None or name == DEFAULT else name)

    # -- management

    @mi(alias="dp_reload")
    async def reload(self, partition: str | None = None) -> None:
        """Reads the tables of all partitions again, or of one; what cannot be read stays as it was."""
        found = list(self.partitions.values()) if partition is None else [self._found(partition)]
        for each in found:
            try:
                await self._load(each)
            except DatabaseError as error:
                self.server.user.log(-1, f"dialplan: partition {each.name} stays as it was: {error}")
                raise MIError(SERVER_ERROR, data=f"partition {each.name} cannot be read") from None

    def _found(self, name: str | None) -> Partition:
        found = self._partition(name)
        if found is None:
            raise MIError(400, "Partition not found")
        return found

    @mi(alias="dp_translate")
    def translate(self, dpid: str, input: str, partition: str | None = None) -> dict[str, str]:
        """Translates a text by the rules of a number."""
        found = self._found(partition)
        try:
            number = int(dpid)
        except ValueError:
            raise MIError(404, "Wrong id parameter") from None
        if not input:
            raise MIError(404, "Empty input parameter")
        rules = found.rules.get(number)
        if rules is None:
            raise MIError(404, "No information available for dpid")
        rule = rules.find(input, self.server.user.wall_clock())
        try:
            answer = None if rule is None else rule.answer(input)
        except NoOutput:
            answer = None
        if answer is None:
            raise MIError(404, "No translation")
        return {"Output": answer.output or "", "ATTRIBUTES": answer.attributes}

    @mi(alias="dp_show_partition")
    def show_partition(self, partition: str | None = None) -> dict[str, Any]:
        """Tells of which table and database the partitions are, or one."""
        if partition is None:
            listed = [{"name": p.name, "table": p.table, "db_url": hide_password(p.url)} for p in self.partitions.values()]
            return {"Partitions": listed}
        found = self._partition(partition)
        if found is None:
            raise MIError(404, "Partition Not Found")
        return {"Partition": found.name, "Table": found.table, "db_url": hide_password(found.url)}
