"""Tests of sipgw.modules.uuid."""

from __future__ import annotations

import uuid
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.uuid import Uuid
from tests.doubles import FakeVariable, request, run_of
from tests.modules.scripted import Scripted

DNS = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


class UuidTests(SynchronousTestCase):
    """$uuid and uuid()."""

    def setUp(self) -> None:
        """A module and a run."""
        self.module = Uuid()
        self.run_ = run_of(request())
        user: Any = self.run_.user
        self.user = user

    def test_versions(self) -> None:
        """Each version is what it says, and another one each time."""
        for version, expected in ((0, 4), (1, 1), (4, 4), (7, 7)):
            found = {uuid.UUID(self.module.versioned(self.run_, str(version)) or "") for _ in range(3)}
            self.assertEqual({(made.version, made.variant) for made in found}, {(expected, uuid.RFC_4122)})
            self.assertEqual(len(found), 3)
            variable = FakeVariable()
            self.assertIn(self.module.make(self.run_, variable, version), (1, 2))
            self.assertEqual(uuid.UUID(str(variable.values[0])).version, expected)

    def test_time(self) -> None:
        """Version 7 begins with the time in milliseconds."""
        self.user.seconds = 1_700_000_000.123
        made = uuid.UUID(self.module.versioned(self.run_, "7") or "")
        self.assertAlmostEqual(made.int >> 80, 1_700_000_000_123, delta=1)

    def test_named(self) -> None:
        """Versions 3 and 5 are made from a namespace and a name (RFC 9562 A.2, A.4)."""
        for version, expected in ((3, "5df41881-3aed-3515-88a7-2f4a814cf09e"), (5, "2ed6657d-e927-568b-95e1-2665a8aea6a2")):
            variable = FakeVariable()
            self.assertEqual(self.module.make(self.run_, variable, version, DNS, "www.example.com"), 1)
            self.assertEqual(variable.values, [expected])

    def test_refused(self) -> None:
        """What cannot be made leaves the variable alone; the log says why."""
        variable = FakeVariable()
        for arguments in ((2,), (6,), (3,), (5, DNS), (5, DNS, ""), (5, "nonsense", "x")):
            self.assertEqual(self.module.make(self.run_, variable, *arguments), -1)
        for version in ("3", "5", "9", "x", "-1", "²"):
            self.assertIsNone(self.module.versioned(self.run_, version))
        self.assertEqual(variable.values, [])
        self.assertGreaterEqual(len(self.user.logged), 12)

    def test_unsafe(self) -> None:
        """Where another process may make the same one, the result says so."""
        unsafe = uuid.UUID(int=1 << 76, is_safe=uuid.SafeUUID.unsafe)
        self.patch(uuid, "uuid1", lambda: unsafe)
        self.assertEqual(self.module.make(self.run_, FakeVariable(), 1), 2)

    def test_script(self) -> None:
        """A script writes it with and without a version, and as a function."""
        (line,) = Scripted('uuid($var(u)); xlog("L_ALERT", "$uuid $uuid(7) $var(u)");', "uuid").send()
        self.assertEqual([uuid.UUID(text).version for text in line.split()], [4, 7, 4])
