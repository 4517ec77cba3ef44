"""Partitions: several tables of one kind in one module, each with a name, as modparams write them."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT = "default"
"""The partition that is meant where none is named."""


def read_partition(text: str, keys: Sequence[str] = ("db_url", "table_name")) -> tuple[str, dict[str, str]]:
    """Read ``name: key = value; key = value``: the name and the settings; ``ValueError`` says what is wrong."""
    form = "; ".join(f"{key} = ..." for key in keys)
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not name or not colon:
        raise ValueError(f"bad partition {text!r}: write name: {form}")
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in rest.split(";"))):
        key, _, value = (each.strip() for each in part.partition("="))
        if key not in keys or not value:
            raise ValueError(f"partition {name}: bad setting {part!r}: write {form}")
        found[key] = value
    return name, found
