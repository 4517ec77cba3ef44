"""Calls by the scenario files of ``examples/b2bua-scenarios.cfg``: sipp plays callers, callees, media servers."""

from __future__ import annotations

from pathlib import Path

from tests.children import HOST, free_port
from tests.sipp.harness import Sipp
from tests.sipp.troupe import CALLS, RATE, TroupeTestCase

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CALLS_UP = """
    > INVITE sdp
    < 100?
    < 180?
    < 200 | body ~ o=media
    > ACK
"""
IS_JOINED = """
    < INVITE | body ~ o=media
    > 200 sdp
    < ACK
"""
MEDIA = """
    < INVITE
    > 200 sdp
    < ACK
    wait 200
    > BYE
    < 200
"""


class ScenarioTests(TroupeTestCase):
    """The script of the example."""

    config = str(EXAMPLES / "b2bua-scenarios.cfg")

    def script(self, text: str) -> str:
        """Put ports of ours into it."""
        self.next_hop, self.media = free_port(), free_port()
        text = text.replace(":5080", f":{self.next_hop}").replace(":5090", f":{self.media}")
        return super().script(text.replace('"examples/', f'"{EXAMPLES}/'))

    def plays(self, name: str, text: str, *, port: int = 0, calls: int = CALLS, **values: str) -> Sipp:
        """Start one party; without a port the caller."""
        if port:
            return self.act(name, text, values, port=port, calls=calls)
        options = ["-r", str(RATE), "-l", str(CALLS)]
        return self.act(name, text, values, remote=self.server.port, calls=calls, options=options)

    def test_prepaid(self) -> None:
        """A greeting, the callee, a farewell: one caller, three calls, each joined with the one before."""
        media = self.plays("prepaid media", MEDIA, port=self.media, calls=2 * CALLS)
        callee = self.plays(
            "prepaid callee",
            "< INVITE | ! body ~ v=0\n > 180\n > 200 sdp:media2\n < ACK | body ~ o=caller\n wait 300\n > BYE\n < 200",
            port=self.next_hop,
        )
        caller = self.plays("prepaid caller", CALLS_UP + IS_JOINED + IS_JOINED + "< BYE\n > 200", target="0900123")
        self.finish(media, callee, caller)
        self.assertNothingLeft()

    def test_marketing(self) -> None:
        """The operator calls a customer, who hears an announcement and then talks with an agent."""
        agent_port = free_port()
        media = self.plays("marketing media", MEDIA, port=self.media)
        agent = self.plays(
            "marketing agent", "< INVITE | X-Campaign ~ autumn\n > 180\n > 200 sdp:media2\n < ACK\n < BYE\n > 200",
            port=agent_port,
        )
        customer = self.plays(
            "marketing customer",
            "< INVITE | From ~ Our Shop\n > 180\n > 200 sdp\n < ACK | body ~ o=media\n" + IS_JOINED
            + "wait 300\n > BYE\n < 200", port=self.next_hop,
        )
        params = [f"sip:bob@{HOST}:{self.next_hop}", f"sip:offer@{HOST}:{self.media}", f"sip:agent@{HOST}:{agent_port}"]
        for _ in range(CALLS):
            self.ask("b2b_trigger_scenario", scenario_id="marketing", scenario_params=params)
        self.finish(media, agent, customer)
        self.assertNothingLeft()

    def test_transfer(self) -> None:
        """The callee sends the caller on by REFER, and is hung up on when it is told 202."""
        third = self.plays("transfer third", "< INVITE\n > 180\n > 200 sdp:media3\n < ACK\n < BYE\n > 200", port=self.media)
        callee = self.plays(
            "transfer callee",
            "< INVITE\n > 180\n > 200 sdp:media\n < ACK\n wait 200\n"
            f"> REFER | Refer-To: <sip:third@{HOST}:{self.media}>\n < 202\n < BYE\n > 200",
            port=self.next_hop,
        )
        caller = self.plays("transfer caller", CALLS_UP + IS_JOINED + "wait 300\n > BYE\n < 200", target="bob")
        self.finish(third, callee, caller)
        self.assertNothingLeft()
