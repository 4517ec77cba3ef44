"""Values in statements and in JSON: each stays what it is, wherever it stands."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.parts import Hole, NotSafe, Parts, fill_json, fill_sql


def parts(*pieces: str, **values: int | str | None) -> Parts:
    """Pieces of a text, those that begin with ``$`` being variables."""
    holes = [piece[1:] for piece in pieces if piece.startswith("$")]
    template = tuple(Hole(piece[1:]) if piece.startswith("$") else piece for piece in pieces)
    return Parts(template, tuple(values[name] for name in holes))


def plain(text: str) -> str:
    """What SQLite and PostgreSQL want in single quotes."""
    return text.replace("'", "''")


def mysql(text: str) -> str:
    """What MySQL wants."""
    return text.replace("\\", "\\\\").replace("'", "''")


class SqlTests(SynchronousTestCase):
    """``fill_sql``."""

    def test_quotes(self) -> None:
        """A value in quotes is escaped for those quotes and that database; a null is ``<null>``."""
        for pieces, value, first, second in [
            (("a='", "$fU", "'"), "x' OR 1", "a='x'' OR 1'", "a='x'' OR 1'"),
            (("a='it''s ", "$fU", "'"), "'", "a='it''s '''", "a='it''s '''"),
            (("a='", "$fU", "'"), "\\'", "a='\\'''", "a='\\\\'''"),
            (('a="', "$fU", '"'), '" \\', 'a=""" \\"', 'a=""" \\\\"'),
            (("`", "$fU", "`=1"), "a`b", "`a``b`=1", "`a``b`=1"),
            (("a=E'", "$fU", "'"), "\\'", "a=E'\\\\'''", "a=E'\\\\'''"),
            (("a='", "$fU", "'"), None, "a='<null>'", "a='<null>'"),
            (("a='", "$fU", "'"), 5, "a='5'", "a='5'"),
            (("/* ' */ a='", "$fU", "'"), "'", "/* ' */ a=''''", "/* ' */ a=''''"),
            (("-- '\n a='", "$fU", "'"), "'", "-- '\n a=''''", "-- '\n a=''''"),
        ]:
            text = parts(*pieces, fU=value)
            self.assertEqual(fill_sql(text, plain, False), first)
            self.assertEqual(fill_sql(text, mysql, True), second)

    def test_bare(self) -> None:
        """Outside of quotes a message may give a number, and the script anything."""
        numbers: list[int | str] = [5, "17", "-1.5"]
        for number in numbers:
            self.assertEqual(fill_sql(parts("a=", "$rU", rU=number), plain, False), f"a={number}")
        for value in ["1 OR 1=1", "username", "NULL", "", "a b", "'x'", "a.b", "1;", "\u0661", "a--"]:
            self.assertRaises(NotSafe, fill_sql, parts("a=", "$rU", rU=value), plain, False)
            self.assertEqual(fill_sql(parts("a=", "$avp", avp=value), plain, False), f"a={value}")

    def test_nowhere(self) -> None:
        """A value can stand neither in a comment nor behind a backslash that would take its first letter along."""
        for pieces in [("1 -- ", "$rU", ""), ("1 /* ", "$rU", " */")]:
            self.assertRaises(NotSafe, fill_sql, parts(*pieces, rU="x"), plain, False)
        self.assertRaises(NotSafe, fill_sql, parts("a='\\", "$rU", "'", rU="x"), mysql, True)
        self.assertEqual(fill_sql(parts("a='\\\\", "$rU", "'", rU="x"), mysql, True), "a='\\\\x'")

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.text("ab'\"\\`-/* ;%", max_size=12))
    def test_any(self, value: str) -> None:
        """Whatever a value is, what follows it is read as before."""
        for quote, backslashes in ((plain, False), (mysql, True)):
            for mark in "'\"":
                found = fill_sql(parts(f"a={mark}", "$fU", f"{mark} AND b=", "$rU", fU=value, rU=7), quote, backslashes)
                self.assertEqual(self.read(found[2:], backslashes), (value, " AND b=7"))

    def read(self, text: str, backslashes: bool) -> tuple[str, str]:
        """A text in quotes as a database reads it, and what is left."""
        out, at = [], 1
        while True:
            letter = text[at]
            if letter == "\\" and backslashes:
                at += 1
                out.append(text[at])
            elif letter == text[0]:
                if text[at + 1 : at + 2] != text[0]:
                    return "".join(out), text[at + 1 :]
                at += 1
                out.append(letter)
            else:
                out.append(letter)
            at += 1


class JsonTests(SynchronousTestCase):
    """``fill_json``."""

    def test_values(self) -> None:
        """In a string of JSON a value is a part of that string; outside a number, a null, or what the script has made."""
        write = json.dumps
        self.assertEqual(fill_json(parts('["', "$fU", '"]', fU='a"],{"\\'), write), '["a\\"],{\\"\\\\"]')
        self.assertEqual(fill_json(parts('["\\"', "$fU", '"]', fU='"'), write), '["\\"\\""]')
        self.assertEqual(fill_json(parts("[", "$fU", "]", fU=5), write), "[5]")
        self.assertEqual(fill_json(parts("[", "$fU", "]", fU=None), write), "[null]")
        self.assertEqual(fill_json(parts("[", "$var", "]", var='"x"'), write), '["x"]')
        self.assertRaises(NotSafe, fill_json, parts("[", "$fU", "]", fU='"x"'), write)
        self.assertRaises(NotSafe, fill_json, parts('["\\', "$fU", '"]', fU="x"), write)

    def test_text(self) -> None:
        """As a text it is what other functions receive."""
        self.assertEqual(str(parts("a ", "$x", " b", x=None)), "a <null> b")
