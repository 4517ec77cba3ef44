"""Tests of sipgw.core.partitions: names and settings."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.partitions import read_partition


class PartitionTests(SynchronousTestCase):
    """Texts of modparams."""

    def test_read(self) -> None:
        """A partition is written with its settings; anything else is refused."""
        made = read_partition(" in : db_url = sqlite:///a=b?c ; table_name = t ;\n")
        self.assertEqual(made, ("in", {"db_url": "sqlite:///a=b?c", "table_name": "t"}))
        self.assertEqual(read_partition("in:"), ("in", {}))
        for text in ("in", ": table_name = t", "in: table = t", "in: db_url", "in: db_url ="):
            with self.assertRaisesRegex(ValueError, "partition"):
                read_partition(text)
