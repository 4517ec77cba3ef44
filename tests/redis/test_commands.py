"""Tests of sipgw.redis.commands and url: what needs no server."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.redis.commands import changes_connection, key_of, octets, plain, short, slot, split_parts, split_query
from sipgw.redis.url import hide, parse
from sipgw.script.parts import Hole, Parts


class KeyTests(SynchronousTestCase):
    """Keys, and where they are."""

    def test_slots(self):
        """The slots that the specification of Redis Cluster and its servers give."""
        for key, expected in [(b"123456789", 0x31C3), (b"foo", 12182), (b"{user1000}.following", 3443), (b"user1000", 3443)]:
            self.assertEqual(slot(key), expected, key)
        for key, other in [(b"a{b}c{d}", b"b"), (b"{a", b"x{{a}")]:
            self.assertEqual(slot(key), slot(other), key)
        self.assertEqual(slot(b"foo{{bar}}zap"), slot(b"{bar"))

    def test_first_key(self):
        """The key that says where a command goes."""
        for words, expected in [
            ("GET a", b"a"), ("eval S 1 k v", b"k"), ("EVALSHA S 0 v", None), ("PING", None), ("PUBLISH c m", None),
            ("XREAD COUNT 1 STREAMS s 0", b"s"), ("OBJECT ENCODING k", b"k"), ("DBSIZE", None), ("HSET h f v", b"h"),
        ]:
            self.assertEqual(key_of([word.encode() for word in words.split()]), expected, words)

    def test_long_keys(self):
        """512 octets are kept as they are, more become a digest that stays in its slot."""
        self.assertEqual(short("k" * 512), b"k" * 512)
        long = short("k" * 513)
        self.assertEqual((len(long), long[:7]), (71, b"sha256:"))
        self.assertNotEqual(long, short("k" * 514))
        tagged = "{alice}" + "k" * 600
        self.assertEqual(slot(short(tagged)), slot(b"{alice}"))
        self.assertEqual(len(short("ü" * 300)), 71)

    def test_octets(self):
        """Texts go out and come back as they were, octets that are no UTF-8 and NUL too."""
        for text in ["alice", "ü", "\udcff\udc80", "a\0b", "a\r\n$3\r\nb"]:
            self.assertEqual(plain(octets(text)), text)
        self.assertEqual([octets(each) for each in (5, -1, 2.5, b"x")], [b"5", b"-1", b"2.5", b"x"])
        self.assertEqual(plain([b"a", 1, None, [b"b"], ValueError("no")]), ["a", 1, None, ["b"], "no"])


class QueryTests(SynchronousTestCase):
    """Raw queries as texts."""

    def test_words(self):
        """White space divides; quotes keep together; backslashes count within quotes only."""
        for text, expected in [
            ("GET a", ["GET", "a"]),
            ("  SET\ta  b ", ["SET", "a", "b"]),
            ("SET a 'b c'", ["SET", "a", "b c"]),
            ('SET a "b \'c\'" ""', ["SET", "a", "b 'c'", ""]),
            (r'SET a "b\"c\\d\'\0"', ["SET", "a", "b\"c\\d'\0"]),
            (r"SET a b\c 'd\e'", ["SET", "a", r"b\c", r"d\e"]),
        ]:
            self.assertEqual(split_query(text), expected, text)

    def test_values(self):
        """What a variable holds stays in its argument; a variable that is the whole query is one."""

        def words(*pieces):
            template = tuple(piece if isinstance(piece, str) else Hole("var") for piece in pieces)
            return split_parts(Parts(template, tuple(piece[0] for piece in pieces if isinstance(piece, list))))

        for value in ["a b", "'", '"', '" FLUSHALL "', "a\\", "\r\n", "", "\0", "\ue0000\ue000", "\udcff"]:
            self.assertEqual(words("SET ", [value], " '", [value], "' x"), ["SET", value, value, "x"], value)
            self.assertEqual(words("SET k:", [value], ":", [value]), ["SET", f"k:{value}:{value}"])
        self.assertEqual(words(["SET a 'b c'"]), ["SET", "a", "b c"])
        self.assertEqual(words("INCRBY n ", [5]), ["INCRBY", "n", "5"])
        self.assertRaises(ValueError, words, "GET '", ["x"])

    def test_refused(self):
        """One word, an open quote, and letters right behind a quote."""
        for text in ["", "PING", "SET a 'b", 'SET a "b"c', "SET 'a\\' b"]:
            self.assertRaises(ValueError, split_query, text)

    def test_state(self):
        """What would change the connection of others is known."""
        self.assertEqual([changes_connection(name) for name in (b"subscribe", b"MULTI", b"GET")], [True, True, False])


class UrlTests(SynchronousTestCase):
    """URLs."""

    def test_parts(self):
        """What OpenSIPS writes, and what sipgw adds."""
        url = parse("redis:calls://alice:p%40ss@10.0.0.1:7000,[::1],cache.example/3?pool=2")
        self.assertEqual((url.group, url.user, url.password, url.database, url.pool), ("calls", "alice", "p@ss", 3, 2))
        self.assertEqual(url.addresses, (("10.0.0.1", 7000), ("::1", 6379), ("cache.example", 6379)))
        self.assertEqual(parse("redis://:secret@h/").user, "")
        self.assertEqual(parse("redis://h,h2/?sentinel=m").addresses, (("h", 26379), ("h2", 26379)))
        unix = parse("redis:local://:p@localhost/2?socket=/run/redis.sock")
        self.assertEqual((unix.unix, unix.addresses, unix.database), (True, (("/run/redis.sock", 0),), 2))
        for option, tls in [("tls=1", True), ("tls=0", False), ("tls_ca=x", True), ("pool=1", False)]:
            self.assertEqual(parse(f"redis://h/?{option}").tls, tls, option)

    def test_refused(self):
        """What is no URL, and a password without its colon, which OpenSIPS leaves out in silence."""
        for text in [
            "", "mysql://h/", "redis://secret@h/", "redis://h/name", "redis://h/?pool=0", "redis://h/?what=1", "redis://a b/",
            "redis://h1,h2/?socket=/x",
        ]:
            self.assertRaises(ValueError, parse, text)

    def test_hidden(self):
        """No password is shown, not even that of a URL that is refused."""
        for text in ["redis://u:secret@h/x", "redis:g://:secret@h/", "redis://h/?sentinel=m&sentinel_password=secret"]:
            self.assertNotIn("secret", hide(text))
        error = self.assertRaises(ValueError, parse, "redis://u:secret@h/x")
        self.assertNotIn("secret", str(error))
