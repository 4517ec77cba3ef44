"""Tests of sipgw.transport.namefiles: resolv.conf, hosts, files that change."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport.namefiles import CHECK, LOCALHOST, ResolvConf, WatchedFile, parse_hosts, parse_resolv_conf

RESOLV = [
    ("", ResolvConf((("127.0.0.1", 53),), (), 1, None, None)),
    (
        "# one\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # two\nnameserver fe80::1%eth0\n"
        "nameserver 192.0.2.1\nnameserver x\nnameserver\n",
        ResolvConf((("192.0.2.1", 53), ("2001:db8::1", 53), ("fe80::1%eth0", 53)), (), 1, None, None),
    ),
    (
        "domain Old.example\nsearch a.example B.example. .\noptions ndots:2 timeout:3 attempts:4 rotate edns0\nnonsense\n",
        ResolvConf((("127.0.0.1", 53),), ("a.example", "b.example"), 2, 3, 4),
    ),
    (
        "search a\ndomain one.example two.example\noptions ndots:99 timeout:x\n;search z\n",
        ResolvConf((("127.0.0.1", 53),), ("one.example",), 15, None, None),
    ),
]

HOSTS = """
127.0.0.1   localhost here
::1         localhost
192.0.2.1   Proxy.Example. proxy   # the proxy
192.0.2.2   proxy
192.0.2.2   proxy
bogus       nothing
192.0.2.3
"""


class ParseTests(SynchronousTestCase):
    """Both files."""

    def test_resolv_conf(self) -> None:
        """Servers, the search list and three options are read; the last of search and domain counts."""
        for text, expected in RESOLV:
            self.assertEqual(parse_resolv_conf(text), expected, text)

    def test_hosts(self) -> None:
        """Each name has its addresses once, in order, whatever its case; lines without sense are left out."""
        self.assertEqual(
            parse_hosts(HOSTS),
            {
                "localhost": ("127.0.0.1", "::1"),
                "here": ("127.0.0.1",),
                "proxy.example": ("192.0.2.1",),
                "proxy": ("192.0.2.1", "192.0.2.2"),
            },
        )
        self.assertEqual(parse_hosts(""), {"localhost": LOCALHOST})


class WatchTests(SynchronousTestCase):
    """A file that comes, changes and goes."""

    def test_changes(self) -> None:
        """It is read again when it has changed, and looked at twice a minute at most."""
        path, clock = Path(self.mktemp()), Clock()
        reads: list[str] = []

        def parse(text: str) -> str:
            reads.append(text)
            return text

        file = WatchedFile(str(path), parse, clock.seconds)
        self.assertEqual(file.get(), "")
        path.write_text("one")
        self.assertEqual(file.get(), "")
        clock.advance(CHECK)
        self.assertEqual(file.get(), "one")
        clock.advance(CHECK)
        self.assertEqual((file.get(), reads), ("one", ["", "one"]))
        path.write_text("two")
        os.utime(path, ns=(1, 1))
        clock.advance(CHECK)
        self.assertEqual(file.get(), "two")
        path.unlink()
        clock.advance(CHECK)
        self.assertEqual((file.get(), reads), ("", ["", "one", "two", ""]))
