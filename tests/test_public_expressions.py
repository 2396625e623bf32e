"""How expressions of public rules are read, before a Prometheus is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from promql_parser import parse

from compatibility import reason
from public_rules import (
    Result,
    Rule,
    for_job,
    immediate,
    measure,
    read_rules,
    rule_file,
    selectors,
    without_comparisons,
)


def same(first: str, second: str) -> bool:
    """Return whether two expressions differ in spaces and brackets only."""
    one, other = (
        "".join(parse(text).prettify().split()).replace("(", "").replace(")", "")
        for text in (first, second)
    )
    return one == other


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("redis_up == 0", "redis_up == bool 0"),
        ("a / b > 0.8 and b > 0", "a / b > bool 0.8 and b > bool 0"),
        ("a < on (x) group_left (y) b", "a < bool on (x) group_left (y) b"),
        ("count(a == 3) < 2", "count(a == bool 3) < bool 2"),
        ("a > bool 1", "a > bool 1"),
        ("a > 1 unless b < 100", "a > bool 1"),
        ("rate(a[2h] offset 22h) > 0 or b offset 5m > 1", "rate(a[2h]) > bool 0 or b > bool 1"),
        ("sum by (x) (rate(a[5m]))", "sum by (x) (rate(a[5m]))"),
    ],
)
def test_comparisons_keep_all_series(expression: str, expected: str) -> None:
    """Without its conditions an expression returns data whenever its metrics have some."""
    assert same(without_comparisons(expression), expected)


def test_jobs_become_ours_and_other_labels_stay() -> None:
    """Every selector of a job selects ours, also in ranges."""
    found = for_job('rate(a{job="node", mode!="idle"}[5m]) > b{job=~"x.*"} or c', "ours")

    assert same(found, 'rate(a{job="ours", mode!="idle"}[5m]) > b{job=~"ours"} or c')


def test_selectors_are_listed_once_and_without_ranges() -> None:
    """Each selector of an expression is one that can be asked for."""
    found = selectors('rate(a{x="1"}[5m]) / a{x="1"} > b offset 5m')

    assert [one.replace("{}", "") for one in found] == ['a{x="1"}', "b"]


def test_a_rule_without_data_names_what_is_absent() -> None:
    """A rule returns data if its expression does; otherwise the selectors without series are listed."""
    rule = Rule("c", "HighLoad", "alert", "5m", "a / b > 1")

    with_data = measure(rule, lambda query: [query])
    without = measure(rule, lambda query: [query] if query.startswith("a{") else [])

    assert with_data == Result(rule, returns_data=True)
    assert not without.returns_data
    assert [one.replace("{}", "") for one in without.absent] == ["b"]


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        (("kube_pod_info{}",), "kube-state-metrics"),
        (("a{}", "node_md_disks{}"), "RAID"),
        (("redis_up{}",), ""),
        ((), ""),
    ],
)
def test_reasons(absent: tuple[str, ...], expected: str) -> None:
    """Metrics of hardware and programs that are not here are a reason; a metric of ours is not."""
    found = reason(Result(Rule("c", "r", "alert", "0m", "a"), absent=absent))

    assert expected in found
    assert bool(found) == bool(expected)


def test_rules_are_read_and_written_for_prometheus(tmp_path: Path) -> None:
    """Rules keep their collection, name and delay; those for two exporters are in different ones."""
    entry = {"source": "s", "kind": "alert", "for": "5m", "expr": 'a{job="node"} > 1'}
    names = [("rabbitmq", "RabbitmqDown"), ("rabbitmq", "RabbitmqNodeDown"), ("x", "HighLoad")]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps([entry | {"group": group, "name": name} for group, name in names]))

    rules = read_rules(file, "ours")
    groups = yaml.safe_load(rule_file([rules[0], immediate(rules[2])]))["groups"]

    assert [rule.collection for rule in rules] == [
        "s: rabbitmq (rabbitmq_exporter)",
        "s: rabbitmq (rabbitmq_prometheus)",
        "s: x",
    ]
    assert [
        (group["name"], rule["alert"], rule["for"]) for group in groups for rule in group["rules"]
    ] == [
        ("s: rabbitmq (rabbitmq_exporter)", "RabbitmqDown", "5m"),
        ("s: x", "HighLoad", "0s"),
    ]
    assert same(groups[0]["rules"][0]["expr"], 'a{job="ours"} > 1')
