"""sqlops: scripts ask databases, in SQL of their own or by columns and conditions written as JSON; AVPs of users in tables.

What a variable puts between quotes of a statement or of JSON is a value and stays one (hardening P6): it is escaped for the
database that is asked, whether or not the script escapes it too (``{s.escape.common}`` is undone: only MySQL would know it).
Outside of quotes a variable of the message may only be a number; the script's own (``$var``, ``$avp``) may be anything, since
that is how scripts put statements together. docs/decisions/0019-sql-of-scripts.md."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, TypeVar

from sipgw.db.errors import DatabaseError
from sipgw.exports import Constant, Fixup, Module, PartedText, Writable, function, param
from sipgw.interfaces import Change, Database, Rows, Value
from sipgw.modules._specs import variable
from sipgw.modules._sql_avps import (
    INT_VALUE,
    AvpName,
    Owner,
    Scheme,
    loaded,
    owner_of,
    parse_name,
    parse_plain_name,
    parse_scheme,
    parse_source,
)
from sipgw.modules._sql_rows import check_avps, check_variables, names_of, push_rows, script_value, variables_of
from sipgw.script.parts import NotSafe, Parts, fill_json, fill_sql
from sipgw.script.run import Run
from sipgw.script.symbols import Kind
from sipgw.script.values import c_int, to_text

T = TypeVar("T")

OK, FAILED, EMPTY = 1, -1, -2
Term = tuple[str, str, Value]

Avps = Annotated[str, Fixup(Kind.RAW), check_avps]
Variables = Annotated[str, Fixup(Kind.RAW), check_variables]
SourceText = Annotated[str, Fixup(Kind.RAW), parse_source]
NameText = Annotated[str, Fixup(Kind.RAW), parse_name]
PlainName = Annotated[str, Fixup(Kind.RAW), parse_plain_name]

_URL = re.compile(r"\s*(?:([0-9]+)\s+)?(\S.*)", re.DOTALL)


class BadQuery(Exception):
    """A function cannot be carried out; the text says why."""


class Sqlops(Module):
    """Lets scripts ask SQL databases, and keep AVPs of users in them."""

    db_url: str = param("", "A database, perhaps with a number before it that scripts call it by", each="add_url")
    usr_table: str = param("usr_preferences", "The table of the AVPs of users")
    use_domain: int = param(1, "Whether the domain of a URI counts when a user's AVPs are looked for")
    uuid_column: str = param("uuid", "The column of the user's identifier")
    attribute_column: str = param("attribute", "The column of the AVP's name")
    value_column: str = param("value", "The column of its value")
    type_column: str = param("type", "The column of its type")
    username_column: str = param("username", "The column of the user's name")
    domain_column: str = param("domain", "The column of the user's domain")
    db_scheme: str = param("", "A table of another shape: name:table=...;value_col=...", each="add_scheme", check=parse_scheme)
    ps_id_max_buf_len: int = param(1024, "How long a statement's name may be", unused="statements are prepared without names")
    bigint_to_str: int = param(0, "Whether numbers of more than 32 bits become texts")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._urls: dict[int, str] = {}
        self._schemes: dict[str, Scheme] = {}
        self._databases: dict[int, Database] = {}
        self._cache: dict[tuple[str, str], Any] = {}
        super().__init__(server, **parameters)

    def add_url(self, value: str) -> None:
        """Note ``[number ]url``."""
        found = _URL.fullmatch(value)
        number = int(found[1] or 0) if found else 0
        if found is None or number in self._urls:
            raise ValueError(f"there are two databases with the number {number}" if found else "write a URL")
        self._urls[number] = found[2].strip()

    def add_scheme(self, value: str) -> None:
        """Note a scheme."""
        scheme = parse_scheme(value)
        if scheme.name.lower() in self._schemes:
            raise ValueError(f"there are two schemes {scheme.name}")
        self._schemes[scheme.name.lower()] = scheme

    async def start(self) -> None:
        """Open the databases: those of ``db_url``, or the one of ``db_default_url``."""
        if not self._urls and self.server.user.globals.get("db_default_url"):
            self._urls[0] = ""
        for number, url in self._urls.items():
            self._databases[number] = await self.server.databases.open(url)

    # ---- statements ----

    @function()
    async def sql_query(self, run: Run, query: PartedText, res_col_avps: Avps | None = None, db_id: int | None = None) -> int:
        """Run a statement; the values of its rows go to AVPs. -2 if it gives none, as what changes something does."""
        rows = await self._asked(run, "sql_query", self._query(query, db_id))
        return self._pushed(run, rows, res_col_avps)

    @function()
    async def sql_query_one(
        self, run: Run, query: PartedText, res_col_vars: Variables | None = None, db_id: int | None = None
    ) -> int:
        """Run a statement; the values of its first row go to variables, of which there must be enough. -2 if it gives none."""
        rows = await self._asked(run, "sql_query_one", self._query(query, db_id))
        return self._set(run, "sql_query_one", rows, res_col_vars)

    @function()
    async def sql_select(
        self,
        run: Run,
        columns: PartedText | None,
        table: str,
        filter: PartedText | None = None,
        order: str | None = None,
        res_col_avps: Avps | None = None,
        db_id: int | None = None,
    ) -> int:
        """Select rows by JSON; their values go to AVPs. -2 if there is none."""
        rows = await self._asked(run, "sql_select", self._select(columns, table, filter, order, db_id))
        return self._pushed(run, rows, res_col_avps)

    @function()
    async def sql_select_one(
        self,
        run: Run,
        columns: PartedText | None,
        table: str | None,
        filter: PartedText,
        order: str | None,
        res_col_vars: Variables,
        db_id: int | None = None,
    ) -> int:
        """Select rows by JSON; the values of the first go to variables, of which there must be enough. -2 if there is none."""
        rows = await self._asked(run, "sql_select_one", self._select(columns, table or "", filter, order, db_id, 1))
        return self._set(run, "sql_select_one", rows, res_col_vars)

    @function()
    async def sql_update(
        self, run: Run, columns: PartedText, table: str, filter: PartedText | None = None, db_id: int | None = None
    ) -> bool:
        """Change the rows that fit ``filter``."""

        async def update() -> int:
            db = self._database(db_id)
            return await db.update(table, dict(_pairs(columns)), _filter(filter))

        return await self._asked(run, "sql_update", update()) is not None

    @function()
    async def sql_insert(self, run: Run, table: str, columns: PartedText, db_id: int | None = None) -> bool:
        """Add a row."""

        async def insert() -> bool:
            await self._database(db_id).insert(table, dict(_pairs(columns)))
            return True

        return await self._asked(run, "sql_insert", insert()) is not None

    @function()
    async def sql_delete(self, run: Run, table: str, filter: PartedText | None = None, db_id: int | None = None) -> bool:
        """Delete the rows that fit ``filter``."""

        async def delete() -> int:
            return await self._database(db_id).delete(table, _filter(filter))

        return await self._asked(run, "sql_delete", delete()) is not None

    @function()
    async def sql_replace(self, run: Run, table: str, columns: PartedText, db_id: int | None = None) -> bool:
        """Add a row, or change the one that has the same key."""

        async def replace() -> bool:
            db: Any = self._database(db_id)
            put = getattr(db, "put", None)
            if put is None:
                raise BadQuery(f"{db.name} knows no REPLACE")
            await put(table, dict(_pairs(columns)))
            return True

        return await self._asked(run, "sql_replace", replace()) is not None

    async def _query(self, query: str | Parts, db_id: int | None) -> Rows:
        db = self._database(db_id)
        return await db.query(query if isinstance(query, str) else fill_sql(query, db.quote, db.dialect == "mysql"))

    async def _select(
        self,
        columns: str | Parts | None,
        table: str,
        filter: str | Parts | None,
        order: str | None,
        db_id: int | None,
        limit: int = 0,
    ) -> Rows:
        names: Any = [] if columns is None else _json(columns)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadQuery('the columns are no JSON array of strings: write ["one","two"]')
        return await self._database(db_id).select(table, names, _filter(filter), order=order or "", limit=limit)

    # ---- AVPs of users ----

    @function()
    async def sql_avp_load(
        self, run: Run, source: SourceText, name: NameText, db_id: int | None = None, prefix: Constant | None = None
    ) -> bool:
        """Load AVPs of a user from a table; true if there is one. ``prefix`` is put before their names."""
        count = await self._asked(run, "sql_avp_load", self._load(run, source, parse_name(name), db_id, prefix or ""))
        return bool(count)

    @function()
    async def sql_avp_store(self, run: Run, source: SourceText, name: PlainName, db_id: int | None = None) -> bool:
        """Store AVPs of a user in a table, but not those that came from one; true if there is one."""
        return bool(await self._asked(run, "sql_avp_store", self._store(run, source, parse_name(name), db_id)))

    @function()
    async def sql_avp_delete(self, run: Run, source: SourceText, name: PlainName, db_id: int | None = None) -> bool:
        """Delete AVPs of a user from a table."""

        async def delete() -> int:
            wanted = parse_name(name)
            where = self._where(self._owner(run, source), self._attribute(run, wanted), None)
            return await self._database(db_id).delete(wanted.table or self.usr_table, where)

        return await self._asked(run, "sql_avp_delete", delete()) is not None

    async def _load(self, run: Run, source: str, wanted: AvpName, db_id: int | None, prefix: str) -> int:
        scheme = self._schemes.get(wanted.scheme.lower()) if wanted.scheme else None
        if wanted.scheme and scheme is None:
            raise BadQuery(f"there is no db_scheme {wanted.scheme}")
        name = self._attribute(run, wanted)
        where = self._where(self._owner(run, source), name, scheme)
        db = self._database(db_id)
        if scheme is not None:
            value_column = scheme.value_col or self.value_column
            rows = await db.select(scheme.table or self.usr_table, [value_column], where)
            found = [(value, name or "", INT_VALUE if scheme.integer else 0) for (value,) in rows]
        else:
            columns = [self.value_column, self.attribute_column, self.type_column]
            found = [row for row in await db.select(wanted.table or self.usr_table, columns, where) if None not in row]
        count = 0
        for value, attribute, kind in found:
            made = _avp_value(script_value(value), int(kind) & INT_VALUE)
            if made is not None:
                key = prefix + (name or str(attribute))
                run.avps.setdefault(key, []).append(made)
                loaded(run).setdefault(key, []).append(made)
                count += 1
        return count

    async def _store(self, run: Run, source: str, wanted: AvpName, db_id: int | None) -> int:
        owner = self._owner(run, source)
        only = self._attribute(run, wanted)
        known = loaded(run)
        changes: list[Change] = []
        new: list[tuple[str, int | str]] = []
        for name in [only] if only is not None else sorted(run.avps):
            there = list(known.get(name, ()))
            for value in reversed(run.avps.get(name, ())):
                if value in there:
                    there.remove(value)
                    continue
                row: dict[str, Value] = {
                    self.uuid_column: owner.uuid or "",
                    self.attribute_column: name,
                    self.value_column: str(value),
                    self.type_column: 0 if isinstance(value, str) else INT_VALUE,
                    self.username_column: owner.username or "",
                    self.domain_column: owner.domain or "",
                }
                changes.append(Change("insert", wanted.table or self.usr_table, row))
                new.append((name, value))
        await self._database(db_id).batch(changes)
        for name, value in new:
            known.setdefault(name, []).append(value)
        return len(new)

    def _owner(self, run: Run, source: str) -> Owner:
        wanted = parse_source(source)
        text: Any = self._variable(wanted.text).get(run) if wanted.is_variable else wanted.text
        if text is None or text == "":
            raise BadQuery(f"{wanted.text} has no value")
        try:
            return owner_of(str(text), wanted.part, bool(self.use_domain))
        except ValueError as error:
            raise BadQuery(str(error)) from None

    def _attribute(self, run: Run, wanted: AvpName) -> str | None:
        """The name of the AVP that is meant, None for all."""
        if wanted.name is None or not wanted.is_variable:
            return wanted.name
        name = self._variable(wanted.name).get(run)
        if name is None or name == "":
            raise BadQuery(f"{wanted.name} has no value")
        return str(name)

    def _where(self, owner: Owner, attribute: str | None, scheme: Scheme | None) -> dict[str, Value]:
        where: dict[str, Value] = {}
        own = scheme or Scheme("")
        for value, column in [
            (owner.uuid, own.uuid_col or self.uuid_column),
            (owner.username, own.username_col or self.username_column),
            (owner.domain, own.domain_col or self.domain_column),
            (attribute if scheme is None else None, self.attribute_column),
        ]:
            if value is not None:
                where[column] = value
        return where

    # ---- what they share ----

    def _database(self, db_id: int | None) -> Database:
        found = self._databases.get(db_id or 0)
        if found is None and not db_id and self._databases:
            found = next(iter(self._databases.values()))
        if found is None:
            raise BadQuery(f"there is no db_url with the number {db_id}" if db_id else "there is no db_url")
        return found

    def _variable(self, text: str) -> Writable:
        key = ("variable", text)
        if key not in self._cache:
            self._cache[key] = variable(text, self.server.symbols)
        found: Writable = self._cache[key]
        return found

    async def _asked(self, run: Run, name: str, asked: Awaitable[T]) -> T | None:
        """What ``asked`` gives; None, and a line in the log, if it fails."""
        try:
            return await asked
        except (DatabaseError, BadQuery, NotSafe) as error:
            run.user.log_rarely(("sqlops", name, type(error)), -1, f"{name}: {error}")
            return None

    def _pushed(self, run: Run, rows: Rows | None, avps: str | None) -> int:
        """Give rows to AVPs; the code of the function."""
        if rows is None:
            return FAILED
        if not len(rows):
            return EMPTY
        key = ("avps", avps or "")
        if key not in self._cache:
            self._cache[key] = names_of(avps or "", self.server.symbols)
        push_rows(run, list(rows), self._cache[key], bool(self.bigint_to_str))
        return OK

    def _set(self, run: Run, name: str, rows: Rows | None, variables: str | None) -> int:
        """Give the first row to variables; the code of the function."""
        if rows is None:
            return FAILED
        if not len(rows):
            return EMPTY
        key = ("variables", variables or "")
        if key not in self._cache:
            self._cache[key] = variables_of(variables or "", self.server.symbols)
        wanted: Sequence[Writable] = self._cache[key]
        if len(wanted) < len(rows[0]):
            run.user.log_rarely(("sqlops", name), -1, f"{name}: {len(rows[0])} columns and {len(wanted)} variables")
            return FAILED
        for target, value in zip(wanted, rows[0], strict=False):
            if target.set(run, script_value(value, bool(self.bigint_to_str))) is False:
                return FAILED
        return OK


def _avp_value(value: int | str | None, integer: int) -> int | str | None:
    """A value as its type says; None if it is none."""
    if value is None:
        return None
    if not integer:
        return to_text(value)
    text = to_text(value).strip()
    return c_int(int(text)) if text.isascii() and text.removeprefix("-").isdigit() else None


def _json(text: str | Parts) -> Any:
    whole = text if isinstance(text, str) else fill_json(text, lambda value: json.dumps(value, ensure_ascii=False))
    try:
        return json.loads(whole, strict=False)
    except ValueError as error:
        raise BadQuery(f"{whole[:128]!r} is no JSON: {error}") from None


def _terms(text: str | Parts) -> list[Term]:
    """``[{"column": value}, {"column": {"operator": value}}]``."""
    found: list[Term] = []
    listed = _json(text)
    for each in listed if isinstance(listed, list) else [None]:
        if not isinstance(each, dict) or not each:
            raise BadQuery('write a JSON array of objects with one column each: [{"one": 1},{"two": {"!=": null}}]')
        column, value = next(iter(each.items()))
        operator = "="
        if isinstance(value, dict) and len(value) == 1:
            operator, value = next(iter(value.items()))
        if isinstance(value, (list, dict)):
            raise BadQuery(f"the value of {column!r} is neither a text nor a number nor null")
        found.append((column, operator.strip().upper(), value))
    return found


def _filter(text: str | Parts | None) -> list[Term]:
    return [] if text is None else _terms(text)


def _pairs(text: str | Parts) -> list[tuple[str, Value]]:
    """Columns and their new values."""
    terms = _terms(text)
    if any(operator != "=" for _, operator, _ in terms):
        raise BadQuery("a column is given a value without an operator")
    return [(column, value) for column, _, value in terms]
