"""Tests of sipgw.modules.core_cachedb and cachedb_local; codes and answers are those of OpenSIPS 4.1 to the same."""

from __future__ import annotations

import os
import stat
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.cachedb import CacheError
from sipgw.modules import cachedb_local
from sipgw.modules.cachedb_local import CachedbLocal
from sipgw.testing import FakeServer, WiredServer, finished, pass_time
from tests.doubles import FakeCache
from tests.modules.test_core_events import Served

HEAD = """
log_level = 3
xlog_level = 3
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "cachedb_local.so"
"""
ROUTE = """
route {
    cache_store("local", "k", "v"); xlog("store $rc");
    cache_fetch("local", "k", $var(r)); xlog("fetch $rc $var(r)");
    $var(r) = "old";
    cache_fetch("local", "nope", $var(r)); xlog("none $rc $var(r)");
    cache_remove("local", "k"); xlog("remove $rc");
    cache_remove("local", "k"); xlog("remove $rc");
    cache_add("local", "n", 5, 0); xlog("add $rc");
    cache_add("local", "n", 5, 0, $var(n)); xlog("add $rc $var(n)");
    cache_sub("local", "n", 3, 0, $var(n)); xlog("sub $rc $var(n)");
    cache_sub("local", "m", 3, 0, $var(n)); xlog("sub $rc $var(n)");
    cache_fetch("local", "n", $var(r)); xlog("fetch $rc $var(r)");
    cache_counter_fetch("local", "n", $var(r)); if ($var(r) == 7) xlog("counter $rc $var(r)");
    $var(r) = "old";
    cache_counter_fetch("local", "nope", $var(r)); xlog("counter $rc $var(r)");
    cache_store("local", "t", "text");
    cache_add("local", "t", 1, 0, $var(n)); xlog("add text $rc $var(n)");
    cache_counter_fetch("local", "t", $var(r)); xlog("counter text $rc $var(r)");
    cache_store("local", "i", "12");
    cache_add("local", "i", 1, 0, $var(n)); xlog("add to text $rc $var(n)");
    cache_store("local", "e", "12", -5); cache_fetch("local", "e", $var(r)); xlog("negative $rc $var(r)");
    cache_store("local", "", "12"); xlog("empty key $rc");
    cache_store("local", "ev", ""); cache_fetch("local", "ev", $var(r)); xlog("empty value $rc [$var(r)]");
    cache_store("nope", "a", "12"); xlog("nope $rc");
    cache_fetch("nope", "a", $var(r)); xlog("nope $rc");
    cache_counter_fetch("nope", "a", $var(r)); xlog("nope $rc");
    cache_remove("nope", "a"); xlog("nope $rc");
    cache_add("nope", "a", 1, 0); xlog("nope $rc");
    cache_raw_query("local", "get x", "$avp(res)"); xlog("raw $rc");
    cache_add("local", "big", 2147483647, 0); cache_add("local", "big", 5, 0, $var(n)); xlog("big $rc $var(n)");
    cache_store("local:", "k", "v"); xlog("colon $rc");
    cache_fetch("local", "k", $avp(r)); cache_fetch("local", "i", $avp(r)); xlog("pushed $(avp(r)[*])");
    cache_remove_chunk("n*"); xlog("chunk $rc");
    cache_remove_chunk(, "m*"); xlog("chunk $rc");
    cache_remove_chunk("default", "[ei]"); xlog("chunk $rc");
    cache_remove_chunk("nope", "m*"); xlog("chunk $rc");
}
"""
SAID = """store 1|fetch 1 v|none -2 old|remove 1|remove 1|add 1|add 1 10|sub 1 7|sub 1 -3|fetch 1 7|counter 1 7|counter -2 old|
add text -1 -3|counter text -3 old|add to text 1 13|negative 1 12|empty key -1|empty value 1 []|nope -1|nope -1|nope -1|nope -1|
nope -1|raw -1|big 1 -2147483644|colon 1|pushed 13, v|chunk 1|chunk 1|chunk 1|chunk -1""".replace("\n", "").split("|")


