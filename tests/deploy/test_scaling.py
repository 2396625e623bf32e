"""Scaling on lag: the shipped objects, and what the autoscaler does with them in a simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from scaling import SCALED_OBJECT, Autoscaler, Load, Policy, chart, read_scaling, simulate, table
from servers.prometheus import check_query


def documents(name: str) -> list[dict[str, Any]]:
    """Return the objects in a file of deploy/scaling."""
    return list(yaml.safe_load_all((SCALED_OBJECT.parent / name).read_text()))


def names_in(expression: Any) -> set[str]:
    """Return the names of the metrics in a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        return {str(expression.name)}
    if isinstance(expression, promql_parser.MatrixSelector):
        return names_in(expression.vector_selector)
    if isinstance(expression, promql_parser.AggregateExpr):
        return names_in(expression.expr)
    if isinstance(expression, promql_parser.Call):
        return set().union(*map(names_in, expression.args))
    return set()


def test_queries_of_keda() -> None:
    """Each trigger has a valid query of one metric of the backlog vocabulary, and its absence is an error."""
    (scaled,) = documents("keda.yaml")
    triggers = scaled["spec"]["triggers"]

    assert {
        it["name"]: names_in(promql_parser.parse(it["metadata"]["query"])) for it in triggers
    } == {
        "drain": {"messaging_drain_seconds"},
        "arrivals": {"messaging_published_messages_total"},
        "lag": {"messaging_lag_seconds"},
    }
    assert {it["metadata"]["ignoreNullValues"] for it in triggers} == {"false"}


@pytest.mark.live
def test_arrivals_are_counted_once(tmp_path: Path) -> None:
    """Two replicas of an exporter, or its pods before and after a restart, count the same messages."""
    (scaled,) = documents("keda.yaml")
    [query] = [
        it["metadata"]["query"] for it in scaled["spec"]["triggers"] if it["name"] == "arrivals"
    ]
    name = 'messaging_published_messages_total{system="rabbitmq",destination="orders"'
    series = {
        f'{name},target="a",instance="a:1",pod="a-1",replica="a"}}': "900+30x4",
        f'{name},target="a",instance="b:1",pod="b-1",replica="b"}}': "900+30x4",
        f'{name},target="a",instance="c:1",pod="b-2",replica="b"}}': "900+30x4",
        f'{name},target="b",instance="a:1",pod="a-1"}}': "900+15x4",
    }

    one = f'scalar(rate({name},instance="a:1",replica="a"}}[2m]))'
    check_query(tmp_path, series, f"{query} / {one}", 1.5)


def test_keda_without_prometheus_has_the_same_limits() -> None:
    """The object that asks /api/lag has the thresholds and limits of the one that asks Prometheus."""
    (first,), (second,) = documents("keda.yaml"), documents("keda-without-prometheus.yaml")
    triggers = [found["spec"].pop("triggers") for found in (first, second)]

    assert first["spec"] == second["spec"]
    assert [(it["metricType"], it["metadata"]["targetValue"]) for it in triggers[1]] == [
        (it["metricType"], it["metadata"]["threshold"]) for it in triggers[0]
    ]
    assert [it["metadata"]["valueLocation"] for it in triggers[1]] == [
        "destinations.0.drain_seconds",
        "destinations.0.published_per_second",
        "destinations.0.lag_seconds",
    ]


def test_adapter_has_the_same_metrics_and_limits() -> None:
    """The autoscaler with prometheus-adapter has the thresholds, limits and queries of KEDA's object."""
    (scaled,), (config, autoscaler) = documents("keda.yaml"), documents("prometheus-adapter.yaml")
    spec, other = scaled["spec"], autoscaler["spec"]
    targets = [it["external"]["target"] for it in other["metrics"]]
    triggers = spec["triggers"]
    labels = 'system="rabbitmq",destination="orders"'
    queries = [
        rule["metricsQuery"]
        .replace("<<.Series>>", rule["seriesQuery"])
        .replace("<<.LabelMatchers>>", labels)
        for rule in yaml.safe_load(config["data"]["config.yaml"])["externalRules"]
    ]

    assert [(it["type"], it.get("value") or it["averageValue"]) for it in targets] == [
        (it["metricType"], it["metadata"]["threshold"]) for it in triggers
    ]
    assert sorted(queries) == sorted(it["metadata"]["query"] for it in triggers)
    assert (other["minReplicas"], other["maxReplicas"]) == (
        spec["minReplicaCount"],
        spec["maxReplicaCount"],
    )
    assert other["behavior"] == spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


