"""Tests of sipgw.proxy.working_mode: what OpenSIPS 4.1 makes of the parameters."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.working_mode import PRESETS, Mode, check_preset, resolve

SQL = Mode("none", "load-from-sql", "write-back")


class ResolveTests(SynchronousTestCase):
    """The four parameters together."""

    def test_modes(self) -> None:
        """A preset overrides the others; what has no effect is warned of."""
        for given, mode, warns in [
            (("", "", "", ""), Mode(), ""),
            (("single-instance-no-db", "sql-only", "load-from-sql", "write-back"), Mode(), ""),
            (("Single-Instance-SQL-Write-Back", "", "", ""), SQL, ""),
            (("single-instance-sql-write-through", "", "", ""), Mode("none", "load-from-sql", "write-through"), ""),
            (("", "none", "load-from-sql", "write-through"), Mode("none", "load-from-sql", "write-through"), ""),
            (("", "", "load-from-sql", ""), SQL, "written back"),
            (("", "", "none", "write-through"), Mode(), "no effect"),
            (("sql-only", "", "", ""), Mode("sql-only"), ""),
            (("", "sql-only", "load-from-sql", "write-back"), Mode("sql-only"), "no effect"),
            (("full-sharing-cachedb-cluster", "", "", ""), Mode("full-sharing-cachedb"), ""),
            (("", "full-sharing-cachedb", "load-from-sql", "write-back"), Mode("full-sharing-cachedb"), "no effect"),
            (("federation-cachedb-cluster", "", "", ""), Mode("federation-cachedb"), "after a restart"),
            (("", "federation-cachedb", "none", ""), Mode("federation-cachedb"), ""),
        ]:
            found, warnings = resolve(*given)
            self.assertEqual((found, bool(warnings)), (mode, bool(warns)), given)
            self.assertIn(warns, " ".join(warnings))

    def test_refused(self) -> None:
        """What cannot be, or is not there, is refused with what to write instead."""
        for given, why in [
            (("nothing", "", "", ""), "working_mode_preset: write one of"),
            (("", "nothing", "", ""), "cluster_mode: write one of"),
            (("", "", "nothing", ""), "restart_persistency: write one of"),
            (("", "", "", "nothing"), "sql_write_mode: write one of"),
            (("full-sharing-cluster", "", "", ""), "clusterer"),
            (("", "federation", "", ""), "clusterer"),
            (("", "none", "sync-from-cluster", ""), "no cluster"),
            (("", "federation-cachedb", "load-from-sql", ""), "too"),
        ]:
            with self.assertRaises(ValueError) as caught:
                resolve(*given)
            self.assertIn(why, str(caught.exception))
        for preset, mode in PRESETS.items():
            if mode.cluster in ("federation", "full-sharing"):
                self.assertRaises(ValueError, check_preset, preset)
            else:
                check_preset(preset)

    def test_kinds(self) -> None:
        """What a mode asks for: an SQL database, a key-value store, answers that wait, questions that wait."""
        for preset, kinds in [
            ("single-instance-no-db", ""), ("single-instance-sql-write-through", "sql waits"),
            ("single-instance-sql-write-back", "sql"), ("sql-only", "sql waits remote"),
            ("full-sharing-cachedb-cluster", "cachedb waits remote"), ("federation-cachedb-cluster", "cachedb waits"),
        ]:  # fmt: skip
            mode = resolve(preset)[0]
            found = [name for name in ("sql", "cachedb", "waits", "remote") if getattr(mode, name)]
            self.assertEqual(" ".join(found), kinds, preset)
