"""The module prometheus: statistics on a page of httpd that Prometheus reads.

Three parts: the ``statistics`` that the script names, as OpenSIPS shows them; what ``script_route`` adds; and, as an addition of
ours, what passes through the server with its labels (``sipgw_*``: method, status class, route; latencies as histograms) and what
the process uses (``process_*``, ``python_gc_*``), made by prometheus-client.

Departures from OpenSIPS, whose page cannot always be read: a sample stands there once, samples of one name stand together,
letters that no name may have become ``_``, and labels are escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from sipgw import __version__
from sipgw.core.events import run_alone
from sipgw.core.traffic import Histogram, Traffic
from sipgw.exports import REQUEST, Module, function, param, requires
from sipgw.interfaces import Server
from sipgw.modules.httpd import Httpd, one_part
from sipgw.script.run import Run
from sipgw.script.transform_text import Substitution
from sipgw.statistics import Counter, Statistic
from sipgw.web.answers import Answer, AnsweringResource
from sipgw.web.exposition import MEDIA_TYPE, TYPES, Labels, Page, is_label, is_name, name_of, parse_labels
from sipgw.web.site import Refusal

NONE, IN_NAME, IN_LABEL = range(3)
"""Where the group of a statistic is told (``group_mode``)."""
PATIENCE = 5.0
"""Seconds that ``script_route`` has."""
_PAGE, _FAMILY = "prometheus.page", "prometheus.family"
_header = re.compile(r"#\s*(TYPE|HELP)\s+(\S+)(?:\s+(.*))?").fullmatch
_sample = re.compile(r"([^{\s]+)\s*(?:\{(.*)\})?").fullmatch


@dataclass(frozen=True)
class Rule:
    """How names of a group become a name and labels: ``group: /pattern/name:label="value"/``."""

    group: str
    substitution: Substitution

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule; ``ValueError`` says what is wrong with it."""
        group, colon, expression = text.partition(":")
        if not colon or not group.strip() or not expression.strip():
            raise ValueError(f'bad rule {text!r}: write group: /^(.*)_(.*)$/\\1:label="\\2"/')
        return cls(group.strip(), Substitution(expression.strip(), lambda replacement: (replacement,)))

    def apply(self, name: str) -> tuple[str, Labels] | None:
        """The name and the labels that ``name`` becomes; None if the rule does not fit it."""
        if self.substitution.regex.search(name) is None:
            return None
        bare, colon, labels = str(self.substitution.apply(name) or "").partition(":")
        if not colon or not bare:
            return None
        try:
            return bare, parse_labels(labels)
        except ValueError:
            return None


def check_mode(value: int) -> None:
    """Refuse what is no way to tell the group."""
    if value not in (NONE, IN_NAME, IN_LABEL):
        raise ValueError(f"group_mode is 0, 1 or 2, not {value}")


def check_label(value: str) -> None:
    """Refuse what no label may be called."""
    if not is_label(value):
        raise ValueError(f"{value!r} cannot be the name of a label")


