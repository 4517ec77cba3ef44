"""Back-to-back calls by scenario files in XML (``sipgw/b2bua/scenario.py``): begun for an INVITE, or by a command.

What a rule does goes in this order, whatever the order in the file: somebody new is planned; the request is answered (200, if
the rule says nothing else); who sent it leaves; then both who are to talk are joined. Where a bridge cannot be, the rule has no
effect and the request is passed on. The next state counts when the two talk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipgw.b2bua.legs import Leg
from sipgw.b2bua.port import NOTHING
from sipgw.b2bua.scenario import Bridge, Party, Rule, Scenario, ScenarioError, Value, parse
from sipgw.b2bua.session import Session
from sipgw.exports import REQUEST, function, param
from sipgw.modules._b2b_drafts import Draft
from sipgw.modules._b2b_restore import TOP_HIDING, Restoring
from sipgw.proxy.disguise import is_uri
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request

LETTERS = {"t": "setup-timeout={}", "a": "transparent-auth", "p": "preserve-to"}
"""What the letters behind the id of a scenario mean."""
_FLAGS = re.compile(r"(?:t[0-9]{1,7}|[ap])*")


@dataclass(eq=False)
class Course:
    """How far a session is in its scenario. ``initial``: where the first INVITE wanted to go, ``hop``: by way of which URI;
    ``next``: its state when the bridge that is under way has come to its end."""

    scenario: Scenario
    params: list[str]
    initial: str
    state: int | None
    hop: str = ""
    next: int | None = None


class NoValue(ValueError):
    """A value that a scenario wants is not there."""


def flags_of(letters: str) -> str:
    """The words for the letters behind the id of a scenario."""
    if not _FLAGS.fullmatch(letters):
        raise ValueError(f"{letters!r} are no flags: tNNN, a and p are")
    return ",".join(LETTERS[letter].format(number) for letter, number in re.findall(r"([tap])([0-9]*)", letters))


class Scenarios(Restoring):
    """Sessions by scenario files."""

    script_scenario: str = param("", "A scenario file (XML) for b2b_init_scenario; one for each line", each="add_script")
    extern_scenario: str = param("", "One for the command b2b_logic:trigger_scenario", each="add_extern")
    use_init_sdp: int = param(0, "Whether a new callee of a scenario is offered what the caller has offered: 0 or 1")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.scenarios: dict[str, Scenario] = {}
        self.courses: dict[str, Course] = {}
        super().__init__(server, **parameters)

    # -- files

    def add_script(self, file: str) -> None:
        """Read a file that scripts may name."""
        self._add(file, extern=False)

    def add_extern(self, file: str) -> None:
        """Read a file that commands may name."""
        self._add(file, extern=True)

    def _add(self, file: str, *, extern: bool) -> None:
        try:
            scenario = parse(Path(file).read_bytes(), file, "extern" if extern else "script")
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from None
        if scenario.extern is not extern:
            kind = "extern" if scenario.extern else "script"
            raise ScenarioError(file, 1, f"this scenario is of type {kind}: set it as {kind}_scenario")
        if scenario.id in self.scenarios or scenario.id in (TOP_HIDING, "refer"):
            other = self.scenarios[scenario.id].file if scenario.id in self.scenarios else "built in"
            raise ScenarioError(file, 1, f"there is a scenario {scenario.id!r} already ({other})")
        self.scenarios[scenario.id] = scenario

    # -- what the other half of b2b_logic does

    def begin_call(
        self, run: Run, request: Request, scenario: str, server: Draft, client: Draft, flags: str, course: Course
    ) -> bool:
        """Begin a session for an INVITE."""
        raise NotImplementedError

    def join(
        self, session: Session, kept: Leg, draft: Draft, *, media: str = "", early_offer: bool = False, wait: bool = True
    ) -> bool:
        """Let ``kept`` talk with somebody new."""
        raise NotImplementedError

    def can_join(self, session: Session, kept: Leg) -> bool:
        """Whether that may be."""
        raise NotImplementedError

    # -- beginning

    @function(REQUEST)
    def b2b_init_scenario(
        self, run: Run, id: str, p1: str | None = None, p2: str | None = None, p3: str | None = None, p4: str | None = None,
        p5: str | None = None,
    ) -> bool:
        """Begin a session for this INVITE by a scenario file, with its parameters; the id may have flags behind it: ``id/t30ap``.

        OpenSIPS before 3.2 called this b2b_init_request."""
        params = [value for value in (p1, p2, p3, p4, p5) if value is not None]
        return self.init_scenario(run, id, params)

    def init_scenario(self, run: Run, name: str, params: list[str]) -> bool:
        """Begin a session by a scenario."""
        request = run.message
        name, _, letters = name.partition("/")
        scenario = self.scenarios.get(name)
        try:
            if not isinstance(request, Request) or request.method != "INVITE" or request.to_tag or run.flow is None:
                raise ValueError("this is no INVITE that begins a call")
            if scenario is None or scenario.extern:
                raise ValueError(f"no script_scenario has the id {name!r}")
            if len(params) != scenario.params:
                raise ValueError(f"{name} takes {scenario.params} parameters, not {len(params)}")
            flags = flags_of(letters)
            course = Course(scenario, params, run.uri, scenario.state, run.dst_uri or "")
            (server,) = (party for party in scenario.bridge.parties if party.server)
            (party,) = (party for party in scenario.bridge.parties if not party.server)
            client = self._to_call(course, party, request)
        except ValueError as error:
            run.user.log_rarely(("b2b_init_scenario", name), -1, f"b2b_init_scenario: {error}")
            return False
        return self.begin_call(run, request, name, Draft(server.name), client, flags, course)

    def extern(self, name: str, params: list[str]) -> tuple[Course, tuple[Draft, Draft]]:
        """What a command begins by a scenario file: how far it is, and who is called; ``ValueError`` if it cannot be."""
        scenario = self.scenarios.get(name)
        if scenario is None or not scenario.extern:
            raise ValueError(f"no extern_scenario has the id {name!r}")
        if len(params) != scenario.params:
            raise ValueError(f"{name} takes {scenario.params} parameters, not {len(params)}")
        course = Course(scenario, params, "", scenario.state)
        first, second = (self._to_call(course, party, None) for party in scenario.bridge.parties)
        return course, (first, second)

    def _value(self, course: Course, value: Value, request: Request | None) -> str:
        if value.kind == "param":
            return course.params[int(value.text) - 1]
        if value.kind == "initial":
            return course.initial
        if value.kind == "header":
            text = None if request is None else request.header(value.text)
            if text is None:
                raise NoValue(f"there is no header {value.text}")
            try:
                return str(NameAddr.parse(text).uri.without_headers())
            except MalformedMessage:
                raise NoValue(f"there is no URI in {value.text}") from None
        return value.text

    def _to_call(self, course: Course, party: Party, request: Request | None) -> Draft:
        """Who is to be called."""
        assert party.destination is not None
        uri = self._value(course, party.destination, request)
        if not is_uri(uri):
            raise NoValue(f"{uri!r} is no URI")
        headers = ""
        for name, value in party.headers:
            its_name, its_value = self._value(course, name, request), self._value(course, value, request)
            if not is_token(its_name) or re.search(r"[\r\n\0]", its_value):
                raise NoValue(f"{its_name!r} cannot be a header")
            headers += f"{its_name}: {its_value}\r\n"
        display = "" if party.display is None else self._value(course, party.display, request)
        if display and not is_token(display) and not display.startswith('"'):
            display = '"' + re.sub(r'(["\\])', r"\\\1", re.sub(r"[\r\n\0]", " ", display)) + '"'
        hop = course.hop if party.destination.kind == "initial" else ""
        return Draft(party.name, uri, hop, display, headers=headers)

    # -- within a call

    def state_of(self, session: Session) -> int | None:
        """The state that a session is in."""
        course = self.courses[session.key]
        if course.next is not None and session.bridge is None:
            course.state, course.next = course.next, None
        return course.state

    def follow(self, session: Session, leg: Leg, request: Request, token: Any) -> bool:
        """Do what the scenario says about a request; false if that is nothing."""
        course = self.courses[session.key]
        rule = course.scenario.rule(request.method, self.state_of(session), leg.role.value, leg.id)
        if rule is None:
            return False
        planned = None
        if rule.bridge is not None:
            try:
                planned = self._planned(session, leg, course, rule.bridge, request)
            except ValueError as error:
                text = f"{course.scenario.file}:{rule.line}: the bridge of rule {rule.id} cannot be: {error}"
                self.server.user.log_rarely(("scenario", text), -1, text)
                return False
        status, reason = rule.reply or (200, "OK")
        self.entities.reply(leg, token, status, reason, NOTHING)
        if request.method == "BYE":
            session.drop(leg)
            self._act(session, leg, rule, planned)
            session.settle()
        else:  # who has asked learns that it was heard before it is hung up on
            self.entities.after(0, lambda: self._act(session, leg, rule, planned))
        return True

    def _act(self, session: Session, leg: Leg, rule: Rule, planned: tuple[Leg, Draft] | None) -> None:
        """Do what a rule says when its request has been answered."""
        course = self.courses.get(session.key)
        if course is None:
            return
        leaves = rule.end_leg or rule.delete
        if planned is None or rule.bridge is None:
            if rule.state is not None:
                course.state = rule.state
            if leaves:
                session.leave(leg)
            return
        kept, draft = planned
        early = bool(self.use_init_sdp) or course.scenario.use_init_sdp
        if self.join(session, kept, draft, media=rule.bridge.media, early_offer=early, wait=not leaves):
            if rule.state is not None:
                course.next = rule.state
            if rule.bridge.lifetime is not None:
                self.limit_to(session, rule.bridge.lifetime)

    def _planned(self, session: Session, leg: Leg, course: Course, bridge: Bridge, request: Request) -> tuple[Leg, Draft]:
        """Who is to be kept, and who is to be called."""
        (old,) = (party for party in bridge.parties if party.destination is None)
        (new,) = (party for party in bridge.parties if party.destination is not None)
        if not old.by_id:
            kept = leg if old.name == "this" else session.other(leg)
        else:
            found = next((each for each in session.pair if each.id == old.name), None)
            if found is None:
                raise NoValue(f"nobody in the call has the id {old.name!r}")
            kept = found
        if not self.can_join(session, kept):
            raise NoValue("the call is not answered, or an INVITE is under way")
        return kept, self._to_call(course, new, request)

    def limit_to(self, session: Session, seconds: int) -> None:
        """End a session after so many seconds."""
        self.ends[session.key] = int(self.server.user.wall_clock()) + seconds
        self.ends_at(session)

    # -- what outlives the server

    def course_kept(self, session: Session) -> Mapping[str, Any]:
        """How far a session is, as JSON has it; nothing if it has no scenario."""
        course = self.courses.get(session.key)
        if course is None:
            return {}
        return {"course": {
            "id": course.scenario.id, "params": course.params, "initial": course.initial, "hop": course.hop,
            "state": self.state_of(session),
        }}

    def course_of(self, session: Session, kept: Mapping[str, Any]) -> bool:
        """Go on with the scenario of a session, if it has one and that is still there."""
        found = kept.get("course")
        if not isinstance(found, dict):
            return False
        scenario = self.scenarios.get(str(found.get("id")))
        if scenario is None or len(found.get("params", ())) != scenario.params:
            self.server.user.log(-1, f"b2b_logic: the scenario {found.get('id')!r} of {session.key} is not there any more")
            return False
        state, params = found.get("state"), [str(value) for value in found["params"]]
        initial, hop = str(found.get("initial", "")), str(found.get("hop", ""))
        self.courses[session.key] = Course(scenario, params, initial, None if state is None else int(state), hop)
        return True
