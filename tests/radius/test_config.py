"""Tests of sipgw.radius.config and packets, and of sipgw.aaa: what needs no server."""

from pathlib import Path

from pyrad.packet import AuthPacket
from twisted.trial.unittest import SynchronousTestCase

from sipgw.aaa import AaaAnswer, AaaError
from sipgw.radius.config import RadiusServer, read_config, read_secrets
from sipgw.radius.packets import Names, answer, request

FILE = """
# a comment
authserver  one.example:1645   # another one
authserver  [::1], 10.0.0.1
acctserver  one.example
servers     secrets
dictionary  /etc/dictionary
radius_timeout 2
login_tries 4
seqfile /var/run/x
nas-identifier sip
"""
SECRETS = "# x\none.example  a\n[::1] no\nlocal/::1\tb c\n10.0.0.1 d\n"


class ConfigTests(SynchronousTestCase):
    """The files of radiusclient."""

    def test_files(self):
        """Servers with their ports and secrets; what other programs need is passed over; secrets are not shown."""
        found = read_config(FILE, lambda name: {"secrets": SECRETS}[name])
        one = RadiusServer("one.example", 1645, b"a")
        self.assertEqual(found.auth, (one, RadiusServer("::1", 1812, b"b"), RadiusServer("10.0.0.1", 1812, b"d")))
        self.assertEqual(found.acct, (RadiusServer("one.example", 1813, b"a"),))
        self.assertEqual((found.dictionary, found.timeout, found.retries, found.deadtime), ("/etc/dictionary", 2, 3, 0))
        self.assertEqual((found.nas_identifier, found.bindaddr, found.signed), ("sip", "", False))
        self.assertEqual(str(one), "one.example:1645")
        self.assertNotIn("b'a'", repr(found))
        self.assertEqual(read_secrets("h:1812 x"), {"h:1812": b"x"})

    def test_refused(self):
        """Each fault is told; no message has a secret."""
        for text in [
            "what 1", "radius_timeout x", "radius_timeout 0", "radius_retries 100", "authserver h", "authserver [h\nservers s",
            "authserver h\nservers s",
        ]:
            error = self.assertRaises(ValueError, read_config, text, lambda _name: "other geheim\n")
            self.assertNotIn("geheim", str(error))
        self.assertRaises(ValueError, read_secrets, "alone")


class PacketTests(SynchronousTestCase):
    """Values in and out."""

    def setUp(self):
        self.names = Names("")

    def test_values(self):
        """Names in any case of letters, named numbers, octets that are no UTF-8; what does not fit is refused."""
        made = request(
            self.names, b"s", False, [
                ("user-name", "\udcff\0ü"), ("Service-Type", "sip-session"), ("NAS-Port", "7"), ("SIP-AVP", "a:1"),
                ("SIP-AVP", "b#2"), ("NAS-IP-Address", "10.0.0.1"), ("User-Password", "geheim"),
            ],
        )
        data = made.RequestPacket()
        back = AuthPacket(secret=b"s", dict=self.names.dictionary, packet=data)
        found = self.names.decode(back)
        for each in [
            ("User-Name", "\udcff\0ü"), ("Service-Type", 15), ("NAS-Port", 7), ("SIP-AVP", "a:1"), ("SIP-AVP", "b#2"),
            ("NAS-IP-Address", "10.0.0.1"),
        ]:
            self.assertIn(each, found)
        self.assertEqual(back.PwDecrypt(back["User-Password"][0]), "geheim")
        self.assertNotIn(b"geheim", data)
        self.assertTrue(back.verify_message_authenticator())
        odd = [("Nothing", 1), ("Service-Type", "x"), ("User-Name", "x" * 252), ("NAS-IP-Address", "x"), ("NAS-Port", -1)]
        for name, value in odd:
            self.assertRaises(AaaError, request, self.names, b"s", False, [(name, value)])

    def test_digest(self):
        """Parts of Digest-Attributes, or attributes of their own as in RFC 5090: the dictionary decides."""
        made = request(self.names, b"s", False, [("Digest-Realm", "r"), ("Digest-Username", "u"), ("Digest-Response", "x")])
        self.assertEqual(dict.get(made, 207), [b"\x01\x03r", b"\x0a\x03u"])
        self.assertEqual(dict.get(made, 206), [b"x"])
        file = Path(self.mktemp())
        file.write_text("ATTRIBUTE Digest-Realm 104 string\nATTRIBUTE Digest-User-Name 115 string\n")
        made = request(Names(str(file)), b"s", False, [("Digest-Realm", "r"), ("Digest-Username", "u")])
        self.assertEqual((dict.get(made, 104), dict.get(made, 115)), ([b"r"], [b"u"]))

    def test_answers(self):
        """An answer counts only for its own request, signed with the secret."""
        asked = request(self.names, b"s", False, [("User-Name", "a")])
        asked.id = 5
        data = asked.RequestPacket()
        server = AuthPacket(secret=b"s", dict=self.names.dictionary, packet=data)
        reply = server.CreateReply()
        reply.AddAttribute("SIP-AVP", ["a:b", "#c#7", "bad", ":x", "n#y"])
        raw = reply.ReplyPacket()
        found = answer(self.names, asked, raw, True)
        assert found is not None
        self.assertEqual((found.accepted, found.avps()), (True, [("a", "b"), ("c", 7)]))
        other = request(self.names, b"s", False, [("User-Name", "a")])
        other.id = 5
        other.RequestPacket()
        self.assertIsNone(answer(self.names, other, raw, False))
        asked.secret = b"t"
        self.assertIsNone(answer(self.names, asked, raw, False))
        asked.secret = b"s"
        for cut in range(len(raw)):
            self.assertIsNone(answer(self.names, asked, raw[:cut], False))
        for place in range(len(raw)):
            broken = bytearray(raw)
            broken[place] ^= 1
            self.assertIsNone(answer(self.names, asked, bytes(broken), False), place)

    def test_dictionaries(self):
        """A file of one's own; one that is none is told."""
        file = Path(self.mktemp())
        file.write_text("VENDOR Cisco 9\nATTRIBUTE Cisco-AVPair 1 string Cisco\nATTRIBUTE User-Name 1 string\n")
        names = Names(str(file))
        self.assertIsNotNone(names.find("cisco-avpair"))
        made = request(names, b"s", True, [("Cisco-AVPair", "call-id=x")])
        self.assertEqual(names.decode(made), [("Cisco-AVPair", "call-id=x")])
        file.write_text("ATTRIBUTE x\n")
        self.assertRaises(ValueError, Names, str(file))
        self.assertRaises(ValueError, Names, "/nowhere")

    def test_avps(self):
        """SIP-AVP values as AVPs."""
        given = [("SIP-AVP", text) for text in ("a:b:c", "a#5", "#a:b", "", "a", "a:", "#:x", "a#-1")]
        self.assertEqual(AaaAnswer(True, given).avps(), [("a", "b:c"), ("a", 5), ("a", "b")])
