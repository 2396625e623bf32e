"""Alert rules: promtool accepts them, and each has tests, a runbook and metrics that exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from msgspec import Struct, ValidationError, convert

from lint.metric_names import DeclaredMetrics, undeclared_metrics

SEVERITIES = ("critical", "warning", "info")
ANNOTATIONS = ("summary", "description", "runbook_url")
RULES = "monitoring/prometheus/rules"
TESTS = "monitoring/prometheus/rule-tests"
RUNBOOKS = "docs/runbooks"
#: The sections of a runbook, in order.
SECTIONS = ("## Meaning", "## Check first", "## When to ignore it")
STEPS = ("1. ", "2. ", "3. ")
#: The list of all runbooks, which is not one itself.
INDEX = "README"
#: A query in a command of a runbook.
_QUERY = re.compile(r"promtool query instant \S+ '(.+)'")

Content = TypeVar("Content")


class Rule(Struct):
    """An alert or a recording rule; the other name is empty."""

    expr: str | int | float
    alert: str = ""
    record: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Group(Struct):
    """Rules that are evaluated one after another."""

    rules: list[Rule] | None = None


class RuleFile(Struct, forbid_unknown_fields=True):
    """A file of rules. Prometheus loads every file of the folder, so that nothing else may be in it."""

    groups: list[Group] | None = None


class Case(Struct):
    """The expected state of an alert at some time; it fires if `exp_alerts` is not empty."""

    alertname: str
    exp_alerts: list[Any] | None = None


class TestGroup(Struct):
    """Cases with the same input."""

    alert_rule_test: list[Case] | None = None


class TestFile(Struct):
    """A file for `promtool test rules`."""

    tests: list[TestGroup]


class Placed(NamedTuple):
    """A rule, and the file that it is in, below the root of the repository."""

    place: str
    rule: Rule

    def __str__(self) -> str:
        """Return the place and the name, as problems begin."""
        return f"{self.place}: {self.rule.alert or self.rule.record}"


def check_rules(root: Path, listed: Iterable[dict[str, str]]) -> Iterator[str]:
    """Yield the errors in the rules of the repository at `root`, their tests and runbooks.

    `listed` are the exporter's metrics, as `listed_metrics` returns them.
    """
    try:
        rules = list(read_rules(root))
        tests = list(_read_all(root, TESTS, TestFile))
    except ValueError as error:
        yield str(error)
        return
    alerts = [placed for placed in rules if placed.rule.alert]
    for placed in alerts:
        yield from _check_labels(placed)
    yield from _check_names(alerts)
    yield from _check_tests(alerts, tests)
    yield from _check_runbooks(root, alerts)
    declared = DeclaredMetrics(listed, [p.rule.record for p in rules if p.rule.record])
    for placed in rules:
        for problem in _problems_of(str(placed.rule.expr), declared):
            yield f"{placed}: {problem}"
    yield from _check_queries(root, declared)


def read_rules(root: Path) -> Iterator[Placed]:
    """Yield the rules of every file; ValueError naming the file if it holds something else."""
    for place, content in _read_all(root, RULES, RuleFile):
        for group in content.groups or ():
            for rule in group.rules or ():
                yield Placed(place, rule)


def _read_all(root: Path, folder: str, kind: type[Content]) -> Iterator[tuple[str, Content]]:
    """Yield (path below root, content) of every file of a folder; ValueError if it has another form."""
    for path in sorted((root / folder).glob("*.yml")):
        place = str(path.relative_to(root))
        try:
            yield place, convert(yaml.safe_load(path.read_text(encoding="utf-8")), kind)
        except (yaml.YAMLError, ValidationError) as error:
            message = f"{place}: {error}"
            raise ValueError(message) from error


def _check_labels(placed: Placed) -> Iterator[str]:
    severity = (placed.rule.labels or {}).get("severity")
    if severity not in SEVERITIES:
        yield f"{placed}: the label severity is {severity!r} (expected one of: {', '.join(SEVERITIES)})"
    annotations = placed.rule.annotations or {}
    for name in ANNOTATIONS:
        if not annotations.get(name):
            yield f"{placed}: the annotation {name} is missing"
    expected = f"{RUNBOOKS}/{placed.rule.alert}.md"
    if not annotations.get("runbook_url", expected).endswith(expected):
        yield f"{placed}: runbook_url does not end in {expected}"


def _check_names(alerts: Iterable[Placed]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for placed in alerts:
        name = placed.rule.alert
        if name in seen:
            yield f"{placed}: an alert with this name is in {seen[name]}, too"
        seen[name] = placed.place


def _check_tests(alerts: Iterable[Placed], files: Iterable[tuple[str, TestFile]]) -> Iterator[str]:
    """Yield the alerts without a test that they fire, or that they do not, and tests of other alerts."""
    names = {placed.rule.alert for placed in alerts}
    tested: dict[bool, set[str]] = {True: set(), False: set()}
    for place, content in files:
        for case in (case for group in content.tests for case in group.alert_rule_test or ()):
            tested[bool(case.exp_alerts)].add(case.alertname)
            if case.alertname not in names:
                yield f"{place}: {case.alertname}: there is no such alert in {RULES}"
    for placed in alerts:
        for fires, verb in ((True, "fires"), (False, "does not fire")):
            if placed.rule.alert not in tested[fires]:
                yield f"{placed}: no test in {TESTS} in which it {verb}"


def _check_runbooks(root: Path, alerts: Iterable[Placed]) -> Iterator[str]:
    pages = {path.stem: path for path in sorted((root / RUNBOOKS).glob("*.md"))}
    for placed in alerts:
        if placed.rule.alert not in pages:
            yield f"{placed}: the runbook {RUNBOOKS}/{placed.rule.alert}.md is missing"
    names = {placed.rule.alert for placed in alerts}
    index = pages.pop(INDEX).read_text(encoding="utf-8") if INDEX in pages else ""
    for name, path in pages.items():
        where = path.relative_to(root)
        if name not in names:
            yield f"{where}: there is no alert with this name in {RULES}"
        elif f"({name}.md)" not in index:
            yield f"{where}: {RUNBOOKS}/{INDEX}.md has no link to it"
        for what in _missing_parts(path.read_text(encoding="utf-8")):
            yield f"{where}: {what} is missing"


def _check_queries(root: Path, declared: DeclaredMetrics) -> Iterator[str]:
    """Yield the queries of runbooks that are not PromQL, or use metrics that do not exist."""
    for path in sorted((root / RUNBOOKS).glob("*.md")):
        for query in _QUERY.findall(path.read_text(encoding="utf-8")):
            for problem in _problems_of(query, declared):
                yield f"{path.relative_to(root)}: {problem}"


def _missing_parts(page: str) -> Iterator[str]:
    lines = page.splitlines()
    for section in SECTIONS:
        if section not in lines:
            yield f"the section `{section}`"
    steps = page.partition(SECTIONS[1])[2].partition(SECTIONS[2])[0]
    for step in STEPS:
        if f"\n{step}" not in steps:
            yield f"step `{step.strip()}` of `{SECTIONS[1]}`"
    if "`" not in steps:
        yield f"a command in `{SECTIONS[1]}`"


def _problems_of(query: str, declared: DeclaredMetrics) -> Iterator[str]:
    try:
        for metric in undeclared_metrics(query, declared):
            yield f"no collector declares the metric {metric}"
    except ValueError as error:
        yield f"{error} in the query {query}"
