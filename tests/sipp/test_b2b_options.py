"""Calls back to back with reliable provisional responses, UPDATEs and challenges that pass; sipp plays all who take part."""

from __future__ import annotations

from tests.sipp.troupe import Flow, TroupeTestCase

KNOWS = "Supported: 100rel"
RELIABLE = "Require: 100rel | RSeq: 41"
IS_RELIABLE = "Require ~ 100rel | RSeq ~ ."
END = """
    > ACK
    > BYE
    < 200
"""
ENDS = """
    < ACK
    < BYE
    > 200
"""
GIVES = 'Digest username="alice", realm="bob", nonce="n", uri="sip:b", response="0"'
WANTS = 'Digest realm="bob", nonce="n"'


def ringing(offer: str) -> list[Flow]:
    """Calls whose ringing is acknowledged; ``offer``: what the INVITE of who knows that says in all cases."""
    both = Flow(
        "plain", f"""
        > INVITE sdp | {KNOWS}
        < 100?
        < 183 | {IS_RELIABLE} | body ~ o=callee
        > PRACK
        < 200 | CSeq ~ PRACK
        < 200 | CSeq ~ INVITE | ! RSeq ~ .
        {END}
        """, {"callee": f"""
        < INVITE | {offer}
        > 183 sdp | {RELIABLE}
        < PRACK | RAck ~ 41 2 INVITE | CSeq ~ 3
        > 200
        wait 100
        > 200 INVITE
        < ACK | CSeq ~ 2
        < BYE | CSeq ~ 4
        > 200
        """},
    )
    late = Flow(
        "plain", f"""
        > INVITE | {KNOWS}
        < 100?
        < 183 | {IS_RELIABLE} | body ~ m=audio
        > PRACK sdp
        < 200 | CSeq ~ PRACK
        < 200 | CSeq ~ INVITE
        {END}
        """, {"callee": f"""
        < INVITE | Supported ~ 100rel | ! body ~ m=
        > 183 sdp | {RELIABLE}
        < PRACK | RAck ~ 41 2 INVITE | body ~ o=caller
        > 200
        wait 100
        > 200 INVITE
        {ENDS}
        """},
    )
    return [both, late]


class OursTests(TroupeTestCase):
    """PRACKs end at us."""

    config = "b2b-options.cfg"

    def test_all(self) -> None:
        """Both sides know them, or one; UPDATE before the answer; challenges that the caller answers."""
        alone = Flow(
            "plain", f"""
            > INVITE sdp
            < 100?
            < 183 | ! RSeq ~ . | ! Require ~ 100rel | body ~ o=callee
            < 200
            {END}
            """, {"callee": f"""
            < INVITE | {KNOWS.replace(":", " ~")}
            > 183 sdp | {RELIABLE}
            < PRACK | RAck ~ 41 2 INVITE
            > 200
            > 200 INVITE
            {ENDS}
            """},
        )
        demands = Flow(
            "plain", f"""
            > INVITE sdp | Require: 100rel
            < 100?
            < 180 | {IS_RELIABLE}
            > PRACK
            < 200 | CSeq ~ PRACK
            < 200 | CSeq ~ INVITE
            {END}
            """, {"callee": f"""
            < INVITE | ! Require ~ 100rel
            > 180
            wait 200
            > 200 sdp
            {ENDS}
            """},
        )
        early = Flow(
            "plain", f"""
            > INVITE sdp
            < 100?
            < 183
            > UPDATE sdp:more
            < 200 | CSeq ~ UPDATE | body ~ fine
            < UPDATE | body ~ his
            > 488
            < 200 | CSeq ~ INVITE
            {END}
            """, {"callee": """
            < INVITE
            > 183 sdp
            < UPDATE | body ~ more | CSeq ~ 3
            > 200 sdp:fine
            wait 50
            > UPDATE sdp:his
            < 488
            > 200 INVITE sdp
            < ACK
            < BYE | CSeq ~ 4
            > 200
            """},
        )
        asks = Flow(
            "asks", f"""
            > INVITE sdp
            < 100?
            < 200
            > ACK
            > INVITE sdp
            < 100?
            < 407 | Proxy-Authenticate ~ bob
            > ACK refused
            > INVITE sdp | Proxy-Authorization: {GIVES}
            < 100?
            < 200
            > ACK
            < INFO
            > 401 | WWW-Authenticate: {WANTS}
            < INFO | Authorization ~ alice
            > 200
            > BYE
            < 401 | WWW-Authenticate ~ bob
            > BYE | Authorization: {GIVES}
            < 200
            """, {"callee": f"""
            < INVITE
            > 200 sdp
            < ACK
            < INVITE | CSeq ~ 3
            > 407 | Proxy-Authenticate: {WANTS}
            < ACK
            < INVITE | Proxy-Authorization ~ alice | CSeq ~ 4
            > 200 sdp
            < ACK | CSeq ~ 4
            > INFO
            < 401 | WWW-Authenticate ~ bob
            > INFO | Authorization: {GIVES}
            < 200
            < BYE | CSeq ~ 5
            > 401 | WWW-Authenticate: {WANTS}
            < BYE | Authorization ~ alice | CSeq ~ 6
            > 200
            """},
        )
        refused = Flow(
            "asks", """
            > INVITE sdp
            < 100?
            < 401 | WWW-Authenticate ~ bob
            > ACK refused
            """, {"callee": f"< INVITE\n > 401 | WWW-Authenticate: {WANTS}\n < ACK"},
        )
        numbered = Flow(
            "numbered", f"""
            > INVITE sdp | {KNOWS}
            < 100?
            < 183 | {IS_RELIABLE} | To ~ tag=B2B[^;]*[.]1$
            > PRACK
            < 200 | CSeq ~ PRACK
            < 200 | CSeq ~ INVITE | To ~ tag=B2B[^;]*[.]1$
            {END}
            """, {"callee": f"""
            < INVITE
            > 183 sdp | {RELIABLE}
            < PRACK
            > 200
            wait 100
            > 200 INVITE
            {ENDS}
            """},
        )
        self.play(*ringing(KNOWS.replace(":", " ~")), alone, demands, early, asks, refused, numbered)


class PassedTests(TroupeTestCase):
    """PRACKs go from end to end."""

    config = "b2b-options.cfg"

    def script(self, text: str) -> str:
        """With ``passthru_prack``."""
        passes = 'loadmodule "b2b_entities.so"\nmodparam("b2b_entities", "passthru_prack", 1)'
        return super().script(text.replace('loadmodule "b2b_entities.so"', passes))

    def test_all(self) -> None:
        """The same."""
        self.play(*ringing(KNOWS.replace(":", " ~")))