class ScriptTests(Served):
    """The functions in a script."""

    def test_functions(self) -> None:
        """Each gives the code and the value that OpenSIPS gives."""
        self.serve(HEAD + ROUTE)
        self.texts()
        self.request()
        said = [text for text in self.texts() if text.partition(" ")[0] in {word.partition(" ")[0] for word in SAID}]
        self.assertEqual(said, SAID)
        keys = [each["name"] for each in self.ask("cache_fetch_chunk", ["*"])["keys"]]
        self.assertEqual(keys, ["t", "ev", "big", "k"])

    def test_raw_query(self) -> None:
        """The rows of an answer fill AVPs, the first row at index 0; null values are left out; a failure is false."""
        route = """route {
            cache_raw_query("fake", "all", "$avp(k); $avp(v)"); xlog("$rc $(avp(k)[*]) $(avp(v)[*])");
            cache_raw_query("fake", "all"); xlog("$rc");
            cache_raw_query("fake", "broken"); xlog("$rc");
        }"""
        self.serve(HEAD + route)
        cache = FakeCache()
        cache.values = {"one": 1, "two": None, "three": "x"}
        self.user.caches.add("fake", "", cache)
        self.texts()
        self.request()
        self.assertEqual(self.texts(), ["1 one, two, three 1, x", "1", "cache_raw_query: it is broken", "-1"])

    def test_bad_columns(self) -> None:
        """What is no AVP is refused when the configuration is read."""
        refused = self.assertRaises(AssertionError, WiredServer, HEAD + 'route { cache_raw_query("local", "x", "$var(a)"); }')
        self.assertIn("'$var(a)' is no AVP", str(refused))


class CommandTests(Served):
    """The management commands."""

    def test_answers(self) -> None:
        """Each answers as OpenSIPS does."""
        self.serve(
            HEAD
            + 'modparam("cachedb_local", "cache_collections", "one; two = 5")\n'
            + 'modparam("cachedb_local", "cachedb_url", "local://")\n'
            + 'modparam("cachedb_local", "cachedb_url", "local:g1:///one")\n'
            + "route { exit; }"
        )
        no_group = (500, "Cache fetch command failed")
        for command, params, answer in [
            ("cache:store", ["local", "a", "v"], "OK"),
            ("cache:fetch", ["local", "a"], {"key": "a", "value": "v"}),
            ("cache_fetch", ["local", "nope"], (400, "Value not found")),
            ("cache:remove", ["local", "a"], "OK"),
            ("cache_remove", ["local", "a"], "OK"),
            ("cache:fetch", ["local", "a"], (400, "Value not found")),
            ("cache:store", ["local:g1", "g", "in one"], "OK"),
            ("cache:fetch", ["local:g1", "g"], {"key": "g", "value": "in one"}),
            ("cache:fetch", ["local", "g"], (400, "Value not found")),
            ("cache:fetch", ["local:g2", "g"], no_group),
            ("cache:fetch", ["nope", "g"], no_group),
            ("cache:store", ["nope", "a", "v"], (500, "Cache store command failed")),
            ("cache:remove", ["nope", "a"], (500, "Cache remove command failed")),
            ("cache_store", ["local", "b", "v", -1], (-32602, "Invalid params", "Negative expire value")),
            ("cache:store", ["local", "d", ""], (-32602, "Invalid params", "Empty value")),
            ("cache:store", ["local", "", "x"], (-32602, "Invalid params", "Empty attribute name")),
            ("cache:fetch", ["local", ""], (-32602, "Invalid params", "Empty attribute name")),
            ("cache:remove", ["local", ""], (-32602, "Invalid params", "Empty attribute name")),
            ("cache:store", ["local", "n", 5, 0], "OK"),
            ("cache:fetch", ["local", "n"], {"key": "n", "value": "5"}),
            ("cachedb_local:fetch_chunk", ["*"], {"keys": [{"name": "n", "value": "5"}]}),
            ("cachedb_local:fetch_chunk", ["*", "one"], {"keys": [{"name": "g", "value": "in one"}]}),
            ("cachedb_local:fetch_chunk", ["*", "two"], {"keys": []}),
            ("cache_fetch_chunk", ["*", "nope"], (-32000, "Server error", "Failed to handle parameter")),
            ("cachedb_local:remove_chunk", ["n*"], "OK"),
            ("cache_remove_chunk", ["zzz*"], "OK"),
            ("cachedb_local:remove_chunk", ["n*", "nope"], (500, "Internal error")),
            ("cachedb_local:fetch_chunk", ["*"], {"keys": []}),
            ("cache:store", ["local", "short", "v", 2], "OK"),
        ]:
            self.assertEqual(self.ask(command, params), answer, (command, params))
        self.clock.advance(1.5)
        self.assertEqual(self.ask("cache:fetch", ["local", "short"])["value"], "v")
        self.clock.advance(0.5)
        self.assertEqual(self.ask("cache:fetch", ["local", "short"]), (400, "Value not found"))


