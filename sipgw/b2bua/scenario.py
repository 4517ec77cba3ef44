"""Scenario files: what back-to-back calls did in OpenSIPS before its 3.2, written in XML. Pure: a text in, a ``Scenario`` out.

::

    <scenario id="prepaid" param="2" type="script">
      <init>                                            what happens to the first INVITE
        <state>1</state>
        <bridge> <server><id>server1</id></server>  <client>...</client> </bridge>
      </init>
      <rules> <request> <BYE>                           what happens to requests within the call
        <rule id="1">
          <condition> <state>1</state> <sender><type>client</type><id>client1</id></sender> </condition>
          <action> <state>2</state> <bridge>...</bridge> <delete_entity/> </action>
        </rule>
      </BYE> </request> </rules>
    </scenario>

A request that fits no rule is passed on. ``<request name="BYE">`` with the rules in it is taken as well. Of several rules that
fit, the last one counts. Whatever is wrong with a file is a ``ScenarioError`` with its line; entities and document types are
refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

METHODS: Final = ("INVITE", "BYE", "MESSAGE", "SUBSCRIBE", "NOTIFY", "REFER", "UPDATE", "INFO", "OPTIONS", "PRACK", "PUBLISH")
"""Requests that rules may be for; an ACK and a CANCEL belong to their INVITE."""
MOST_PARAMS: Final = 5
LARGEST: Final = 1_000_000
"""Octets of a file."""
DEEPEST: Final = 20
_URI: Final = re.compile(r"sips?:[^\s<>\"]+", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")


class ScenarioError(ValueError):
    """A file that is no scenario."""

    def __init__(self, file: str, line: int, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}")
        self.file = file
        self.line = line
        self.text = text


@dataclass(frozen=True, slots=True)
class Value:
    """A text that is known when it is needed. ``kind``: ``uri`` or ``text``, as it stands; ``param``: the one with that number;
    ``header``: the URI in that header of the request; ``initial``: where the first INVITE wanted to go."""

    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Party:
    """One of the two that a bridge joins: ``name`` is ``this``, ``peer`` or an id; with a ``destination`` it is called now."""

    name: str
    by_id: bool
    server: bool = False
    destination: Value | None = None
    display: Value | None = None
    headers: tuple[tuple[Value, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """Who talks with whom, what is heard meanwhile (a URI), and for how many seconds at most."""

    parties: tuple[Party, Party]
    media: str = ""
    lifetime: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about a request. ``when``: the state; ``sender``: "server" or "client", ``sender_id``: its id; "" for any."""

    id: int
    line: int
    when: int | None = None
    sender: str = ""
    sender_id: str = ""
    state: int | None = None
    bridge: Bridge | None = None
    reply: tuple[int, str] | None = None
    end_leg: bool = False
    delete: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file. ``extern``: begun by a management command, not for an INVITE. ``use_init_sdp``: somebody new is offered what
    who is kept has offered last."""

    id: str
    params: int
    extern: bool
    state: int | None
    bridge: Bridge
    use_init_sdp: bool = False
    rules: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    file: str = ""

    def rule(self, method: str, state: int | None, sender: str, sender_id: str) -> Rule | None:
        """The rule for a request, None if it is to be passed on."""
        for rule in reversed(self.rules.get(method, ())):  # COMPAT: OpenSIPS looks at the last one first
            if rule.when not in (None, state):
                continue
            if rule.sender in ("", sender) and rule.sender_id in ("", sender_id):
                return rule
        return None


# -- a tree that knows its lines


@dataclass(slots=True)
class _Element:
    tag: str
    attributes: dict[str, str]
    line: int
    children: list[_Element] = field(default_factory=list)
    text: str = ""


class _Reader:
    """A file as a tree, and what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, line: int, text: str) -> ScenarioError:
        return ScenarioError(self.file, line, text)

    def tree(self, data: bytes) -> _Element:
        if len(data) > LARGEST:
            raise self.error(1, f"it has more than {LARGEST} octets")
        root = _Element("", {}, 1)
        stack = [root]
        parser = expat.ParserCreate()
        parser.buffer_text = True

        def start(tag: str, attributes: dict[str, str]) -> None:
            element = _Element(tag, attributes, parser.CurrentLineNumber)
            if len(stack) > DEEPEST:
                raise self.error(element.line, "elements stand too deep in one another")
            stack[-1].children.append(element)
            stack.append(element)

        def characters(text: str) -> None:
            stack[-1].text += text

        def refused(*_rest: object) -> None:
            raise self.error(parser.CurrentLineNumber, "a scenario has no document type and no entities of its own")

        parser.StartElementHandler = start
        parser.EndElementHandler = lambda _tag: stack.pop()
        parser.CharacterDataHandler = characters
        parser.StartDoctypeDeclHandler = refused
        parser.EntityDeclHandler = refused
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise self.error(error.lineno, f"this is no XML: {expat.ErrorString(error.code)}") from None
        return root.children[0]

    # -- the grammar

    def only(self, element: _Element, *tags: str, attributes: tuple[str, ...] = ()) -> None:
        """Refuse what has no meaning there: a mistyped name must not be passed over."""
        for child in element.children:
            if child.tag not in tags:
                allowed = f"it takes {', '.join(tags)}" if tags else "it takes none"
                raise self.error(child.line, f"<{element.tag}> knows no <{child.tag}>; {allowed}")
        for name in element.attributes:
            if name not in attributes:
                raise self.error(element.line, f"<{element.tag}> knows no attribute {name!r}")
        if element.children and element.text.strip():
            raise self.error(element.line, f"<{element.tag}> has a text between its elements")

    def one(self, element: _Element, tag: str) -> _Element | None:
        found = [child for child in element.children if child.tag == tag]
        if len(found) > 1:
            raise self.error(found[1].line, f"<{element.tag}> has more than one <{tag}>")
        return found[0] if found else None

    def need(self, element: _Element, tag: str) -> _Element:
        found = self.one(element, tag)
        if found is None:
            raise self.error(element.line, f"<{element.tag}> needs a <{tag}>")
        return found

    def text(self, element: _Element, attributes: tuple[str, ...] = ()) -> str:
        self.only(element, attributes=attributes)
        text = element.text.strip()
        if not text or re.search(r"[\r\n\0]", text):
            raise self.error(element.line, f"<{element.tag}> needs a text of one line")
        return text

    def number(self, text: str, line: int, what: str, most: int = 10**9) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
            raise self.error(line, f"{what} is a number, not {text!r}")
        return int(text)

    def state(self, element: _Element) -> int | None:
        found = self.one(element, "state")
        return None if found is None else self.number(self.text(found), found.line, "a state")

    def flag(self, element: _Element, tag: str) -> bool:
        found = self.one(element, tag)
        if found is None:
            return False
        self.only(found)
        if found.text.strip():
            raise self.error(found.line, f"<{tag}/> has nothing in it")
        return True


