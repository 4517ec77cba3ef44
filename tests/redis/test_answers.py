"""Tests of sipgw.redis.answers: what a server sends, however it is cut."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.redis.answers import BadAnswer, Reader
from sipgw.redis.errors import Refused

STREAM = (
    b"+OK\r\n:-5\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n*0\r\n*-1\r\n-WRONGTYPE no\r\n"
    b"*3\r\n*2\r\n$1\r\nx\r\n*1\r\n:1\r\n-ERR in\r\n$-1\r\n+END\r\n"
)
ANSWERS = ["OK", -5, b"a\r\n", b"", None, [], None, "Refused WRONGTYPE", [[b"x", [1]], "Refused ERR", None], "END"]


def named(reply):
    """An answer with its errors as texts, to compare."""
    if isinstance(reply, list):
        return [named(each) for each in reply]
    return f"Refused {reply.code}" if isinstance(reply, Refused) else reply


class ReaderTests(SynchronousTestCase):
    """Streams of answers."""

    def test_pieces(self):
        """The same answers, whether the octets come at once or in pieces of any size."""
        for size in range(1, len(STREAM) + 1):
            reader, found = Reader(), []
            for start in range(0, len(STREAM), size):
                found += reader.feed(STREAM[start : start + size])
            self.assertEqual(named(found), ANSWERS, size)

    def test_rubbish(self):
        """What is no answer ends it, before it fills the memory."""
        for data in [b"HTTP/1.1 200 OK\r\n", b":x\r\n", b"$x\r\n", b"*1\r\n" * 100, b"+" + b"x" * 70_000]:
            self.assertRaises(BadAnswer, Reader().feed, data)
