"""Tests of sipgw.b2bua.scenario: files that are scenarios, and what is said of files that are none."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.scenario import Bridge, Party, Rule, ScenarioError, Value, parse

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "scenarios"
GOOD = """<?xml version="1.0"?>
<scenario id="s" param="1">
<init>
<state>1</state>
<bridge>
<server><id>in</id></server>
<client><id>out</id><type>message</type>
<destination><value type="param">1</value></destination>
</client>
</bridge>
</init>
<rules><request>
<BYE>
<rule id="1"><condition><state>1</state><sender><type>client</type><id>out</id></sender></condition>
<action><state>2</state>
<bridge><client><peer/></client><client><id>third</id><destination><value type="initial"/></destination></client></bridge>
<delete_entity/>
</action></rule>
</BYE>
<INFO>
<rule id="2"><action><send_reply><code>405</code><reason>Not Here</reason></send_reply></action></rule>
</INFO>
</request></rules>
</scenario>
"""


class GoodTests(SynchronousTestCase):
    """Scenarios."""

    def test_all(self) -> None:
        """All that a scenario says."""
        found = parse(GOOD.encode(), "s.xml")
        self.assertEqual((found.id, found.params, found.extern, found.state, found.file), ("s", 1, False, 1, "s.xml"))
        self.assertEqual(
            found.bridge, Bridge((Party("in", True, server=True), Party("out", True, destination=Value("param", "1"))))
        )
        third = Party("third", True, destination=Value("initial"))
        self.assertEqual(
            found.rules["BYE"],
            (Rule(1, 14, 1, "client", "out", 2, Bridge((Party("peer", False), third)), delete=True),),
        )
        self.assertEqual(found.rules["INFO"], (Rule(2, 21, reply=(405, "Not Here")),))

    def test_which_rule(self) -> None:
        """A rule fits by its state and sender; the last one of several; none: the request is passed on."""
        found = parse(GOOD.encode(), "s.xml")
        for method, state, sender, its_id, rule in (
            ("BYE", 1, "client", "out", 1), ("BYE", 2, "client", "out", 0), ("BYE", 1, "server", "in", 0),
            ("BYE", 1, "client", "third", 0), ("INFO", 7, "server", "in", 2), ("UPDATE", 1, "client", "out", 0),
        ):
            given = found.rule(method, state, sender, its_id)
            self.assertEqual(given.id if given else 0, rule)
        more = '<rule id="9"><action><send_reply><code>403</code><reason>No</reason></send_reply></action></rule></INFO>'
        last = parse(GOOD.replace("</INFO>", more).encode(), "s.xml").rule("INFO", 1, "client", "x")
        assert last is not None
        self.assertEqual(last.id, 9)

    def test_named_requests(self) -> None:
        """Rules in <request name="BYE"> are the same."""
        plain = "<rules><request>\n<BYE>", "</BYE>\n<INFO>", "</INFO>\n</request></rules>"
        named = '<rules>\n<request name="BYE">', '</request>\n<request name="info">', "</request></rules>\n"
        text = GOOD
        for old, new in zip(plain, named, strict=True):
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.assertEqual(parse(text.encode(), "s.xml").rules, parse(GOOD.encode(), "s.xml").rules)

    def test_examples(self) -> None:
        """Those in ``examples``."""
        found = {each.id: each for each in (parse(file.read_bytes(), file.name) for file in EXAMPLES.glob("*.xml"))}
        self.assertEqual({name: (each.params, each.extern) for name, each in found.items()}, {
            "prepaid": (2, False), "transfer": (0, False), "marketing": (3, True)})
        customer, agent = found["marketing"].bridge.parties[0], found["marketing"].rules["BYE"][0].bridge
        self.assertEqual(customer.display, Value("text", "Our Shop"))
        assert agent is not None
        self.assertEqual(agent.parties[1].headers, ((Value("text", "X-Campaign"), Value("text", "autumn")),))
        prepaid = found["prepaid"].rules["BYE"][0].bridge
        assert prepaid is not None
        self.assertEqual(prepaid.lifetime, 3600)

    def test_type(self) -> None:
        """Files without a type are what the parameter says that named them."""
        marketing = (EXAMPLES / "marketing.xml").read_text().replace(' type="extern"', "")
        self.assertTrue(parse(marketing.encode(), "m.xml", "extern").extern)
        with self.assertRaisesRegex(ScenarioError, "^m.xml:7: the first <bridge> of this scenario has a <server>"):
            parse(marketing.encode(), "m.xml")

    def test_as_call_center_wrote(self) -> None:
        """The shape of the two files that OpenSIPS's call_center came with."""
        queue = """<scenario id="queue" name="A queue" param="2" type="script"><init><bridge>
            <server><id>server1</id></server><client><id>client1</id><type>message</type>
            <destination><value type="param">1</value></destination></client></bridge><state>1</state></init></scenario>"""
        agent = """<scenario id="agent" name="An agent" param="4" type="extern"><init><bridge>
            <client><id>client1</id><destination><value type="param">1</value></destination>
            <from_dname><value type="param">3</value></from_dname></client>
            <client><id>client2</id><destination><value type="param">2</value></destination></client>
            </bridge><state>5</state></init></scenario>"""
        self.assertEqual([parse(text.encode(), "x").state for text in (queue, agent)], [1, 5])


