"""Tests of sipgw.core.recurrence: texts, instants and what the real binary said of them; ``OWN`` is where we follow RFC 2445."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import recurrence
from sipgw.core.recurrence import parse

WORKDAYS = "20210104T080000|20210104T180000||WEEKLY|||MO,TU,WE,TH,FR"
LUNCH = "20210104T120000|20210104T140000||WEEKLY|||MO,TU,WE,TH,FR"
NIGHTS = "20210104T220000|20210105T060000||"
AT8 = "20210101T080000|20210101T100000||"

#: text, instants within (as UTC, month to minute of 2021 unless the year is given), instants not within
SAME = [
    (NIGHTS + "DAILY", "0104T2200 0105T0200 0106T0200 0106T2300", "0104T2159 0105T0600 0107T0600"),
    (NIGHTS + "WEEKLY", "0104T2300 0105T0200 0111T2300 0112T0200", "0111T0200 0112T2300"),
    (
        "20210104T080000|20210104T180000||WEEKLY|||MO,TU",
        "0104T0800 0104T1759 0105T0900 0111T0900",
        "0104T1800 0106T0900 0103T0900",
    ),
    ("20210104T080000|20210104T180000||WEEKLY", "0104T0900 0111T0900", "0105T0900 0111T0700"),
    (
        "20210104T080000|20211231T180000||WEEKLY|||MO,TU,WE,TH,FR",
        "0104T0900 0104T1900 0105T0900 0105T1900 20220103T0900",
        "0104T0700 0109T0900 0501T1200",
    ),
    ("20210104T080000", "0104T0800 20300104T0800", "0104T0700"),
    ("20210104T080000|20210105T080000", "0104T0800 0105T0759", "0104T0700 0105T0800"),
    ("20121101T000000||p30d", "20121101T0000 20121130T2359", "20121201T0000"),
    ("20210104T080000|20210104T100000||DAILY||2", "0104T0900 0106T0900", "0105T0900 0107T0900"),
    ("20210104T080000|20210104T100000||WEEKLY||2|MO,SU", "0104T0900 0110T0900 0118T0900 0124T0900", "0111T0900 0117T0900"),
    (
        "20210106T080000|20210106T100000||WEEKLY||2|MO,WE,SU",
        "0106T0900 0110T0900 0118T0900 0120T0900",
        "0111T0900 0113T0900 0117T0900",
    ),
    ("20210131T080000|20210131T100000||MONTHLY", "0131T0900 0331T0900", "0228T0900 0301T0900 0430T0900"),
    ("20210115T080000|20210115T100000||MONTHLY||2", "0115T0900 0315T0900", "0215T0900 0316T0900"),
    ("20210104T080000|20210104T100000||YEARLY||2", "0104T0900 20230104T0900", "20220104T0900 20230105T0900"),
    (AT8 + "MONTHLY|||+1MO,-1FR", "0104T0900 0129T0900 0201T0900", "0111T0900 0122T0900"),
    (AT8 + "YEARLY|||+1MO,-1FR", "0104T0900 1231T0900", "0111T0900 0201T0900 0129T0900"),
    (AT8 + "WEEKLY|||+1MO", "0104T0900 0111T0900", "0105T0900"),
    (AT8 + "DAILY|||+1MO,-1FR,WE", "0104T0900 0111T0900 0129T0900 0106T0900", "0105T0900"),
    (AT8 + "MONTHLY||||1,-1,15", "0101T0900 0115T0900 0131T0900 0228T0900", "0130T0900"),
    (AT8 + "DAILY||||1,-1,-28", "0101T0900 0131T0900 0201T0900 0228T0900 0104T0900", "0103T0900"),
    (AT8 + "YEARLY|||||1,100", "0101T0900 0410T0900 20220101T0900", "0411T0900"),
    (AT8 + "MONTHLY|||2TU|10,12", "0112T0900", "0110T0900 0209T0900 0212T0900"),
    (AT8 + "YEARLY|||||||2,12", "0201T0900", "0101T0900 0215T0900 1231T0900 20220101T0900"),
    (AT8 + "MONTHLY|||||||2,12", "0201T0900 1201T0900", "0101T0900 0215T0900"),
    (AT8 + "DAILY|||||||2,12", "0201T0900 0215T0900 1201T0900", "0101T0900"),
    (AT8 + "WEEKLY|||MO||||2,12", "0201T0900 0215T0900", "0104T0900 1201T0900"),
    (AT8 + "MONTHLY||2|MO", "0104T0900 0301T0900", "0201T0900"),
    (AT8 + "DAILY|20210103T000000", "0101T0900 0102T0900", "0103T0900"),
    (AT8 + "DAILY|20210103T090000", "0102T0900 0103T0859 0103T0900", "0103T0901"),
    ("20210101T080000||PT2H|DAILY", "0101T0900 0102T0959", "0101T1000"),
    ("20210101T080000|20210101T100000|PT1H|DAILY", "0102T0830", "0102T0930"),
    ("20210101T080000||P1DT1H30M5S|", "0101T0900 0102T0930", "0102T0931"),
    ("20210101T080000||P1W|", "0107T0900", "0108T0800"),
    ("20210101T080000||1H|DAILY", "0102T0830", "0102T0930"),
    ("20210101T080000|20210101T080000||DAILY", "", "0101T0800 0102T0800"),
    ("20210101T080000|||DAILY", "0101T0900 0105T1000 0105T2359", "0105T0700"),
    ("20210101T080000|||WEEKLY|||MO", "0104T1000", "0101T0900 0104T0700 0105T1000"),
    ("20210101T080000|||WEEKLY", "0101T0900 0102T0900 0108T0900 0109T0900", "0108T0700"),
    ("20210101T080000|||MONTHLY", "0101T0900 0102T0900 0201T0900 0202T0700", "0201T0700"),
    ("|||", "0101T0900", ""),
    ("|20220101T000000", "0104T0900", "20230105T0900"),
    (AT8 + "weekly|||mo,fr", "0104T0900 0108T0900", "0105T0900"),
    ("20210115T080000|20210117T100000||MONTHLY", "0116T0900 0215T0900 0216T0200 0217T0930", "0217T1100 0214T0900"),
    (
        "20210115T080000|20210117T100000||YEARLY",
        "0116T0900 20220115T0900 20220116T0200 20220117T0930",
        "20220117T1100 20220114T0900",
    ),
    ("20211231T220000|20220101T060000||YEARLY", "20220101T0200 20221231T2300 20230101T0200", "20230101T0700"),
    (
        "20210104T080000|20210107T100000||WEEKLY",
        "0104T0900 0107T0900 0113T0300 0114T0959",
        "0107T1000 0108T0900 0111T0700 0114T1000",
    ),
    ("Europe/Bucharest|" + AT8 + "DAILY", "0101T0600 0701T0500 0701T0659", "0101T0559 0701T0459 0701T0700"),
    ("UTC|" + AT8 + "DAILY", "0101T0900", "0101T0700"),
    (f"{WORKDAYS} & !{LUNCH}", "0105T1000 0105T1500", "0105T1300 0109T1000"),
    ("20210104T080000|20210104T180000||DAILY/20210104T200000|20210104T210000||DAILY", "0105T1000 0105T2030", "0105T1900"),
    (
        "(20210104T080000|20210104T180000||DAILY / 20210104T200000|20210104T210000||DAILY) & !(20210104T090000||PT30M|DAILY)",
        "0105T1000 0105T2030",
        "0105T1900 0105T0910",
    ),
    (f"!{WORKDAYS}", "0109T1000 0101T1000", "0105T1000"),
    (f"!!{WORKDAYS}", "0105T1000", "0109T1000"),
    (
        "Europe/Bucharest|20210104T080000|20210104T180000||DAILY / America/New_York|20210104T200000|20210104T210000||DAILY",
        "0105T0600 0106T0100",
        "0105T1630 0106T0200",
    ),
]

OWN = [
    (NIGHTS + "WEEKLY|||MO", "0104T2300 0105T0200 0112T0200", "0111T0200 0106T0200"),
    (NIGHTS + "DAILY||2", "0104T2300 0105T0200 0106T2300 0107T0200", "0105T2300 0106T0200"),
    ("20200229T080000|20200229T100000||YEARLY", "20200229T0900 20240229T0900", "0228T0900 0301T0900"),
    ("20201225T080000|20201225T100000||YEARLY", "1225T0900 20241225T0900", "1226T0900"),
    ("20210131T080000|20210202T100000||MONTHLY", "0201T0900 0331T0900 0402T0900", "0228T0900 0301T0900 0403T0900"),
    (AT8 + "DAILY|||||-1,-2", "1231T0900 1230T0900 20241231T0900", "1229T0900"),
    (AT8 + "YEARLY||||||1,-1", "0101T0900 0108T0900 1231T0900 20220107T0900", "0107T0900 0115T0900"),
    (AT8 + "YEARLY|||MO|||2", "0111T0900 20220110T0900", "0104T0900 0118T0900"),
    (AT8 + "YEARLY|||1MO||||2,3", "0201T0900 0301T0900", "0208T0900 0104T0900"),
    (" 20210101T080000 | 20210101T100000 || DAILY ", "0102T0900", "0102T1000"),
    ("20210104T080000|20210107T100000||WEEKLY||2", "0104T0900 0118T0800", "0111T0900 0114T0900"),
    ("20210101T080000||P400D|YEARLY||2", "0101T0800 20220101T0900 20230101T0900", "20220601T0900"),
]

WRONG = [
    "", "nonsense", "20210101", "20211301T080000", "20210101T0800", "20210101T080000Z", "20210101T080000|20200101T100000",
    "20210101T080000||P", "20210101T080000||P1Y", "20210101T080000||-PT1H", "20210101T080000||PT90",
    AT8 + "HOURLY", AT8 + "WEEKLY||x", AT8 + "WEEKLY||0", AT8 + "WEEKLY||1001", AT8 + "WEEKLY|||XX", AT8 + "MONTHLY|||60MO",
    AT8 + "MONTHLY||||32", AT8 + "MONTHLY||||0", AT8 + "MONTHLY|||||||13", AT8 + "MONTHLY|||||||-1", AT8 + "YEARLY||||||54",
    AT8 + "DAILY|||||||||extra", AT8 + "DAILY|tomorrow", "|||WEEKLY|||MO", "||P1D|DAILY", "Nowhere/City|" + AT8 + "DAILY",
    f"({WORKDAYS}", f"{WORKDAYS} &", f"{WORKDAYS})", f"{WORKDAYS} & {LUNCH} / {LUNCH}", f"{WORKDAYS} / {LUNCH} & {LUNCH}",
    "!" * 30 + WORKDAYS, "(" * 30 + WORKDAYS, "& " + WORKDAYS, "x" * 3000, "../etc/passwd|" + AT8 + "DAILY",
]


def instant(text: str) -> float:
    """``0104T2200`` of 2021, or with the year before it, in UTC."""
    text = text if len(text) > 9 else f"2021{text}"
    return datetime.strptime(text, "%Y%m%dT%H%M").replace(tzinfo=UTC).timestamp()


class RecurrenceTests(SynchronousTestCase):
    """Texts and instants."""

    def table(self, table: list[tuple[str, str, str]]) -> None:
        for text, within, outside in table:
            times = parse(text if text[0].isalpha() or not text.strip("|") else _in_utc(text))
            for expected, instants in ((True, within), (False, outside)):
                for one in instants.split():
                    self.assertIs(times.matches(instant(one)), expected, f"{text} at {one}")

    def test_same(self) -> None:
        """What OpenSIPS says too."""
        self.table(SAME)

    def test_own(self) -> None:
        """What RFC 2445 says."""
        self.table(OWN)

    def test_wrong(self) -> None:
        """What is no recurrence is refused."""
        for text in WRONG:
            self.assertRaises(ValueError, parse, text)

    def test_system_zone(self) -> None:
        """Without a time zone the clock is that of the system."""
        local = datetime(2021, 7, 1, 9, 0).timestamp()
        self.assertTrue(parse(AT8 + "DAILY").matches(local))
        self.assertFalse(parse(AT8 + "DAILY").matches(local + 3600))

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(
        st.sampled_from(recurrence.FREQUENCIES),
        st.integers(1, 4),
        st.integers(0, 3000),
        st.sampled_from(["", "|MO,2TU,-1FR", "||1,-1,31", "|||1,-1", "||||1,53,-1", "|||||1,12"]),
        st.sampled_from(["", "PT1H", "P1D", "P3D", "P40D"]),
    )
    def test_any(self, freq: str, interval: int, hours: int, rules: str, length: str) -> None:
        """Any combination of rules has an answer at any time, and none before it begins."""
        times = parse(f"UTC|20200229T233000||{length}|{freq}||{interval}{rules}")
        begin = instant("20200229T2330")
        self.assertIn(times.matches(begin + hours * 3600), (True, False))
        self.assertFalse(times.matches(begin - 1 - hours))


def _in_utc(text: str) -> str:
    """The text with its recurrences in UTC."""
    import re

    return re.sub(r"(^|[&/(!] *)(?=[0-9|])", lambda match: f"{match[0]}UTC|", text.strip())