class CollectionTests(SynchronousTestCase):
    """Collections, patterns, expiry and bounds."""

    def make(self, **parameters: Any) -> CachedbLocal:
        """A started module."""
        self.server = FakeServer()
        made = CachedbLocal(self.server, **parameters)
        finished(made.start())
        self.caches = self.server.user.caches
        return made

    def keys(self, made: CachedbLocal, glob: str = "*") -> list[str]:
        """The keys of the default collection that fit."""
        return [each["name"] for each in made.fetch_chunk(glob)["keys"]]

    def test_patterns(self) -> None:
        """Patterns are those of fnmatch(3): a backslash quotes, [^ and [! both negate, case counts."""
        made = self.make()
        for key in ("m", "n", "mm", "é b*[1]"):
            finished(self.caches.store("local", key, "v"))
        for glob, fits in [
            ("m*", ["m", "mm"]), ("?", ["m", "n"]), ("[mn]", ["m", "n"]), ("M*", []), ("n", ["n"]), ("é*", ["é b*[1]"]),
            ("é b\\*\\[1\\]", ["é b*[1]"]), ("{n,m}", []), ("[!n]", ["m"]), ("[^n]*", ["m", "mm", "é b*[1]"]), ("", []),
        ]:
            self.assertEqual(self.keys(made, glob), fits, glob)

    def test_counter_time(self) -> None:
        """A counter ends when it was told to; adding without a time leaves that as it is, with one sets it anew."""
        self.make()
        for seconds, left in [((5, 0), 5), ((0, 3), 3), ((3, 8), 8)]:
            for each in seconds:
                finished(self.caches.increase("local", "n", 1, each))
            self.server.reactor.advance(left - 0.5)
            self.assertEqual(finished(self.caches.counter("local", "n")), 2)
            self.server.reactor.advance(0.5)
            self.assertIsNone(finished(self.caches.counter("local", "n")))

    def test_sweep(self) -> None:
        """What is over and not asked for is forgotten each cache_clean_period, some keys in each turn."""
        self.patch(cachedb_local, "SLICE", 2)
        made = self.make(cache_clean_period=10)
        for number in range(5):
            finished(self.caches.store("local", f"k{number}", "v", 3))
        finished(self.caches.store("local", "kept", "v"))
        collection = made.collections["default"]
        for _ in range(9):
            self.server.reactor.advance(1)
            made.sweep()
        self.assertEqual(len(collection), 6)
        self.server.reactor.advance(1)
        made.sweep()
        self.assertEqual(len(collection), 4)
        pass_time(self.server.reactor, 0.1)
        self.assertEqual(len(collection), 1)
        self.assertEqual(self.keys(made), ["kept"])

    def test_full(self) -> None:
        """A full collection takes no new key; the ones that are there may change."""
        self.patch(cachedb_local, "CAPACITY", 2)
        self.make()
        finished(self.caches.store("local", "a", "v"))
        finished(self.caches.increase("local", "b", 1))
        for ask in (self.caches.store("local", "c", "v"), self.caches.increase("local", "c", 1)):
            refused = self.assertRaises(CacheError, finished, ask)
            self.assertEqual(str(refused), "the collection default has 2 keys already")
        finished(self.caches.store("local", "a", "w"))
        self.assertEqual(finished(self.caches.increase("local", "b", 1)), 2)

    def test_threshold(self) -> None:
        """exec_threshold is that of every query; removing by a pattern is one too."""
        made = self.make(exec_threshold=7)
        self.assertEqual(self.caches.find("local").threshold, 7)
        clock = iter([0.0, 1.0, 1.0])
        self.patch(self.server.user, "clock", lambda: next(clock))
        made.remove_chunk("*")
        self.assertEqual(self.caches.slow.read(), 1)

    def test_urls(self) -> None:
        """A URL leads to its collection, two may lead to one, and the last one of a group counts."""
        made = self.make(cache_collections="one;two = 9 ; ")
        self.assertEqual([*made.collections], ["default", "one", "two"])
        for url in ("local:///one", "local:a:///one", "local:b:///one", "local:b:///two"):
            made.add_url(url)
        finished(made.start())
        for storage in ("local", "local:a", "local:b"):
            finished(self.caches.store(storage, storage, "v"))
        self.assertEqual([len(each) for each in made.collections.values()], [0, 2, 1])

    def test_kept(self) -> None:
        """With enable_restart_persistency a server begins with what the last one had, and what was over stays over."""
        file = os.path.abspath(self.mktemp())
        parameters = {"enable_restart_persistency": 1, "cache_collections": "one"}

        def start() -> CachedbLocal:
            self.server = FakeServer(restart_persistency_cache_file=file)
            made = CachedbLocal(self.server, **parameters)
            made.add_url("local://")
            made.add_url("local:g:///one")
            finished(made.start())
            self.caches = self.server.user.caches
            return made

        made = start()
        self.assertEqual(self.server.lines, [])
        for storage, key, seconds in [("local", "é\udcff\n", 0), ("local", "short", 5), ("local:g", "k", 50), ("local", "n", 0)]:
            finished(self.caches.store(storage, key, f"of {key}", seconds))
        self.server.reactor.advance(6)
        finished(made.stop())
        self.assertEqual(stat.S_IMODE(os.stat(f"{file}.cachedb_local").st_mode), 0o600)
        made = start()
        kept = {name: [*collection.matching("*", 0.0)] for name, collection in made.collections.items()}
        self.assertEqual(kept, {"default": [("é\udcff\n", "of é\udcff\n"), ("n", "of n")], "one": [("k", "of k")]})
        self.server.reactor.advance(49)
        self.assertEqual(finished(self.caches.fetch("local:g", "k")), "of k")
        self.server.reactor.advance(2)
        self.assertIsNone(finished(self.caches.fetch("local:g", "k")))

    def test_not_kept(self) -> None:
        """A file that cannot be read or written is logged; what could be read is there."""
        file = os.path.abspath(self.mktemp())
        with open(f"{file}.cachedb_local", "w", encoding="ascii") as made:
            made.write('["default", "k", "v", null]\n["gone", "x", "y", null]\nbroken\n')
        self.server = FakeServer(restart_persistency_cache_file=file)
        module = CachedbLocal(self.server, enable_restart_persistency=1)
        finished(module.start())
        self.assertEqual([*module.collections["default"].matching("*", 0.0)], [("k", "v")])
        self.assertIn(f"not all of {file}.cachedb_local could be read", self.server.lines[0][1])
        self.server.user.globals["restart_persistency_cache_file"] = "/nosuch/directory/file"
        finished(module.stop())
        self.assertIn("the keys could not be kept in /nosuch/directory/file.cachedb_local", self.server.lines[1][1])

    def test_refused(self) -> None:
        """Parameters that cannot be are refused with what to write."""
        for name, value, said in [
            ("cache_collections", "a/r", "replicated collections need"),
            ("cache_collections", "a=x", "bad collection 'a=x'"),
            ("cache_collections", "=5", "bad collection '=5'"),
            ("cache_collections", "a=", "bad collection 'a='"),
            ("cachedb_url", "redis:///x", "is not for this module"),
            ("cachedb_url", "local", "is no URL"),
        ]:
            refused = self.assertRaises(ValueError, CachedbLocal(FakeServer()).set_parameter, name, value)
            self.assertIn(said, str(refused))
        made = CachedbLocal(FakeServer(), cachedb_url="local:///nowhere")
        refused = self.assertRaises(ValueError, finished, made.start())
        self.assertIn("there is no collection 'nowhere'", str(refused))