class BadTests(SynchronousTestCase):
    """What is no scenario: each with its line."""

    def refused(self, old: str, new: str, line: int, text: str) -> None:
        """``GOOD`` with ``new`` in the place of ``old`` is refused at ``line``."""
        self.assertIn(old, GOOD)
        with self.assertRaises(ScenarioError) as caught:
            parse(GOOD.replace(old, new, 1).encode(), "s.xml")
        self.assertTrue(str(caught.exception).startswith(f"s.xml:{line}: "), str(caught.exception))
        self.assertIn(text, str(caught.exception))

    def test_faults(self) -> None:
        """What is written wrong in one place."""
        client = '<client><peer/></client>'
        third = '<client><id>third</id><destination><value type="initial"/></destination></client>'
        for old, new, line, text in (
            ('<scenario id="s" param="1">', '<scenario param="1">', 2, "needs an id"),
            ('id="s"', 'id="a/b"', 2, "needs an id"),
            ('param="1"', 'param="x"', 2, "param"),
            ('param="1"', 'param="6"', 2, "param"),
            ('param="1"', 'param="1" type="other"', 2, "script or extern"),
            ('param="1"', 'param="1" colour="red"', 2, "no attribute 'colour'"),
            ('param="1"', 'param="1" type="extern"', 5, "two <client>"),
            ("<state>1</state>", "<state>one</state>", 4, "a state is a number"),
            ("<state>1</state>", "<state/>", 4, "needs a text"),
            ("<state>1</state>", "<estate>1</estate>", 4, "<init> knows no <estate>; it takes state, bridge"),
            ("<state>1</state>", "<state>1</state>\n<state>1</state>", 5, "more than one <state>"),
            ("<server><id>in</id></server>", "<client><id>in</id></client>", 5, "a <server>, who has called"),
            ("<server><id>in</id></server>", "", 5, "here are 1"),
            ("<server><id>in</id></server>", "<server><this/></server>", 6, "within a call"),
            ("<server><id>in</id></server>", "<server></server>", 6, "is named by one of"),
            ("<server><id>in</id></server>", "<server><id>out</id></server>", 5, "with itself"),
            ("<type>message</type>", "<type>body</type>", 7, "message, not 'body'"),
            ('<destination><value type="param">1</value></destination>', "", 7, "needs a <destination>"),
            ('<value type="param">1</value>', "", 8, "needs a <value>"),
            ('<value type="param">1</value>', "<value>1</value>", 8, "needs a type: uri, param"),
            ('<value type="param">1</value>', '<value type="param">2</value>', 8, "no parameter 2"),
            ('<value type="param">1</value>', '<value type="uri">bob</value>', 8, "no SIP URI"),
            ('<value type="param">1</value>', '<value type="header">a b</value>', 8, "no name of a header"),
            ("</client>\n</bridge>", "</client>\n</bridge>text", 3, "a text between"),
            ("<BYE>", "<RING>", 19, "mismatched"),
            ("<sender><type>client</type>", "<sender><type>both</type>", 14, "server or client"),
            ("<id>out</id></sender>", "<id>Out</id></sender>", 14, "there is out"),
            ('<rule id="1">', '<rule id="x">', 14, "id="),
            ('<rule id="1">', "<rule>", 14, "id="),
            ("<delete_entity/>", "<delete_entity>now</delete_entity>", 17, "nothing in it"),
            ("<delete_entity/>", "<forget/>", 17, "<action> knows no <forget>"),
            (client, "", 16, "here are 1"), (client, third.replace("third", "fourth"), 16, "both here are new"),
            (third, "<client><id>out</id></client>", 16, "here is none"),
            ("</bridge>", "<provisional_media>sip:m@h</provisional_media></bridge>", 10, "within a call"),
            ("</bridge>", "</bridge><use_init_sdp><body>v=0</body></use_init_sdp>", 10, "never offered"),
            ("</bridge>", "</bridge><use_init_sdp>1</use_init_sdp>", 10, "nothing in it"),
            (third, "<client><id>fifth</id></client>", 16, "nobody in the call can have the id 'fifth'"),
            (third, third.replace("<id>", "<new/><id>").replace('<destination><value type="initial"/></destination>', ""), 16,
             "the new client 'third' needs"),
            (third, third + "<provisional_media>mailto:x</provisional_media>", 16, "no SIP URI"),
            (third, third + "<lifetime>long</lifetime>", 16, "lifetime"),
            ("<code>405</code>", "<code>183</code>", 21, "no final status"),
            ("<code>405</code>", "<code>700</code>", 21, "a status"),
            ("<reason>Not Here</reason>", "", 21, "needs a <reason>"),
            ("<action><send_reply><code>405</code><reason>Not Here</reason></send_reply></action>", "<action/>", 21,
             "would never be answered"),
        ):
            self.refused(old, new, line, text)

    def test_methods(self) -> None:
        """Rules for what is no request of a call; and for re-INVITEs, which can only be refused."""
        with self.assertRaisesRegex(ScenarioError, "^s.xml:15: an INVITE within the call"):
            parse(GOOD.replace("BYE>", "INVITE>").encode(), "s.xml")
        with self.assertRaisesRegex(ScenarioError, "^s.xml:13: there are no rules for CANCEL"):
            parse(GOOD.replace("BYE>", "CANCEL>").encode(), "s.xml")

    def test_unsafe(self) -> None:
        """Entities, document types, and files that are too deep or too long."""
        laughs = '<!DOCTYPE scenario [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>'
        for text, why in (
            (GOOD.replace("\n", f"\n{laughs}", 1), "no document type"),
            ('<!DOCTYPE scenario SYSTEM "file:///etc/passwd"><scenario/>', "no document type"),
            (GOOD.replace("Not Here", "&other;"), "no XML: undefined entity"),
            ("<a>" * 30 + "</a>" * 30, "too deep"), (" " * 2_000_000, "octets"), ("", "no XML"), ("<scenario/>", "needs"),
            ("<other/>", "begins with <scenario>"), ("<scenario", "no XML"),
        ):
            with self.assertRaisesRegex(ScenarioError, why):
                parse(text.encode(), "s.xml")

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.sampled_from("<>/ab1\" \n&")), max_size=3), st.booleans())
    def test_any(self, changes: list[tuple[int, str]], cut: bool) -> None:
        """A file with any slip of the pen is a scenario, or a ``ScenarioError``; nothing else."""
        text = GOOD
        for place, letter in changes:
            text = text[:place] + letter + text[place + (0 if cut else 1) :]
        try:
            parse(text.encode(), "s.xml")
        except ScenarioError:
            pass