class _Parser(_Reader):
    """A tree as a ``Scenario``."""

    def __init__(self, file: str, usual: str) -> None:
        super().__init__(file)
        self.usual = usual
        self.params = 0
        self.extern = False
        self.ids: set[str] = set()
        """Those that there can be."""

    def scenario(self, root: _Element) -> Scenario:
        if root.tag != "scenario":
            raise self.error(root.line, f"a scenario begins with <scenario>, not with <{root.tag}>")
        self.only(root, "init", "rules", attributes=("id", "param", "type", "name"))
        name = root.attributes.get("id", "")
        if not name or "/" in name:
            raise self.error(root.line, '<scenario> needs an id, without a "/"')
        params = root.attributes.get("param", "")
        self.params = self.number(params, root.line, 'the attribute param="N" of <scenario>', MOST_PARAMS)
        kind = root.attributes.get("type", self.usual)
        if kind not in ("script", "extern"):
            raise self.error(root.line, f"a scenario is of type script or extern, not {kind!r}")
        self.extern = kind == "extern"
        init = self.need(root, "init")
        self.only(init, "state", "bridge", "use_init_sdp")
        bridge_element = self.need(init, "bridge")
        bridge = self.bridge(bridge_element, first=True)
        rules = self.one(root, "rules")
        return Scenario(
            name, self.params, self.extern, self.state(init), bridge, self.init_sdp(init),
            {} if rules is None else self.rules(rules), self.file,
        )

    def init_sdp(self, init: _Element) -> bool:
        element = self.one(init, "use_init_sdp")
        if element is None:
            return False
        for child in element.children:
            if child.tag == "body":
                raise self.error(child.line, "a <body> of the file is never offered: who is called first makes the offer")
        return self.flag(init, "use_init_sdp")

    # -- who talks with whom

    def bridge(self, element: _Element, first: bool = False) -> Bridge:
        self.only(element, "server", "client", "provisional_media", "lifetime")
        found = [child for child in element.children if child.tag in ("server", "client")]
        if len(found) != 2:
            raise self.error(element.line, f"<bridge> joins two, a <server> or <client> each; here are {len(found)}")
        if first and [child.tag for child in found].count("server") != (0 if self.extern else 1):
            wanted = "two <client>, for nobody has called" if self.extern else "a <server>, who has called, and a <client>"
            raise self.error(element.line, f"the first <bridge> of this scenario has {wanted}")
        parties = [self.party(child, first) for child in found]
        if parties[0].name == parties[1].name:
            raise self.error(element.line, f"<bridge> joins {parties[0].name!r} with itself")
        if not first and all(party.destination is not None for party in parties):
            raise self.error(element.line, "<bridge> within a call keeps one who is in it; both here are new")
        if not first and all(party.destination is None for party in parties):
            raise self.error(element.line, "<bridge> joins somebody with a new <client>, who has a <destination>; here is none")
        media = self.one(element, "provisional_media")
        if first and media is not None:
            raise self.error(media.line, "<provisional_media> is for a <bridge> within a call")
        lifetime = self.one(element, "lifetime")
        return Bridge(
            (parties[0], parties[1]), "" if media is None else self.uri(self.text(media), media.line),
            None if lifetime is None else self.number(self.text(lifetime), lifetime.line, "a lifetime in seconds"),
        )

    def party(self, element: _Element, first: bool) -> Party:
        self.only(element, "id", "this", "peer", "type", "destination", "from_dname", "header", "new")
        named = [child for child in element.children if child.tag in ("id", "this", "peer")]
        if len(named) != 1:
            raise self.error(element.line, f"<{element.tag}> is named by one of <id>, <this/>, <peer/>")
        by_id = named[0].tag == "id"
        if by_id:
            name = self.text(named[0])
        elif first or element.tag == "server":
            raise self.error(named[0].line, f"<{named[0].tag}/> is for a <client> of a <bridge> within a call")
        else:
            name = named[0].tag
            self.flag(element, name)
        kind = self.one(element, "type")
        if kind is not None and self.text(kind) != "message":
            raise self.error(kind.line, f"the only <type> of a client is message, not {kind.text.strip()!r}")
        destination = self.one(element, "destination")
        display = self.one(element, "from_dname")
        headers = tuple(self.header(child) for child in element.children if child.tag == "header")
        new = self.flag(element, "new")
        called = destination is not None
        if element.tag == "server" or not by_id:
            if called or display is not None or headers or new:
                raise self.error(element.line, f"who is in the call already ({name!r}) has no destination, name or headers")
        elif first and not called:
            raise self.error(element.line, f"the client {name!r} needs a <destination>")
        elif new and not called:
            raise self.error(element.line, f"the new client {name!r} needs a <destination>")
        elif not called and (display is not None or headers):
            raise self.error(element.line, f"the client {name!r} is not called without a <destination>")
        if by_id and (called or first):
            self.ids.add(name)
        elif by_id and name not in self.ids:
            raise self.error(named[0].line, f"nobody in the call can have the id {name!r}{_guess(name, self.ids)}")
        return Party(
            name, by_id, element.tag == "server", None if destination is None else self.place(destination, first),
            None if display is None else self.inside(display, ("text", "param", "uri")), headers,
        )

    def place(self, element: _Element, first: bool) -> Value:
        """Where a call goes."""
        value = self.inside(element, ("uri", "param", "initial", "header"))
        line = element.line
        if value.kind == "uri":
            self.uri(value.text, line)
        elif value.kind == "header" and not _TOKEN.fullmatch(value.text):
            raise self.error(line, f"{value.text!r} is no name of a header")
        if self.extern and (value.kind == "initial" or (first and value.kind == "header")):
            raise self.error(line, f"nobody has called: there is no destination of type {value.kind!r}")
        return value

    def inside(self, element: _Element, kinds: tuple[str, ...]) -> Value:
        self.only(element, "value")
        return self.value(self.need(element, "value"), kinds)

    def value(self, element: _Element, kinds: tuple[str, ...]) -> Value:
        kind = element.attributes.get("type", kinds[0] if "text" in kinds else "")
        if kind not in kinds:
            raise self.error(element.line, f"<{element.tag}> needs a type: {', '.join(kinds)}")
        if kind == "initial":
            self.only(element, attributes=("type",))
            return Value(kind)
        text = self.text(element, ("type",))
        if kind == "param":
            number = self.number(text, element.line, "a parameter")
            if not 1 <= number <= self.params:
                raise self.error(element.line, f"there is no parameter {number}: <scenario> says param={self.params}")
        return Value(kind, text)

    def header(self, element: _Element) -> tuple[Value, Value]:
        self.only(element, "name", "value")
        name = self.value(self.need(element, "name"), ("text", "param"))
        if name.kind == "text" and not _TOKEN.fullmatch(name.text):
            raise self.error(element.line, f"{name.text!r} is no name of a header")
        return name, self.value(self.need(element, "value"), ("text", "param"))

    def uri(self, text: str, line: int) -> str:
        if not _URI.fullmatch(text):
            raise self.error(line, f"{text!r} is no SIP URI")
        return text

    # -- rules

    def rules(self, element: _Element) -> dict[str, tuple[Rule, ...]]:
        self.only(element, "request")
        found: dict[str, list[Rule]] = {}
        later: list[tuple[str, _Element]] = []
        for method, group in self.groups(element):
            self.only(group, "rule", attributes=("name",))
            for child in group.children:
                later.append((method, child))
                self.ids.update(self.made(child))
        for method, child in later:
            found.setdefault(method, []).append(self.rule(method, child))
        return {method: tuple(rules) for method, rules in found.items()}

    def groups(self, element: _Element) -> Iterator[tuple[str, _Element]]:
        for request in element.children:
            if "name" in request.attributes:
                yield self.method(request.attributes["name"], request.line), request
            else:
                self.only(request, *(child.tag for child in request.children))
                for group in request.children:
                    if group.attributes:
                        raise self.error(group.line, f"<{group.tag}> has no attributes")
                    yield self.method(group.tag, group.line), group

    def method(self, text: str, line: int) -> str:
        if text.upper() not in METHODS:
            raise self.error(line, f"there are no rules for {text}; there are for {', '.join(METHODS)}")
        return text.upper()

    def made(self, rule: _Element) -> Iterator[str]:
        """The ids of clients that a rule calls."""
        for action in rule.children:
            for bridge in action.children:
                for client in bridge.children:
                    if any(child.tag == "destination" for child in client.children):
                        yield from (child.text.strip() for child in client.children if child.tag == "id")

    def rule(self, method: str, element: _Element) -> Rule:
        self.only(element, "condition", "action", attributes=("id",))
        number = self.number(element.attributes.get("id", ""), element.line, 'the attribute id="N" of <rule>')
        when, sender, sender_id = None, "", ""
        condition = self.one(element, "condition")
        if condition is not None:
            self.only(condition, "state", "sender")
            when = self.state(condition)
            its = self.one(condition, "sender")
            if its is not None:
                sender, sender_id = self.sender(its)
        action = self.need(element, "action")
        self.only(action, "state", "bridge", "send_reply", "end_dialog_leg", "delete_entity")
        bridge = self.one(action, "bridge")
        reply = self.one(action, "send_reply")
        made = Rule(
            number, element.line, when, sender, sender_id, self.state(action), None if bridge is None else self.bridge(bridge),
            None if reply is None else self.reply(reply), self.flag(action, "end_dialog_leg"), self.flag(action, "delete_entity"),
        )
        if made.bridge is None and made.reply is None and not made.end_leg and not made.delete:
            raise self.error(action.line, "this rule does nothing with the request: it would never be answered")
        if method == "INVITE" and (made.reply is None or made.reply[0] < 300):
            raise self.error(action.line, "an INVITE within the call can only be refused: write a <send_reply> of 300 or more")
        return made

    def sender(self, element: _Element) -> tuple[str, str]:
        self.only(element, "type", "id")
        kind, name = self.one(element, "type"), self.one(element, "id")
        role = "" if kind is None else self.text(kind)
        if role not in ("", "server", "client"):
            raise self.error(element.line, f"the <type> of a sender is server or client, not {role!r}")
        its_id = "" if name is None else self.text(name)
        if name is not None and its_id not in self.ids:
            raise self.error(name.line, f"nobody in the call can have the id {its_id!r}{_guess(its_id, self.ids)}")
        if not role and not its_id:
            raise self.error(element.line, "<sender> needs a <type>, an <id> or both")
        return role, its_id

    def reply(self, element: _Element) -> tuple[int, str]:
        self.only(element, "code", "reason")
        code = self.need(element, "code")
        number = self.number(self.text(code), code.line, "a status", 699)
        if number < 200:
            raise self.error(code.line, f"{number} is no final status")
        return number, self.text(self.need(element, "reason"))


def _guess(name: str, known: set[str]) -> str:
    near = [each for each in sorted(known) if each.lower() == name.lower()] or sorted(known)
    return f"; there is {', '.join(near)}" if near else ""


def parse(data: bytes, file: str, usual: str = "script") -> Scenario:
    """The scenario in a file; ``ScenarioError`` says what is wrong with it. ``usual``: its type, if it does not say."""
    parser = _Parser(file, usual)
    return parser.scenario(parser.tree(data))
