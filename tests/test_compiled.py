"""The build by mypyc (``SIPGW_COMPILE=1``, see setup.py): the same source, and the tests of the pure floor pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.children import ROOT

TESTS = ("tests.sip", "tests.script", "tests.core", "tests.proxy", "tests.test_scenarios", "tests.modules.test_prometheus")
_LOADED = "import sipgw.sip.message as m, sipgw.proxy.registrar as n; print(m.__file__, n.__file__)"


def run(command: list[str], folder: Path, **variables: str) -> str:
    """What ``command`` printed; ``AssertionError`` if it failed."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=900, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} failed:\n{said[-8000:]}")
    return said


class CompiledTests(SynchronousTestCase):
    """The list of files, and the build itself."""

    @skipUnless(os.environ.get("SIPGW_NIGHTLY"), "a build takes a minute: make compiled")
    def test_passes(self) -> None:
        """What is built from this source is compiled, and passes the tests of what is compiled and of what stands on it."""
        folder = Path(tempfile.mkdtemp(prefix="sipgw-compiled-"))
        self.addCleanup(shutil.rmtree, folder)
        source, built = folder / "source", folder / "built"
        ignored = shutil.ignore_patterns(".*", "_trial_temp*", "build", "*.egg-info", "*.so", "__pycache__")
        shutil.copytree(ROOT, source, ignore=ignored)
        build = [sys.executable, "-c", "from setuptools import setup; import runpy; runpy.run_path('setup.py')"]
        run([*build, "build", "--build-lib", str(built)], source, SIPGW_COMPILE="1")
        for name in ("tests", "bench", "examples", "docs", "setup.cfg"):
            (built / name).symlink_to(source / name)
        loaded = run([sys.executable, "-c", _LOADED], built, PYTHONPATH=str(built)).split()
        self.assertEqual([Path(each).suffix for each in loaded], [".so", ".so"], loaded)
        run([sys.executable, "-m", "twisted.trial", *TESTS], built, PYTHONPATH=str(built))

    def test_list(self) -> None:
        """Every file of the list is there; without ``SIPGW_COMPILE`` none of them is asked for."""
        code = "import setuptools; setuptools.setup = lambda **said: print(said); import runpy; s = runpy.run_path('setup.py')"
        code += "; print(*s['COMPILED'])"
        said = run([sys.executable, "-c", code], ROOT, SIPGW_COMPILE="0").splitlines()
        self.assertEqual(said[0], "{}")
        self.assertGreater(len(said[1].split()), 20)
        for name in said[1].split():
            self.assertTrue((ROOT / name).is_file(), name)
