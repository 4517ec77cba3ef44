"""Short messages of IMS phones: RP-DATA and what is inside it."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms import rp
from sipgw.sms.numbers import Address
from sipgw.sms.text import GSM, cut, join, pack
from sipgw.sms.udh import Concatenation

NOON = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)


def from_phone(tpdu: str) -> bytes:
    """RP-DATA number 7 to the SMSC +358405202000."""
    octets = bytes.fromhex(tpdu)
    return bytes.fromhex("00070007915348502002f0") + bytes((len(octets),)) + octets


class ReadTests(SynchronousTestCase):
    """``read``."""

    def test_plain(self) -> None:
        """An SMS-SUBMIT as phones write it: seven bits packed, a relative validity, a status report asked for."""
        submit = rp.read(from_phone("31050b915348507821f30000a7" + "0ae8329bfd4697d9ec37"))
        assert isinstance(submit, rp.Submit)
        self.assertEqual((submit.reference, submit.number, submit.wants_report), (7, 5, True))
        self.assertEqual(submit.destination, Address(1, 1, "35840587123"))
        self.assertEqual(join([submit.chunk]), "hellohello")

    def test_parts(self) -> None:
        """Parts of a long message, in both alphabets, with the fill behind the header."""
        for text in ("é" * 200, "ж€" * 60):
            chunks = []
            for part in cut(text, reference=9):
                size = part.data[0] + 1
                if part.coding == GSM:
                    body = part.data[:size] + pack(part.data[size:], -size * 8 % 7)
                    length = -(-size * 8 // 7) + len(part.data) - size
                else:
                    body, length = part.data, len(part.data)
                tpdu = bytes.fromhex("41050b915348507821f300") + bytes((part.coding, length)) + body
                submit = rp.read(from_phone(tpdu.hex()))
                assert isinstance(submit, rp.Submit)
                self.assertEqual(Concatenation.of(submit.elements), (9, part.total, part.number, False))
                chunks.append(submit.chunk)
            self.assertEqual(join(chunks), text)

    def test_answers(self) -> None:
        """What phones say of what they were sent."""
        self.assertEqual(rp.read(bytes.fromhex("0207")), rp.Acknowledged(7))
        self.assertEqual(rp.read(bytes.fromhex("0207410200ff")), rp.Acknowledged(7))
        self.assertEqual(rp.read(bytes.fromhex("04070116")), rp.Failed(7, 22))

    def test_broken(self) -> None:
        """What is cut off, or nothing that a phone sends."""
        whole = from_phone("31050b915348507821f30000a70ae8329bfd4697d9ec37")
        inside = (from_phone("0405"), from_phone("410500910000ff0900"))
        for data in (b"", b"\0", whole[:-1], whole[:20], bytes.fromhex("0107"), *inside):
            self.assertRaises(rp.BadRp, rp.read, data)

    @given(st.binary(max_size=60))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_any_octets(self, data: bytes) -> None:
        """Any octets are read, or refused; what is read can be shown."""
        try:
            found = rp.read(data)
        except rp.BadRp:
            return
        if isinstance(found, rp.Submit):
            self.assertIsInstance(join([found.chunk]), str)


class WriteTests(SynchronousTestCase):
    """What is sent to phones."""

    def test_answers(self) -> None:
        """RP-ACK and RP-ERROR."""
        self.assertEqual((rp.acknowledge(7).hex(), rp.fail(7).hex()), ("0307", "05070129"))

    def test_deliver(self) -> None:
        """An SMS-DELIVER octet by octet."""
        (part,) = cut("hellohello")
        data = rp.deliver(3, "+358405202000", Address(1, 1, "35840587123"), part, NOON)
        self.assertEqual(
            data.hex(),
            "0103" + "0791534850020200" + "001c04" + "0b915348507821f3" + "0000" + "62112221005000" + "0ae8329bfd4697d9ec37",
        )
        (part,) = cut("ж")
        west = NOON.astimezone(timezone(-timedelta(hours=5)))
        data = rp.deliver(3, "", Address(5, 0, "Bank"), part, west, more=True)
        self.assertEqual(data.hex(), "0103" + "0000" + "1300" + "07d0c2b07b0d" + "0008" + "6211227000500a" + "020436")

    def test_report(self) -> None:
        """An SMS-STATUS-REPORT octet by octet."""
        data = rp.report(3, "", 5, Address(1, 1, "491"), "DELIVRD", NOON, NOON)
        self.assertEqual(data.hex(), "0103000015" + "0605" + "03" + "9194f1" + "62112221005000" * 2 + "00")
        self.assertEqual(rp.report(3, "", 5, Address(1, 1, "491"), "EXPIRED", NOON, NOON)[-1], 0x46)

    def test_long(self) -> None:
        """Each part is no longer than a TPDU may be, and says the same again."""
        for text in ("é" * 500, "ж" * 200):
            chunks = []
            for part in cut(text, reference=1):
                data = rp.deliver(1, "+491", Address(1, 1, "4917"), part, NOON, more=True)
                tpdu = data[8:]
                self.assertLessEqual(len(tpdu), 164)
                submit = bytes((tpdu[0] & 0x40 | 1, 0)) + tpdu[1:7] + tpdu[14:]  # the same, as a phone would send it
                found = rp.read(from_phone(submit.hex()))
                assert isinstance(found, rp.Submit)
                chunks.append(found.chunk)
            self.assertEqual(join(chunks), text)
