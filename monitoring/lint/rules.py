"""Alert rules: promtool accepts them, and each has tests, a runbook and metrics that exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

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


class Rule(NamedTuple):
    """A rule, and the file that it is in, below the root of the repository."""

    place: str
    content: dict[str, Any]

    @property
    def alert(self) -> str:
        """Return the name of the alert; empty for a recording rule."""
        return str(self.content.get("alert", ""))


def check_rules(root: Path, listed: Iterable[dict[str, str]]) -> Iterator[str]:
    """Yield what is wrong with the rules of the repository at `root`, their tests and runbooks.

    `listed` are the exporter's metrics, as `listed_metrics` returns them.
    """
    try:
        rules = list(read_rules(root))
        tests = list(_read_all(root, TESTS))
    except ValueError as error:
        yield str(error)
        return
    alerts = [rule for rule in rules if rule.alert]
    for rule in alerts:
        yield from _check_labels(rule)
    yield from _check_names(alerts)
    yield from _check_tests({rule.alert: rule.place for rule in alerts}, tests)
    yield from _check_runbooks(root, {rule.alert: rule.place for rule in alerts})
    recorded = [rule.content["record"] for rule in rules if "record" in rule.content]
    yield from _check_metrics(root, rules, DeclaredMetrics(listed, recorded))


def read_rules(root: Path) -> Iterator[Rule]:
    """Yield the rules of every file; ValueError naming the file if it holds something else."""
    for place, content in _read_all(root, RULES):
        if not isinstance(content, dict) or set(content) != {"groups"}:
            message = f"{place}: expected `groups` and nothing else, because Prometheus loads every file of this folder"
            raise ValueError(message)
        for group in content["groups"]:
            for rule in group.get("rules") or ():
                yield Rule(place, rule)


def _read_all(root: Path, folder: str) -> Iterator[tuple[str, Any]]:
    """Yield (path below root, content) of every file of a folder; ValueError if it is not YAML."""
    for path in sorted((root / folder).glob("*.yml")):
        place = str(path.relative_to(root))
        try:
            yield place, yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            message = f"{place}: {error}"
            raise ValueError(message) from error


def _check_labels(rule: Rule) -> Iterator[str]:
    where = f"{rule.place}: {rule.alert}"
    severity = rule.content.get("labels", {}).get("severity")
    if severity not in SEVERITIES:
        yield f"{where}: the label severity is {severity!r} (expected one of: {', '.join(SEVERITIES)})"
    annotations = rule.content.get("annotations", {})
    for name in ANNOTATIONS:
        if not annotations.get(name):
            yield f"{where}: the annotation {name} is missing"
    expected = f"{RUNBOOKS}/{rule.alert}.md"
    if not str(annotations.get("runbook_url", expected)).endswith(expected):
        yield f"{where}: runbook_url does not end in {expected}"


def _check_names(alerts: Iterable[Rule]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for rule in alerts:
        if rule.alert in seen:
            yield f"{rule.place}: {rule.alert}: an alert with this name is in {seen[rule.alert]}, too"
        seen[rule.alert] = rule.place


def _check_tests(alerts: dict[str, str], files: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the alerts without a test that they fire, or that they do not, and tests of other alerts."""
    tested: dict[bool, set[str]] = {True: set(), False: set()}
    for place, content in files:
        for group in content["tests"]:
            for case in group.get("alert_rule_test") or ():
                tested[bool(case.get("exp_alerts"))].add(case["alertname"])
                if case["alertname"] not in alerts:
                    yield f"{place}: {case['alertname']}: there is no such alert in {RULES}"
    for alert, place in alerts.items():
        for fires, verb in ((True, "fires"), (False, "does not fire")):
            if alert not in tested[fires]:
                yield f"{place}: {alert}: no test in {TESTS} in which it {verb}"


def _check_runbooks(root: Path, alerts: dict[str, str]) -> Iterator[str]:
    pages = {path.stem: path for path in sorted((root / RUNBOOKS).glob("*.md"))}
    for alert, place in alerts.items():
        if alert not in pages:
            yield f"{place}: {alert}: the runbook {RUNBOOKS}/{alert}.md is missing"
    index = pages.pop(INDEX).read_text(encoding="utf-8") if INDEX in pages else ""
    for name, path in pages.items():
        where = path.relative_to(root)
        if name not in alerts:
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


def _check_metrics(root: Path, rules: Iterable[Rule], declared: DeclaredMetrics) -> Iterator[str]:
    for place, content in rules:
        name = content.get("alert") or content.get("record")
        for problem in _problems_of(str(content["expr"]), declared):
            yield f"{place}: {name}: {problem}"
    yield from _check_queries(root, declared)


def _problems_of(query: str, declared: DeclaredMetrics) -> Iterator[str]:
    try:
        for metric in undeclared_metrics(query, declared):
            yield f"no collector declares the metric {metric}"
    except ValueError as error:
        yield f"{error} in the query {query}"
