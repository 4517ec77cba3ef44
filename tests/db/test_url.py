"""URLs of databases, as OpenSIPS reads them."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import DatabaseError
from sipgw.db.url import DatabaseUrl, parse_url


class UrlTests(SynchronousTestCase):
    """``parse_url``."""

    def test_parts(self) -> None:
        """User, password, host, port or socket, database, options; the first @ ends the password, which may have slashes."""
        for url, parts in [
            ("mysql://u:p@h:33/d", ("mysql", "u", "p", "h", "", 33, "d", "")),
            ("mysql://h/d", ("mysql", "", "", "h", "", 0, "d", "")),
            ("mysql://h:1/d?tls_domain=x", ("mysql", "", "", "h", "", 1, "d", "tls_domain=x")),
            ("postgres://u@[::1]:5/d", ("postgres", "u", "", "::1", "", 5, "d", "")),
            ("mysql://u:a/b:c@h/d", ("mysql", "u", "a/b:c", "h", "", 0, "d", "")),
            ("mysql://u:a%40b@h/d", ("mysql", "u", "a@b", "h", "", 0, "d", "")),
            ("mysql://u:@h/d", ("mysql", "u", "", "h", "", 0, "d", "")),
            ("mysql://u:p@unix(/run/my.sock)/d", ("mysql", "u", "p", "", "/run/my.sock", 0, "d", "")),
            ("postgres:///d", ("postgres", "", "", "", "", 0, "d", "")),
        ]:
            self.assertEqual(parse_url(url), DatabaseUrl(*parts), url)

    def test_wrong(self) -> None:
        """What is no URL is refused without its password being said."""
        for url in ["", "mysql", "mysql:h/d", "mysql://u:secret@h", "mysql://u:secret@h/", "mysql://u:secret@h:x/d"]:
            said = str(self.assertRaises(DatabaseError, parse_url, url))
            self.assertNotIn("secret", said)