class Prometheus(Module):
    """Shows statistics to Prometheus, at ``/metrics`` of the module httpd."""

    name = "prometheus"

    root: str = param("metrics", "The path of the page, without its slash", check=one_part)
    prefix: str = param("opensips", "What the names of all statistics begin with")
    delimiter: str = param("_", "What stands between prefix, group and name; what no name may have becomes _")
    group_prefix: str = param("", "What the names of groups begin with")
    group_label: str = param("group", "The label that names the group, in group_mode 2", check=check_label)
    group_mode: int = param(NONE, "Where the group is told: 0 nowhere, 1 in the name, 2 in a label", check=check_mode)
    statistics: str = param(
        "", "The statistics to show, with blanks between; group: for all of a group; all for all", each="_add_statistics"
    )
    labels: str = param(
        "",
        'What makes labels of the names of a group: group: /^(.*)_(.*)$/\\1:gateway=\\"\\2\\"/',
        check=Rule.parse,
        each="_add_rule",
    )
    script_route: str = param("", "The route that adds samples of its own, at each request")
    traffic: int = param(1, "1: sipgw_* too: messages and latencies by method, status class and route; 0: without")
    httpd: Httpd = requires("httpd")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        self._wanted: list[str] = []
        self._rules: list[Rule] = []
        self._registry: Any = None
        self._helps: dict[tuple[str, str], str] = {}
        """What statistics of modules are, by group and name."""
        self._traffic: Traffic | None = None
        super().__init__(server, **parameters)

    def _add_statistics(self, text: str) -> None:
        self._wanted += text.split()

    def _add_rule(self, text: str) -> None:
        self._rules.append(Rule.parse(text))

    async def start(self) -> None:
        """Show the page, and count what passes from now on."""
        user = self.server.user
        if self.script_route and self.script_route not in user.routes.named:
            raise ValueError(f"prometheus: there is no route[{self.script_route}] (script_route)")
        self._helps = {
            (module.name, declared.name or key): declared.doc
            for module in self.server.modules.values() for key, declared in module.exports.statistics.items()
        }
        if self.traffic:
            self._traffic = Traffic(user)
            self._registry = make_registry(self._traffic)
            self._traffic.start()
        self.httpd.mount(self.root, MetricsResource(self), self.name)

    async def stop(self) -> None:
        """Show nothing, and count no more."""
        self.httpd.unmount(self.root)
        if self._traffic is not None:
            self._traffic.stop()

    # -- the page

    async def page(self) -> bytes:
        """All that is to be told now."""
        page = Page()
        for statistic in self._selected():
            self._show(page, statistic)
        if self.script_route:
            await self._ask_script(page)
        text = page.write()
        if self._traffic is not None:
            from prometheus_client import generate_latest

            self._traffic.follow()
            text += generate_latest(self._registry)
        return text

    def _selected(self) -> Iterator[Statistic]:
        """The statistics that the script wants, groups first, as OpenSIPS shows them."""
        known = self.server.statistics
        if "all" in self._wanted:
            yield from known
            return
        for name in self._wanted:
            if name.endswith(":"):
                yield from known.group(name[:-1])
        for name in self._wanted:
            if not name.endswith(":") and (found := known.find(name)) is not None:
                yield found

    def _show(self, page: Page, statistic: Statistic) -> None:
        group = f"{self.group_prefix}{statistic.group}"
        name = statistic.name
        labels: Labels = ()
        for rule in self._rules:
            if rule.group == statistic.group and (made := rule.apply(name)) is not None:
                name, labels = made
                break
        parts = [self.prefix, *([group] if self.group_mode == IN_NAME else []), name]
        if self.group_mode == IN_LABEL:
            labels = (*labels, (self.group_label, group))
        try:
            value = statistic.read()
        except Exception as error:
            self.server.user.broken(error)
            return
        kind = "counter" if isinstance(statistic, Counter) else "gauge"
        help = self._helps.get((statistic.group, statistic.name), "")
        page.add(page.family(name_of(self.delimiter.join(filter(None, parts))), kind, help), value, labels)

    # -- the script

    async def _ask_script(self, page: Page) -> None:
        """Let ``script_route`` add what it pushes, and what it returns as JSON."""
        user = self.server.user
        route = user.routes.named.get(self.script_route)
        if route is None:
            self._complain(f"there is no route[{self.script_route}] any more")
            return
        run = run_alone(route, user)
        run.keep()[_PAGE] = page
        ended: Deferred[Any] = Deferred()
        user.execute(route, run, lambda result: None if ended.called else ended.callback(result))
        ended.addTimeout(PATIENCE, self.server.reactor)
        try:
            await ended
        except TimeoutError:
            self._complain(f"route[{self.script_route}] has not ended after {PATIENCE:g} s")
            return
        finally:
            run.keep().pop(_PAGE, None)
        if run.returns:
            self._add_json(page, str(run.returns[0]))

    def _add_json(self, page: Page, text: str) -> None:
        """Take what the route returned: a list of headers with their values."""
        try:
            entries = json.loads(text, strict=False)  # a line end in a text of the script is one
        except ValueError as error:
            self._complain(f"what route[{self.script_route}] returns is no JSON: {error}")
            return
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                add_entry(page, entry)
            except ValueError as error:
                self._complain(f"route[{self.script_route}]: {error}")

    def _complain(self, text: str) -> None:
        self.server.user.log_rarely(("prometheus", text), -1, f"prometheus: {text}")

    @function(REQUEST)
    def prometheus_declare_stat(self, run: Run, name: str, type: str | None = None, help: str | None = None) -> bool:
        """Begin a statistic of the script's own, a gauge unless ``type`` says otherwise; only in ``script_route``."""
        page: Page | None = run.keep().get(_PAGE)
        if page is None:
            self._complain("prometheus_declare_stat is for the script_route only")
            return False
        kind = type or "gauge"
        if not is_name(name) or kind not in TYPES:
            self._complain(f"prometheus_declare_stat: {name!r} cannot be a {kind}")
            return False
        run.keep()[_FAMILY] = page.family(name, kind, help or "")
        return True

    @function(REQUEST)
    def prometheus_push_stat(self, run: Run, value: int, label_name: str | None = None, label_value: str | None = None) -> bool:
        """Add a value to what was declared last: with one label, or with all of ``label_name``, ``{name="value",...}``."""
        kept = run.keep()
        page: Page | None = kept.get(_PAGE)
        family = kept.get(_FAMILY)
        if page is None or family is None:
            self._complain("prometheus_push_stat: declare a statistic first, in the script_route")
            return False
        try:
            if label_name is not None and label_value is not None:
                check_label(label_name)
                labels: Labels = ((label_name, label_value),)
            else:
                labels = parse_labels((label_name or "").strip().removeprefix("{").removesuffix("}"))
        except ValueError as error:
            self._complain(f"prometheus_push_stat: {error}")
            return False
        if not page.add(family, value, labels):
            self._complain(f"prometheus_push_stat: {family.name} has a value with these labels already")
            return False
        return True


