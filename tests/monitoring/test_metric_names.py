import pytest

from lint.metric_names import DeclaredMetrics, declared_metrics, metrics_used, undeclared_metrics


@pytest.fixture(scope="module")
def declared() -> DeclaredMetrics:
    """Return what the exporter declares."""
    return declared_metrics(more=["instance:recorded:sum"])


@pytest.mark.parametrize(
    ("query", "used"),
    [
        ('sum by (a) (rate(x{b="c"}[5m])) / on (a) group_left y offset 5m', {"x", "y"}),
        ("max_over_time((x > y)[1d:5m]) unless -z", {"x", "y", "z"}),
        ('label_replace(x, "a", "y", "b", "") or absent(z)', {"x", "z"}),
        ('topk(3, x) + scalar(y) + count_values("v", z)', {"x", "y", "z"}),
        ('{__name__="x", a=~"b"}', {"x"}),
        ("vector(1)", set()),
    ],
)
def test_every_selector_of_a_query_is_found(query: str, used: set[str]) -> None:
    """Metrics are found in functions, subqueries, aggregations and both sides of an operator."""
    assert metrics_used(query) == used


@pytest.mark.parametrize(
    "query",
    [
        'up + ALERTS{alertstate="firing"} + scrape_duration_seconds',
        "node_memory_MemAvailable_bytes + node_vmstat_oom_kill + node_netstat_Tcp_CurrEstab",
        "mqtt_pipeline_latency_seconds_bucket + mqtt_pipeline_latency_seconds_count",
        "redis_latency_percentiles_usec_sum + redis_latency_percentiles_usec",
        "messaging_lag_seconds + rabbitmq_up + bts_exporter_build_info + process_open_fds",
        "bts_sensor_value + instance:recorded:sum",
    ],
)
def test_declared_metrics_are_known(query: str, declared: DeclaredMetrics) -> None:
    """Prometheus' own, those of collectors, templates and settings, and recorded ones are declared."""
    assert undeclared_metrics(query, declared) == []


@pytest.mark.parametrize(
    "name",
    ["redis_upp", "node_load2", "mqtt_pipeline_latency_seconds", "redis_up_sum"],
)
def test_other_metrics_are_not(name: str, declared: DeclaredMetrics) -> None:
    """A misspelled name, the bare name of a histogram, and a suffix that a gauge has not are not declared."""
    undeclared = undeclared_metrics(f"up + sum(rate({name}[5m]))", declared)

    assert undeclared == [name]


@pytest.mark.parametrize("query", ["sum(", "rate(x)", '{__name__=~"x.*"}'])
def test_query_that_cannot_be_checked_is_an_error(query: str) -> None:
    """What is not PromQL, and what selects metrics by a pattern, is refused."""
    with pytest.raises(ValueError, match=r"."):
        metrics_used(query)