@pytest.mark.parametrize(
    "changes",
    [
        {"burst": 80},
        {"burst": 190, "burst_seconds": 900},
        {"burst": 500, "burst_seconds": 60},
        {"per_replica": 7},
        {"start_seconds": 90},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [1, 2])
def test_burst_is_drained_without_flapping(changes: dict[str, Any], seed: int) -> None:
    """Replicas rise once and fall once; messages are on time again within the threshold after the burst."""
    load = Load(seconds=2 * 3600, **changes)
    found = simulate(read_scaling(), load, seed=seed)

    assert found.reversals == 1
    assert max(found.lags) < 300
    assert found.drained_after < 300
    assert max(found.replicas) > found.replicas[0]
    assert found.replicas[-1] <= math.ceil(load.usual / 8) + 1
    assert found.lags[-1] <= 5


def test_steady_load_does_not_change_replicas() -> None:
    """Without a burst the number of replicas stays where it is."""
    found = simulate(read_scaling(), Load(burst=24.0), replicas=4)

    assert set(found.replicas) == {4}


def test_figures_of_the_documentation() -> None:
    """docs/kubernetes.md has the figures of the simulation, also of variants that flap."""
    page = (SCALED_OBJECT.parents[2] / "docs" / "kubernetes.md").read_text()

    assert "\n".join(table()) in page
    assert "\n".join(chart()) in page


def test_from_zero_and_back() -> None:
    """With a minimum of 0 the lag wakes the first replica, and the last one ends after the burst."""
    scaling = replace(read_scaling(), minimum=0)
    found = simulate(scaling, Load(usual=0), replicas=0)

    assert (found.replicas[1799], max(found.replicas), found.replicas[-1]) == (0, 20, 0)
    assert found.drained_after < 300


# The algorithm of the autoscaler, with one trigger: a value of 10 is wanted


@pytest.fixture
def scaler() -> Autoscaler:
    """Return an autoscaler with 4 replicas, that may add all at once."""
    scaling = replace(read_scaling().only("drain"), up=Policy(900, 60))
    (trigger,) = scaling.triggers
    return Autoscaler(replace(scaling, triggers=(replace(trigger, threshold=10),)), 4)


def decide(scaler: Autoscaler, now: int, drain: float) -> int:
    """Return the number of replicas after a decision."""
    scaler.decide(now, scaler.replicas, {"drain": drain})
    return scaler.replicas


def test_tolerance(scaler: Autoscaler) -> None:
    """A value within a tenth of the wanted one changes nothing; beyond it the ratio decides, rounded up."""
    assert [decide(scaler, 15, 10.9), decide(scaler, 30, 9.1), decide(scaler, 45, 11.1)] == [
        4,
        4,
        5,
    ]


def test_policy_of_adding(scaler: Autoscaler) -> None:
    """At most twice as many replicas within a minute, however large the value is."""
    scaler.scaling = replace(scaler.scaling, up=Policy(100, 60))

    assert [decide(scaler, now, 1000) for now in (15, 30, 45, 60, 75, 90)] == [8, 8, 8, 8, 16, 16]


def test_window_of_removing(scaler: Autoscaler) -> None:
    """Replicas end when no recommendation of the window wants them, a quarter in a minute."""
    assert decide(scaler, 15, 20) == 8
    counts = {now: decide(scaler, now, 0) for now in range(30, 900, 15)}

    assert counts[600] == 8
    assert counts[615] == 6
    assert counts[660] == 6
    assert counts[675] == 4
