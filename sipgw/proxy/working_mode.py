"""usrloc's working modes: which presets there are, and what the single parameters mean together, as OpenSIPS resolves them."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "CLUSTERS", "PERSISTENCIES", "PRESETS", "WRITES", "Mode", "check_cluster", "check_persistency", "check_preset", "check_write",
    "resolve",
]

CLUSTERER: Final = (
    "machines that tell one another of contacts need OpenSIPS's clusterer, whose protocol sipgw does not speak "
    "(docs/decisions/0020); "
    "let them share a database: sql-only, or full-sharing-cachedb-cluster on Redis"
)


class Mode(NamedTuple):
    """Where contacts are.

    ``cluster``: none, sql-only, full-sharing-cachedb or federation-cachedb; ``persistency``: none or load-from-sql;
    ``write``: none, write-through or write-back."""

    cluster: str = "none"
    persistency: str = "none"
    write: str = "none"

    @property
    def waits(self) -> bool:
        """Whether a change must be safe before it is true."""
        return self.write == "write-through" or self.cluster != "none"

    @property
    def remote(self) -> bool:
        """Whether nothing is in memory."""
        return self.cluster in ("sql-only", "full-sharing-cachedb")

    @property
    def sql(self) -> bool:
        """Whether there is an SQL database."""
        return self.write != "none" or self.cluster == "sql-only"

    @property
    def cachedb(self) -> bool:
        """Whether there is a key-value store."""
        return self.cluster.endswith("cachedb")


PRESETS: Final = {
    "single-instance-no-db": Mode(),
    "single-instance-sql-write-through": Mode("none", "load-from-sql", "write-through"),
    "single-instance-sql-write-back": Mode("none", "load-from-sql", "write-back"),
    "sql-only": Mode("sql-only"),
    "full-sharing-cachedb-cluster": Mode("full-sharing-cachedb"),
    "federation-cachedb-cluster": Mode("federation-cachedb", "sync-from-cluster"),
    "full-sharing-cluster": Mode("full-sharing", "sync-from-cluster"),
    "federation-cluster": Mode("federation", "sync-from-cluster"),
}
CLUSTERS: Final = ("none", "federation", "federation-cachedb", "full-sharing", "full-sharing-cachedb", "sql-only")
_ABSENT: Final = ("full-sharing", "federation")
PERSISTENCIES: Final = ("none", "load-from-sql", "sync-from-cluster")
WRITES: Final = ("none", "write-through", "write-back")


def resolve(preset: str, cluster: str = "", persistency: str = "", write: str = "") -> tuple[Mode, list[str]]:
    """The mode that ``preset`` names, or the other three parameters without it, and what to warn of. ``ValueError`` if they
    cannot be."""
    if preset:
        mode = PRESETS[_one_of("working_mode_preset", preset, tuple(PRESETS))]
    else:
        mode = Mode(
            _one_of("cluster_mode", cluster or "none", CLUSTERS),
            _one_of("restart_persistency", persistency or "none", PERSISTENCIES),
            _one_of("sql_write_mode", write or "none", WRITES),
        )
    warnings = []
    if mode.persistency != "load-from-sql" and mode.write != "none":
        warnings.append("sql_write_mode has no effect without restart_persistency load-from-sql")
        mode = mode._replace(write="none")
    elif mode.persistency == "load-from-sql" and mode.write == "none":
        warnings.append("restart_persistency load-from-sql without an sql_write_mode: contacts are written back")
        mode = mode._replace(write="write-back")
    if mode.cluster in _ABSENT:
        raise ValueError(CLUSTERER)
    if mode.cluster == "none":
        if mode.persistency == "sync-from-cluster":
            raise ValueError("there is no cluster to take contacts from: cluster_mode is none")
    elif mode.cluster != "federation-cachedb":
        if mode.write != "none":
            warnings.append(f"contacts of {mode.cluster} are in a database already: restart_persistency has no effect")
        mode = mode._replace(persistency="none", write="none")
    elif mode.write != "none":
        raise ValueError("contacts of federation-cachedb cannot be in an SQL database too")
    elif mode.persistency == "sync-from-cluster":
        warnings.append("contacts of federation-cachedb are gone after a restart until their phones register again")
        mode = mode._replace(persistency="none")
    return mode, warnings


def check_preset(value: str) -> None:
    """Refuse what is no ``working_mode_preset``, or none that sipgw has."""
    if PRESETS[_one_of("", value, tuple(PRESETS))].cluster in _ABSENT:
        raise ValueError(CLUSTERER)


def check_cluster(value: str) -> None:
    """Refuse what is no ``cluster_mode``, or none that sipgw has."""
    if _one_of("", value, CLUSTERS) in _ABSENT:
        raise ValueError(CLUSTERER)


def check_persistency(value: str) -> None:
    """Refuse what is no ``restart_persistency``."""
    _one_of("", value, PERSISTENCIES)


def check_write(value: str) -> None:
    """Refuse what is no ``sql_write_mode``."""
    _one_of("", value, WRITES)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """``value`` in lower case; ``ValueError`` if it is not known."""
    found = value.lower()
    if found not in known:
        raise ValueError(f"{name + ': ' if name else ''}write one of {', '.join(known)}, not {value!r}")
    return found
