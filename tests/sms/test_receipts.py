"""Delivery receipts in the dialects of SMSCs."""

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms.receipts import STATES, Receipt, read, same_ids, write

TEXTS = [
    ("id:0123456789 sub:001 dlvrd:001 submit date:2611221530 done date:2611221531 stat:DELIVRD err:000 text:Hello",
     Receipt("0123456789", "DELIVRD", "000", datetime(2026, 11, 22, 15, 30), datetime(2026, 11, 22, 15, 31), "Hello")),
    ("id:abc-DEF sub:001 dlvrd:000 submit date:261122153005 done date:261122153107 stat:UNDELIV err:021 Text:a stat:b",
     Receipt("abc-DEF", "UNDELIV", "021", datetime(2026, 11, 22, 15, 30, 5), datetime(2026, 11, 22, 15, 31, 7), "a stat:b")),
    ("ID: 77 SUBMIT_DATE: 20261122153000 DONE_DATE: 20261122153100 STAT: Delivered ERR: 0",
     Receipt("77", "DELIVRD", "0", datetime(2026, 11, 22, 15, 30), datetime(2026, 11, 22, 15, 31))),
    ("stat:EXPIRED id:9 err:", Receipt("9", "EXPIRED")),
    ("id=5f, stat=8, error=12", Receipt("5f", "REJECTD", "12")),
    ("id:5 stat:BUFFERED done date:99", Receipt("5", "ENROUTE")),
    ("id:5 stat:Nonsense", Receipt("5", "UNKNOWN")),
    ("id:5 status:failed text:", Receipt("5", "UNDELIV")),
]
NONE = ["", "Hello, how are you?", "stat:DELIVRD", "id:5", "id: stat:DELIVRD", "id:" + "9" * 300 + " stat:DELIVRD"]


class ReceiptTests(SynchronousTestCase):
    """``receipts``."""

    def test_dialects(self) -> None:
        """Each text gives its receipt."""
        for text, receipt in TEXTS:
            self.assertEqual(read(text, {}), receipt, text)

    def test_none(self) -> None:
        """A text that names no message, or no state, is none."""
        for text in NONE:
            self.assertIsNone(read(text, {}), text)

    def test_parameters_count(self) -> None:
        """TLVs go before the text, and serve without one."""
        tlvs = {0x001E: b"cafe\0", 0x0427: b"\x05", 0x0423: b"\x03\x00\x22"}
        self.assertEqual(read("id:7 stat:DELIVRD err:000", tlvs), Receipt("cafe", "UNDELIV", "034"))
        self.assertEqual(read("", tlvs), Receipt("cafe", "UNDELIV", "034"))
        self.assertEqual(read("id:7 stat:DELIVRD", {0x0427: b"\x63"}), Receipt("7", "DELIVRD"))

    def test_final(self) -> None:
        """After which states nothing follows."""
        final = [state for state in STATES if Receipt("1", state).is_final]
        self.assertEqual(final, ["DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "REJECTD", "SKIPPED"])

    def test_other_names(self) -> None:
        """A message is found under the names that its SMSC may have given it before, its own first."""
        for said, named in [("255", "ff"), ("255", "FF"), ("ff", "255"), ("000255", "255"), ("00ff", "255"), ("16", "10"),
                            ("255", "000000ff"), ("10", "16"), ("FF", "ff"), ("7", "0000000007")]:
            self.assertIn(named, same_ids(said), (said, named))
        self.assertEqual(same_ids("x-1"), ["x-1", "X-1"])
        self.assertEqual(same_ids("0")[0], "0")

    def test_ours_are_read(self) -> None:
        """What we write, we read."""
        when = datetime(2026, 11, 22, 15, 30)
        for state in STATES:
            receipt = Receipt("42", state, "005", when, when, "Hello")
            self.assertEqual(read(write(receipt, when, when), {}), receipt)

    @given(st.text(max_size=80), st.dictionaries(st.sampled_from([0x1E, 0x427, 0x423]), st.binary(max_size=4)))
    @settings(derandomize=True, deadline=None, max_examples=200)
    def test_anything(self, text: str, tlvs: dict[int, bytes]) -> None:
        """Whatever comes is a receipt with a known state, or none."""
        receipt = read("id:1 stat:" + text, tlvs)
        self.assertTrue(receipt is None or receipt.state in STATES)
