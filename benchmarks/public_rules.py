"""Alert and recording rules that people use today, and which of their expressions return data.

The rules are not part of this repository. They are read from a JSON file: a list of objects with `source`,
`group`, `name`, `kind` (alert or record), `for` and `expr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from promql_parser import BinaryExpr, Expr, Matcher, Matchers, MatrixSelector, VectorSelector

COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}
OFFSET = re.compile(r" offset -?\w+$")
#: One group has rules for two exporters of RabbitMQ. This is the first one for RabbitMQ's own.
MIXED, FIRST_NATIVE = "rabbitmq", "RabbitmqNodeDown"
#: An instant query: returns the series of an expression.
Query = Callable[[str], Sequence[object]]


@dataclass(frozen=True)
class Rule:
    """One rule of a public collection; `kind` is alert or record, `pending` is its `for`."""

    collection: str
    name: str
    kind: str
    pending: str
    expression: str


@dataclass(frozen=True)
class Result:
    """Whether a rule returns data, and the selectors without series if it does not."""

    rule: Rule
    returns_data: bool = False
    absent: tuple[str, ...] = ()


def read_rules(path: Path, job: str) -> list[Rule]:
    """Return the rules of a file; those that select a job by name select `job` instead."""
    rules: list[Rule] = []
    exporter = "rabbitmq_exporter"
    for entry in json.loads(path.read_text()):
        group = entry["group"]
        if group == MIXED:
            exporter = "rabbitmq_prometheus" if entry["name"] == FIRST_NATIVE else exporter
            group = f"{group} ({exporter})"
        collection = f"{entry['source']}: {group}"
        expression = for_job(entry["expr"], job)
        rules.append(Rule(collection, entry["name"], entry["kind"], entry["for"], expression))
    return rules


def for_job(expression: str, job: str) -> str:
    """Return an expression that selects `job` wherever it selected a job by name."""

    def change(node: Expr) -> Expr | None:
        if not isinstance(node, VectorSelector):
            return None
        matchers = [
            Matcher(one.op, one.name, job if one.name == "job" else one.value)
            for one in node.matchers.matchers
        ]
        node.matchers = Matchers(matchers)
        return _parsed(str(node))

    return promql_parser.transform(_parsed(expression), post_visit=change).prettify()


def without_comparisons(expression: str) -> str:
    """Return an expression that returns data whenever its metrics are there.

    Comparisons keep all series (`a > bool 1`), `unless` removes none, and data is recent: a new Prometheus has
    nothing at an offset.
    """

    def change(node: Expr) -> Expr | None:
        if isinstance(node, VectorSelector | MatrixSelector):
            return _parsed(OFFSET.sub("", str(node)))
        if not isinstance(node, BinaryExpr):
            return None
        operator = str(node.op)
        if operator == "unless":
            return node.lhs
        if operator not in COMPARISONS:
            return None
        modifier = str(node.modifier or "bool")
        if "bool" not in modifier:
            modifier = f"bool {modifier}"
        return _parsed(f"({node.lhs.prettify()}) {operator} {modifier} ({node.rhs.prettify()})")

    return promql_parser.transform(_parsed(expression), post_visit=change).prettify()


def selectors(expression: str) -> list[str]:
    """Return the selectors of an expression, without ranges and offsets."""
    found: list[str] = []

    def visit(node: Expr) -> None:
        if isinstance(node, MatrixSelector):
            found.append(str(node.vector_selector))
        elif isinstance(node, VectorSelector):
            found.append(str(node))

    promql_parser.walk(_parsed(expression), pre_visit=visit)
    return list(dict.fromkeys(OFFSET.sub("", one) for one in found))


def measure(rule: Rule, query: Query) -> Result:
    """Return whether a rule could ever return data: without its comparisons, it returns series."""
    if query(without_comparisons(rule.expression)):
        return Result(rule, returns_data=True)
    absent = tuple(one for one in selectors(rule.expression) if not query(one))
    return Result(rule, absent=absent)


def immediate(rule: Rule) -> Rule:
    """Return an alert that fires as soon as its expression holds."""
    return replace(rule, pending="0s")


def rule_file(rules: Sequence[Rule]) -> str:
    """Return a file of rules for Prometheus, in the groups of their collections."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        entry: dict[str, Any] = {rule.kind: rule.name, "expr": rule.expression}
        if rule.kind == "alert":
            # The label that recording rules of RabbitMQ's operator select alerts by.
            entry |= {"for": rule.pending, "labels": {"rulesgroup": "rabbitmq"}}
        groups.setdefault(rule.collection, []).append(entry)
    content = [{"name": name, "rules": entries} for name, entries in groups.items()]
    return yaml.safe_dump({"groups": content}, sort_keys=False)


def _parsed(expression: str) -> Expr:
    parsed: Expr = promql_parser.parse(expression)
    return parsed
