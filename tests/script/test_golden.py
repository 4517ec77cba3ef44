"""The Python text that scripts become, compared with ``tests/script/golden/*.txt``.

After a change of the compiler that is meant, write them anew: ``python -m tests.script.test_golden``, and read the difference."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.compiler import show
from sipgw.script.parser import parse

from .rig import symbols

HERE = Path(__file__).parent / "golden"


def written(path: Path) -> str:
    """What ``path`` becomes."""
    settings = "enable_asserts = yes\n"
    return show(parse(settings + path.read_text(), path.name), symbols())[path.name]


class GoldenTests(SynchronousTestCase):
    """The generated code."""

    def test_golden(self) -> None:
        """Each cfg becomes the Python text beside it."""
        paths = sorted(HERE.glob("*.cfg"))
        self.assertEqual(len(paths), 5)
        for path in paths:
            self.assertEqual(written(path), path.with_suffix(".txt").read_text(), path.name)


if __name__ == "__main__":
    for each in sorted(HERE.glob("*.cfg")):
        each.with_suffix(".txt").write_text(written(each))
