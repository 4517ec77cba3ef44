"""The packets of SMPP as octets."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from smpplib import consts, smpp  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms.pdu import COMMANDS, STATUS, TLV, Frames, Pdu, PduError, encode, parse

PURE: dict[str, Any] = {"derandomize": True, "deadline": None, "max_examples": 200}
SUBMIT: dict[str, Any] = {
    "source_addr_ton": 1, "source_addr_npi": 1, "source_addr": "49170", "dest_addr_ton": 1, "dest_addr_npi": 1,
    "destination_addr": "49171", "esm_class": 0x40, "registered_delivery": 1, "data_coding": 8, "short_message": b"\x04\x36",
}


class Sequence:
    """What smpplib wants of a client."""

    sequence = 7

    def next_sequence(self) -> int:
        """Its number."""
        return 7


class PduTests(SynchronousTestCase):
    """``encode`` and ``parse``."""

    def test_known_octets(self) -> None:
        """A PDU octet by octet (SMPP 3.4 appendix examples are of this shape)."""
        pdu = Pdu("bind_transmitter", 1, 0, {"system_id": "SMPP3TEST", "password": "secret08", "system_type": "SUBMIT1",
                                             "interface_version": 0, "addr_ton": 1, "addr_npi": 1})
        data = bytes.fromhex(
            "0000002f000000020000000000000001534d50503354455354007365637265743038005355424d4954310000010100"
        )
        self.assertEqual(encode(pdu), data)
        self.assertEqual(parse(data)["system_id"], "SMPP3TEST")
        self.assertNotIn("secret08", repr(parse(data)))

    def test_smpplib_reads_ours(self) -> None:
        """smpplib understands what we write."""
        ours = Pdu("submit_sm", 9, 0, SUBMIT, {TLV["user_message_reference"]: b"\x00\x05"})
        pdu: Any = smpp.parse_pdu(encode(ours), client=Sequence())
        self.assertEqual((pdu.command, pdu.sequence, pdu.source_addr, pdu.short_message), ("submit_sm", 9, b"49170", b"\x04\x36"))
        self.assertEqual((pdu.esm_class, pdu.user_message_reference), (0x40, 5))

    def test_we_read_smpplib(self) -> None:
        """We understand what smpplib writes."""
        made: Any = smpp.make_pdu(
            "deliver_sm", client=Sequence(), source_addr="1", destination_addr="22", short_message=b"hi", esm_class=4,
            receipted_message_id="abc", message_state=consts.SMPP_MESSAGE_STATE_DELIVERED,
        )
        pdu = parse(made.generate())
        self.assertEqual((pdu.command, pdu.message), ("deliver_sm", b"hi"))
        self.assertEqual((pdu["source_addr"], pdu["destination_addr"]), ("1", "22"))
        self.assertEqual((pdu.tlvs[TLV["receipted_message_id"]], pdu.tlvs[TLV["message_state"]]), (b"abc\0", b"\x02"))

    def test_answers(self) -> None:
        """An answer has the command's name and number; one with an error has no body; others may come without."""
        request = Pdu("submit_sm", 5)
        self.assertEqual(encode(request.respond(message_id="77")).hex(), "0000001380000004000000000000000537" + "3700")
        refused = request.respond("ESME_RTHROTTLED", message_id="77")
        self.assertEqual(encode(refused).hex(), "00000010800000040000005800000005")
        self.assertEqual(parse(encode(refused)).error, "ESME_RTHROTTLED")
        self.assertEqual(parse(bytes.fromhex("00000010800000040000000000000005"))["message_id"], "")
        self.assertEqual(Pdu("outbind", 4).respond("ESME_RINVCMDID").command, "generic_nack")

    def test_payload(self) -> None:
        """The text stands in the payload where short_message is empty."""
        pdu = Pdu("deliver_sm", 1, 0, {"short_message": b""}, {TLV["message_payload"]: b"x" * 1000})
        self.assertEqual(parse(encode(pdu)).message, b"x" * 1000)

    def test_many_destinations(self) -> None:
        """submit_multi, with a list and an address, and what became of them."""
        pdu = Pdu("submit_multi", 1, 0, {"destinations": ((1, 1, "49"), ("friends",)), "short_message": b"x"})
        self.assertEqual(parse(encode(pdu))["destinations"], ((1, 1, "49"), ("friends",)))
        answer = Pdu("submit_multi_resp", 1, 0, {"message_id": "5", "unsuccess": ((1, 1, "49", 0x0B),)})
        self.assertEqual(parse(encode(answer)), answer)

    def test_what_cannot_be_written(self) -> None:
        """Values that do not fit are refused, not cut."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"short_message": b"x" * 255}, "ESME_RINVMSGLEN"), ({"source_addr": "1" * 21}, "ESME_RINVPARLEN"),
            ({"source_addr": "1\0"}, "ESME_RINVPARLEN"), ({"source_addr": "ж"}, "ESME_RINVPARLEN"),
            ({"esm_class": 256}, "ESME_RINVPARLEN"),
        ]
        for values, status in cases:
            error = self.assertRaises(PduError, encode, Pdu("submit_sm", 1, 0, values))
            self.assertEqual(error.status, STATUS[status])

    def test_what_cannot_be_read(self) -> None:
        """Each way in which octets are no PDU has its status, and the sequence number to answer to."""
        whole = encode(Pdu("submit_sm", 9, 0, SUBMIT))

        def sized(data: bytes) -> bytes:
            return len(data).to_bytes(4, "big") + data[4:]

        for data, status in [
            (b"\0\0\0\x10\0\0\0\x99\0\0\0\0\0\0\0\x09", "ESME_RINVCMDID"), (sized(whole[:-1]), "ESME_RINVMSGLEN"),
            (sized(whole[:20]), "ESME_RINVCMDLEN"), (sized(whole + b"\x04\x24"), "ESME_RINVOPTPARSTREAM"),
            (sized(whole + b"\x04\x24\x00\x05a"), "ESME_RINVOPTPARSTREAM"), (sized(whole[:16]), "ESME_RINVCMDLEN"),
        ]:
            error = self.assertRaises(PduError, parse, data)
            self.assertEqual((error.status, error.sequence), (STATUS[status], 9), data)
        self.assertTrue(self.assertRaises(PduError, parse, b"short").fatal)

    @given(st.sampled_from(sorted(COMMANDS)), st.binary(max_size=120))
    @settings(**PURE)
    def test_any_body(self, command: str, body: bytes) -> None:
        """Any octets are a PDU, which is written as it is read, or a PduError."""
        data = (16 + len(body)).to_bytes(4, "big") + COMMANDS[command].to_bytes(4, "big") + b"\0\0\0\0\0\0\0\x01" + body
        try:
            pdu = parse(data)
        except PduError as error:
            self.assertEqual(error.sequence, 1)
            return
        try:
            written = encode(pdu)
        except PduError:  # longer than we send
            return
        again = parse(written)
        self.assertEqual((again.tlvs, [again[name] for name in again.values]), (pdu.tlvs, [pdu[name] for name in again.values]))


class FramesTests(SynchronousTestCase):
    """``Frames``."""

    def test_any_pieces(self) -> None:
        """PDUs come out whole, however the stream is cut."""
        stream = b"".join(encode(Pdu("submit_sm", number, 0, SUBMIT)) for number in range(5))
        for size in (1, 7, 64, 1000):
            frames = Frames()
            found = [frame for at in range(0, len(stream), size) for frame in frames.feed(stream[at : at + size])]
            self.assertEqual([parse(frame).sequence for frame in found], list(range(5)))

    def test_lengths_that_cannot_be(self) -> None:
        """Less than a head, or more than is taken, ends the stream."""
        for length in (0, 15, 0x11001, 0xFFFFFFFF):
            error = self.assertRaises(PduError, list, Frames().feed(length.to_bytes(4, "big")))
            self.assertTrue(error.fatal)
