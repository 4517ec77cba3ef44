"""Texts of short messages: alphabets, packing, cutting and joining."""

import codecs
from typing import Any

import gsmcodecs  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms import udh
from sipgw.sms.alphabets import LANGUAGES, LOCKING, SINGLE
from sipgw.sms.text import (
    GSM,
    LATIN1,
    UCS2,
    Chunk,
    NotInAlphabet,
    Part,
    alphabet_of,
    coding_of,
    cut,
    decode,
    encode,
    join,
    pack,
    unpack,
)

PURE: dict[str, Any] = {"derandomize": True, "deadline": None, "max_examples": 150}
DEFAULT = LOCKING[0].replace("\x1b", "")
EXTENDED = "".join(SINGLE[0].values())


def chunk(part: Part) -> Chunk:
    """What a receiver makes of a part."""
    if not part.has_header:
        return Chunk(part.data, part.coding)
    elements, data = udh.split(part.data)
    return Chunk.of(data, part.coding, elements)


class AlphabetTests(SynchronousTestCase):
    """The tables, against an independent library."""

    def test_same_as_gsmcodecs(self) -> None:
        """Each code of each table means what gsmcodecs (release 18 of the specification) says, and nothing where that says so."""
        self.assertTrue(gsmcodecs)
        compared = 0
        for language in LANGUAGES.values():
            for escape, name in ((b"", f"gsm23.038-{language}-0"), (b"\x1b", f"gsm23.038-0-{language}")):
                single, locking = (language, 0) if escape else (0, language)
                codes = {start + at: char for start, run in SINGLE[language].items() for at, char in enumerate(run)}
                for code in range(128):
                    if code == 0x1B:
                        continue
                    try:
                        expected = codecs.decode(escape + bytes((code,)), name)
                    except UnicodeError:
                        if escape:
                            self.assertNotIn(code, codes)
                        else:
                            self.assertEqual(LOCKING[language][code], "\ufffd")
                        continue
                    self.assertEqual(decode(escape + bytes((code,)), locking, single), expected, (language, escape, code))
                    compared += 1
        self.assertEqual(compared, 2557)

    def test_known_characters(self) -> None:
        """Those that other codecs get wrong: the grave accent is not there, the section sign is, the euro is escaped."""
        self.assertEqual(encode("§@€_Δ"), bytes.fromhex("5f001b651110"))
        for character in "`ç\u2019\U0001f600":
            self.assertRaises(NotInAlphabet, encode, character)
        self.assertEqual(encode("`ç", 3, 0), b"\x7d\x09")

    def test_escapes_that_mean_nothing(self) -> None:
        """The character behind one stays (6.2.1.1); two of them, or one at the end, are a space; no septet is U+FFFD."""
        self.assertEqual(decode(b"a\x1bAb"), "aAb")
        self.assertEqual(decode(b"a\x1b\x1bb\x1b"), "a b ")
        self.assertEqual(decode(b"a\xffb"), "a\ufffdb")
        self.assertEqual(decode(b"a\x1be", 99, 99), "a€")

    @given(st.text(alphabet=DEFAULT + EXTENDED))
    @settings(**PURE)
    def test_round_trip(self, text: str) -> None:
        """What is encoded decodes to itself."""
        self.assertEqual(decode(encode(text)), text)

    def test_packing(self) -> None:
        """Known vectors, and a fill before the first septet."""
        self.assertEqual(pack(encode("hellohello")), bytes.fromhex("e8329bfd4697d9ec37"))
        self.assertEqual(unpack(bytes.fromhex("e8329bfd4697d9ec37"), 10), encode("hellohello"))
        for fill in range(7):
            for size in range(20):
                septets = bytes(range(size))
                self.assertEqual(unpack(pack(septets, fill), size, fill), septets)
        self.assertEqual(unpack(b"\x01", 99), b"\x01")