def add_entry(page: Page, entry: Any) -> None:
    """Add one ``{"header": "# TYPE name gauge", "values": [{"name": ..., "value": ...}]}``; ``ValueError`` if it is none."""
    header, values = (entry.get("header"), entry.get("values")) if isinstance(entry, dict) else (None, None)
    if not isinstance(header, str) or not isinstance(values, list):
        raise ValueError("each entry needs a header, a text, and values, a list")
    kinds: dict[str, str] = {}
    helps: dict[str, str] = {}
    for line in filter(None, map(str.strip, header.splitlines())):
        match = _header(line)
        if match is None or (match[1] == "TYPE" and match[3] not in TYPES):
            raise ValueError(f"bad header {line!r}: write # TYPE name gauge")
        (kinds if match[1] == "TYPE" else helps)[match[2]] = match[3] or ""
    for each in values:
        name, value = (each.get("name"), each.get("value")) if isinstance(each, dict) else (None, None)
        match = _sample(name) if isinstance(name, str) else None
        if match is None or not is_name(match[1]) or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"bad value {each!r}: it needs a name, and a number")
        labels = parse_labels(match[2] or "")
        page.add(page.family(match[1], kinds.get(match[1], "untyped"), helps.get(match[1], "")), value, labels)


class MetricsResource(AnsweringResource):
    """Answers GET with the page."""

    def __init__(self, module: Prometheus) -> None:
        super().__init__("prometheus", module.server.user.log)
        self._module = module

    def refusal(self, request: Any) -> Refusal | None:
        """Other methods than GET and HEAD are refused."""
        if request.method not in (b"GET", b"HEAD"):
            return Refusal(405, "GET the page.", {"Allow": "GET, HEAD"})
        return None

    async def answer(self, request: Any) -> Answer:
        """The page as it is now."""
        return Answer(iter([await self._module.page()]), {"Content-Type": MEDIA_TYPE})


# ---- our own ----


def make_registry(traffic: Traffic) -> Any:
    """What prometheus-client shows of ``traffic`` and of the process; ``ValueError`` where it is not installed."""
    try:
        from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
    except ImportError:
        raise ValueError("it needs prometheus-client: pip install sipgw[prometheus], or set traffic to 0") from None

    registry = CollectorRegistry()
    registry.register(TrafficCollector(traffic))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class TrafficCollector:
    """Gives prometheus-client what a ``Traffic`` has counted."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterator[Any]:
        """All families."""
        from prometheus_client.core import CounterMetricFamily, InfoMetricFamily

        traffic = self._traffic
        yield InfoMetricFamily("sipgw", "The server", {"version": __version__})
        requests = CounterMetricFamily("sipgw_requests", "Requests that came, repetitions too", labels=["method"])
        for method, count in sorted(traffic.requests.items()):
            requests.add_metric([method], count)
        yield requests
        responses = CounterMetricFamily("sipgw_responses", "Responses that came, repetitions too", labels=["method", "class"])
        for key, count in sorted(traffic.responses.items()):
            responses.add_metric(list(key), count)
        yield responses
        yield _histograms(
            "sipgw_answer_seconds",
            "From a request to the final response that was sent; an INVITE has rung by then",
            ["method", "class"],
            traffic.answers,
        )
        routes = {(label,): histogram for label, histogram in traffic.routes.items() if histogram.count}
        yield _histograms("sipgw_route_seconds", "From the beginning of a route to its end, waiting too", ["route"], routes)


def _histograms(name: str, help: str, labels: list[str], found: dict[Any, Histogram]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, help, labels=labels)
    for key, histogram in sorted(found.items()):
        family.add_metric(list(key), list(histogram.buckets()), histogram.sum)
    return family