class CutTests(SynchronousTestCase):
    """How long texts become parts."""

    def test_sizes(self) -> None:
        """How many parts a text of so many characters needs, for each alphabet."""
        for character, count, parts in [
            ("a", 0, 1), ("a", 160, 1), ("a", 161, 2), ("a", 306, 2), ("a", 307, 3), ("€", 80, 1), ("€", 81, 2),
            ("ж", 70, 1), ("ж", 71, 2), ("ж", 134, 2), ("ж", 135, 3), ("\U0001f600", 35, 1), ("\U0001f600", 36, 2),
        ]:
            found = cut(character * count)
            self.assertEqual(len(found), parts, (character, count))
            self.assertEqual([part.number for part in found], list(range(1, parts + 1)))
        self.assertEqual(len(cut("a" * 304, wide=True)), 2)
        self.assertEqual(len(cut("a" * 305, wide=True)), 3)
        self.assertEqual(len(cut("a" * 153 * 255)), 255)
        self.assertRaises(ValueError, cut, "a" * (153 * 255 + 1))

    def test_nothing_is_split(self) -> None:
        """An escaped character or a surrogate pair at the border goes whole into the next part."""
        first, second = cut("a" * 152 + "€" + "b" * 20)
        self.assertEqual((decode(first.data[6:]), decode(second.data[6:])), ("a" * 152, "€" + "b" * 20))
        first, second = cut("ж" * 66 + "\U0001f600" + "b" * 20)
        self.assertEqual(first.data[6:].decode("utf-16-be"), "ж" * 66)
        self.assertEqual(second.data[6:].decode("utf-16-be"), "\U0001f600" + "b" * 20)

    def test_header(self) -> None:
        """The header names the message, how many parts, and which."""
        parts = cut("a" * 200, reference=0x1234)
        self.assertEqual([part.data[:6].hex() for part in parts], ["050003340201", "050003340202"])
        parts = cut("a" * 200, reference=0x1234, wide=True)
        self.assertEqual([part.data[:7].hex() for part in parts], ["06080412340201", "06080412340202"])

    def test_languages(self) -> None:
        """A national table is used where it is allowed and shorter, and its shift stands in the header."""
        text = "ğüşıİçö" * 10
        self.assertEqual(cut(text)[0].coding, UCS2)
        (part,) = cut(text, languages=[LANGUAGES["turkish"]])
        self.assertEqual((part.coding, part.has_header), (GSM, True))
        self.assertEqual(part.data[:4].hex(), "03250101")
        self.assertEqual(join([chunk(part)]), text)
        self.assertEqual(alphabet_of("plain", [1]), (GSM, 0, 0))

    def test_forced_coding(self) -> None:
        """A coding that is asked for is used, or refused."""
        (part,) = cut("é", coding=LATIN1)
        self.assertEqual((part.data, part.coding), (b"\xe9", LATIN1))
        self.assertRaises(NotInAlphabet, cut, "ж", coding=LATIN1)
        self.assertRaises(NotInAlphabet, cut, "ж", coding=GSM)
        self.assertRaises(NotInAlphabet, cut, "a", coding=BINARY_CODING)

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400), st.booleans())
    @settings(**PURE)
    def test_round_trip(self, text: str, wide: bool) -> None:
        """Parts joined give the text, none is longer than a short message, and each can be read alone."""
        parts = cut(text, wide=wide, languages=[1, 3, 6])
        for part in parts:
            octets = len(part.data)
            if part.coding == GSM:
                header = part.data[0] + 1 if part.has_header else 0
                octets = header + -(-(octets - header) * 7 // 8)
            self.assertLessEqual(octets, 140)
            self.assertNotIn("\ufffd", join([chunk(part)]).replace("\ufffd", "", text.count("\ufffd")))
        self.assertEqual(join([chunk(part) for part in parts]), text)


BINARY_CODING = 4


class JoinTests(SynchronousTestCase):
    """How what came is read."""

    def test_split_anywhere(self) -> None:
        """A sender that cuts within an escape or a surrogate pair is understood."""
        self.assertEqual(join([Chunk(b"a\x1b", GSM), Chunk(b"eb", GSM)]), "a€b")
        smile = "\U0001f600".encode("utf-16-be")
        self.assertEqual(join([Chunk(smile[:2], UCS2), Chunk(smile[2:], UCS2)]), "\U0001f600")

    def test_codings(self) -> None:
        """The values of ``data_coding``, and byte order marks."""
        for coding, data, text in [
            (1, b"abc", "abc"), (3, b"\xe9", "é"), (6, b"\xd6", "ж"), (7, b"\xe0", "א"), (8, b"\x04\x36", "ж"), (0, b"\x00", "@"),
            (0xF0, b"\x00", "@"), (0xF4, b"a", "a"), (0x18, b"\x04\x36", "ж"), (0xE0, b"\x04\x36", "ж"), (0xC8, b"\x00", "@"),
            (8, b"\xff\xfe\x36\x04", "ж"), (8, b"\xfe\xff\x04\x36", "ж"), (8, b"\x04", "\ufffd"), (1, b"\xe9", "\ufffd"),
            (9, b"\xe9", "é"), (0x63, b"\x00", "@"),
        ]:
            self.assertEqual(join([Chunk(data, coding)]), text, (coding, data))
        self.assertEqual([coding_of(each) for each in (0x10, 0x14, 0x1C, 0x30, 0xF5)], [GSM, 4, GSM, GSM, 4])

    @given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 255)), max_size=5))
    @settings(**PURE)
    def test_any_octets(self, parts: list[tuple[bytes, int]]) -> None:
        """Whatever comes is read as some text."""
        self.assertIsInstance(join([Chunk(data, coding) for data, coding in parts]), str)


class HeaderTests(SynchronousTestCase):
    """User data headers."""

    def test_split(self) -> None:
        """Elements of any kind, then the text."""
        elements, rest = udh.split(bytes.fromhex("0b0003a5020105040b8423f0") + b"text")
        self.assertEqual(rest, b"text")
        self.assertEqual([each.id for each in elements], [0, 5])
        self.assertEqual(udh.Concatenation.of(elements), (0xA5, 2, 1, False))
        self.assertEqual(udh.build(elements), bytes.fromhex("0b0003a5020105040b8423f0"))

    def test_broken(self) -> None:
        """A header that is cut off, or whose element is longer than it."""
        for data in (b"", b"\x05\x00", b"\x02\x00\x03", b"\x01\x00"):
            self.assertRaises(ValueError, udh.split, data)

    def test_impossible_concatenations(self) -> None:
        """Part 0, part 3 of 2, one of one, wrong lengths: the text stands alone."""
        for data in ("a50200", "a50203", "a50101", "a50001", "a502"):
            self.assertIsNone(udh.Concatenation.of([udh.Element(0, bytes.fromhex(data))]), data)

    @given(st.binary(max_size=60))
    @settings(**PURE)
    def test_any_octets(self, data: bytes) -> None:
        """Any octets are a header, or refused."""
        try:
            elements, rest = udh.split(data)
        except ValueError:
            return
        self.assertEqual(udh.build(elements)[1:] + rest, data[1:])
