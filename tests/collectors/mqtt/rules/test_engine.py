from __future__ import annotations

import pytest

from bts_collectors.mqtt.rules import topic_reader
from bts_collectors.mqtt.rules.config import Measure
from bts_collectors.mqtt.rules.event_time import LAG, SKEWED, EventLag, EventTime
from bts_collectors.mqtt.rules.payloads import REASONS, Path
from bts_collectors.mqtt.rules.series import declared
from bts_exporter import Duration
from collectors.mqtt.rules.rule_bench import COUNT, Bench, measure, rule


def test_gauge_shows_the_last_value() -> None:
    """For each set of labels of the topic."""
    bench = Bench(r=rule(m=measure()))
    for value in (1, 2.5):
        bench.send("bts/7/122", {"value": value})
    bench.send("bts/8/122", {"value": 9})

    assert bench.shown()["m"] == {("7", "122"): 2.5, ("8", "122"): 9}


def test_counter_counts_messages_and_shows_totals() -> None:
    """Without a path it counts every message; with a path it is the device's counter."""
    bench = Bench(r=rule(n_total=COUNT, e_total=measure(type="counter")))
    bench.send("bts/7/122", {"value": 40})
    bench.send("bts/7/122", b"garbage")

    assert bench.shown()["n_total"] == {("7", "122"): 2}
    assert bench.shown()["e_total"] == {("7", "122"): 40}


def test_histogram_has_its_buckets() -> None:
    """Topics with equal labels share a histogram."""
    bench = Bench(r=rule(h=measure(type="histogram", buckets=(1.0, 2.0), labels=("parameter",))))
    for station, value in enumerate((0.5, 1.5, 9)):
        bench.send(f"bts/{station}/122", {"value": value})

    assert bench.shown()["h"] == {
        ("_bucket", "122", "1.0"): 1,
        ("_bucket", "122", "2.0"): 2,
        ("_bucket", "122", "+Inf"): 3,
        ("_sum", "122"): 11,
        ("_count", "122"): 3,
    }


def test_message_that_fails_for_one_metric_serves_the_others() -> None:
    """A missing path is counted and affects only its metric."""
    bench = Bench(r=rule(m=measure(), o=Measure(path=Path.from_setting("other")), n_total=COUNT))
    bench.send("bts/7/122", {"other": 3})
    found = bench.shown()

    assert ("m" in found, found["o"], found["n_total"]) == (
        False,
        {("7", "122"): 3},
        {("7", "122"): 1},
    )
    assert found["mqtt_message_errors_total"]["r", "missing"] == 1
    assert found["mqtt_received_messages_total"] == {("r",): 1}
    assert found["mqtt_received_bytes_total"] == {("r",): len(b'{"other": 3}')}


@pytest.mark.parametrize("payload", [b"garbage", b'{"value": []}', b"{}"])
@pytest.mark.parametrize(("on_error", "kept"), [("keep", True), ("drop", False)])
def test_series_keeps_its_value_or_is_dropped_after_an_error(
    payload: bytes, on_error: str, kept: bool
) -> None:
    """Depending on on_error, until the next valid value."""
    bench = Bench(r=rule(m=measure(on_error=on_error)))
    bench.send("bts/7/122", {"value": 1})
    bench.send("bts/7/122", payload)
    after = bench.shown().get("m")
    bench.send("bts/7/122", {"value": 2})

    assert after == ({("7", "122"): 1} if kept else None)
    assert bench.shown()["m"] == {("7", "122"): 2}


def test_known_reasons_are_counted_from_zero() -> None:
    """The series exist before, so that the first failure is an increase."""
    errors = Bench(r=rule(m=measure())).shown()["mqtt_message_errors_total"]

    assert set(errors.values()) == {0}
    assert {reason for _, reason in errors} == set(REASONS)


# Retained messages


def test_retained_message_is_a_state_not_an_event() -> None:
    """A retained message sets gauges and device counters, is not counted and has no lag."""
    bench = Bench(
        r=rule(
            m=measure(),
            e_total=measure(type="counter"),
            n_total=COUNT,
            h=measure(type="histogram"),
            event_time=EventTime(path=Path.from_setting("t")),
            per_topic=True,
        )
    )
    bench.send("bts/7/122", {"value": 5, "t": 1}, retained=True)
    found = bench.shown()

    assert (found["m"], found["e_total"]) == ({("7", "122"): 5}, {("7", "122"): 5})
    assert found["n_total"] == {("7", "122"): 0}
    assert found["h"]["_count", "7", "122"] == 0
    assert found[LAG.name]["_count", "r"] == 0
    assert found[SKEWED.name]["r",] == 0
    assert found["mqtt_topic_messages_total"] == {("r", "bts/7/122"): 0}
    assert "mqtt_topic_last_message_timestamp_seconds" not in found


# Limits


def test_series_beyond_the_limit_are_not_made() -> None:
    """Existing series continue, and each dropped value is counted."""
    bench = Bench(r=rule(m=measure(), max_series=2))
    for station in range(5):
        bench.send(f"bts/{station}/122", {"value": station})
    bench.send("bts/0/122", {"value": 10})
    bench.send("bts/4/122", {"value": 10})
    found = bench.shown()

    assert found["m"] == {("0", "122"): 10, ("1", "122"): 1}
    assert found["mqtt_series"] == {("r",): 2}
    assert found["mqtt_series_limit_dropped_total"] == {("r",): 4}


def test_histogram_takes_the_room_of_all_its_samples() -> None:
    """The limit counts the series that Prometheus stores."""
    bench = Bench(r=rule(h=measure(type="histogram", buckets=(1.0, 2.0)), max_series=9))
    for station in range(2):
        bench.send(f"bts/{station}/122", {"value": 1})

    assert len(bench.shown()["h"]) == 5
    assert bench.shown()["mqtt_series"] == {("r",): 5}


def test_flood_of_topics_keeps_memory_bounded() -> None:
    """A client that publishes to ever new topics creates nothing beyond the limit."""
    bench = Bench(r=rule("#", m=measure(), per_topic=True, max_series=10))
    for number in range(1000):
        bench.send(f"flood/{number}", {"value": 1})

    assert len(bench.rules["r"].topics) == 3
    assert bench.rules["r"].size == 10
    assert bench.shown()["mqtt_received_messages_total"] == {("r",): 1000}


@pytest.mark.parametrize("length", [128, 129])
def test_level_that_is_too_long_does_not_become_a_label(length: int) -> None:
    """Publishers choose their topics, so label values are bounded."""
    bench = Bench(r=rule(m=measure(), per_topic=True))
    bench.send(f"bts/{'x' * length}/122", {"value": 1})
    found = bench.shown()

    assert ("m" in found) == (length == 128)
    assert found["mqtt_message_errors_total"]["r", "label"] == int(length == 129)


def test_topic_that_is_too_long_has_no_counts() -> None:
    """Even if the rule takes no label from it."""
    bench = Bench(r=rule("bts/#", m=measure(), per_topic=True))
    bench.send(f"bts/{'x' * 300}", {"value": 1})
    found = bench.shown()

    assert found["m"] == {(): 1}
    assert "mqtt_topic_messages_total" not in found
    assert found["mqtt_series_limit_dropped_total"] == {("r",): 1}


# Expiry


def test_series_without_messages_is_dropped() -> None:
    """At once from the page, later from memory; a new message creates it again."""
    bench = Bench(r=rule(m=measure(), n_total=COUNT, per_topic=True, expire=Duration(60)))
    bench.send("bts/7/122", {"value": 1})
    keep = bench.rules["r"].route("bts/7/122")
    assert keep
    bench.now += 61
    silent = bench.shown()
    bench.tick(0)
    swept = bench.shown()
    keep(b'{"value": 3}', False)  # by a handler that was found before
    back = bench.shown()

    assert not {"m", "n_total", "mqtt_topic_messages_total"} & set(silent)
    assert (silent["mqtt_series"], swept["mqtt_series"]) == ({("r",): 5}, {("r",): 0})
    assert swept["mqtt_series_expired_total"] == {("r",): 5}
    assert (back["m"], back["n_total"]) == ({("7", "122"): 3}, {("7", "122"): 1})


def test_expired_series_make_room() -> None:
    """Expired series no longer count for the limit."""
    bench = Bench(r=rule(m=measure(), expire=Duration(60), max_series=1))
    bench.send("bts/1/122", {"value": 1})
    refused = bench.rules["r"].route("bts/2/122")
    assert refused
    refused(b'{"value": 2}', False)
    bench.tick(61)
    refused(b'{"value": 2}', False)

    assert bench.shown()["m"] == {("2", "122"): 2}
    assert bench.shown()["mqtt_series_limit_dropped_total"] == {("r",): 1}


def test_messages_keep_a_series() -> None:
    """Even if several topics share it."""
    bench = Bench(r=rule(m=measure(labels=("parameter",)), expire=Duration(60)))
    for station in range(4):
        bench.send(f"bts/{station}/122", {"value": station})
        bench.tick(40)

    assert bench.shown()["m"] == {("122",): 3}


def test_series_stay_where_the_rule_says_so() -> None:
    """With an expiry of 0, series do not expire."""
    bench = Bench(r=rule(m=measure(), expire=Duration(0)))
    bench.send("bts/7/122", {"value": 1})
    bench.tick(1e9)

    assert bench.shown()["m"] == {("7", "122"): 1}


# Several rules


def test_two_rules_may_feed_one_metric() -> None:
    """With equal labels, the last message counts."""
    bench = Bench(
        a=rule("zigbee/{device}", m=measure()),
        b=rule("tele/{device}/x", m=Measure(path=Path.from_setting("v"))),
    )
    bench.send("zigbee/lamp", {"value": 1})
    bench.send("tele/fan/x", {"v": 2})
    bench.send("tele/lamp/x", {"v": 3})
    found = bench.shown()

    assert found["m"] == {("lamp",): 3, ("fan",): 2}
    assert found["mqtt_series"] == {("a",): 1, ("b",): 1}


def test_expiry_of_one_rule_leaves_the_others_series() -> None:
    """Each rule has its own expiry."""
    bench = Bench(
        a=rule("a/{device}", m=measure(), expire=Duration(60)),
        b=rule("b/{device}", m=measure(), expire=Duration(0)),
    )
    for topic in ("a/x", "b/y"):
        bench.send(topic, {"value": 1})
    bench.tick(61)

    assert bench.shown()["m"] == {("y",): 1}


def test_series_of_a_shared_metric_count_for_the_rule_that_created_them() -> None:
    """Dropping one makes room for the same rule."""
    patience = {"expire": Duration(60)}
    bench = Bench(
        a=rule("a/{device}", m=measure(), **patience), b=rule("b/{device}", m=measure(), **patience)
    )
    for topic in ("a/x", "b/y", "b/z"):
        bench.send(topic, {"value": 1})
    bench.tick(61)
    found = bench.shown()

    assert found["mqtt_series"] == {("a",): 0, ("b",): 0}
    assert found["mqtt_series_expired_total"] == {("a",): 1, ("b",): 2}


def test_metrics_are_known_from_the_settings() -> None:
    """Each once, before any message."""
    rules = {
        "a": rule(m=measure(), n_total=COUNT),
        "b": rule("x/{station}/{parameter}", m=measure()),
    }

    assert [metric.name for metric, _ in declared(rules)] == ["m", "n_total"]


# Lag and topics


def test_lag_is_measured_by_the_messages_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each rule; a message without event time is counted, and its value is used."""
    monkeypatch.setattr(topic_reader.time, "time", lambda: 1700000002.0)
    bench = Bench(r=rule(m=measure(), event_time=EventTime(path=Path.from_setting("t"))))
    bench.rules["r"].lag = EventLag(
        EventTime(path=Path.from_setting("t")), Path.from_setting("t"), lambda: 1700000002.0
    )
    bench.send("bts/7/122", {"value": 1, "t": 1700000000})
    bench.send("bts/7/122", {"value": 2, "t": "soon"})
    bench.send("bts/7/122", {"value": 3, "t": 1800000000})
    found = bench.shown()

    assert (found[LAG.name]["_count", "r"], found[LAG.name]["_sum", "r"]) == (1, 2)
    assert found[SKEWED.name] == {("r",): 1}
    assert found["m"] == {("7", "122"): 3}
    assert found["mqtt_message_errors_total"]["r", "event_time"] == 1


def test_topics_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, bytes and the time of the last message, with per_topic."""
    monkeypatch.setattr(topic_reader.time, "time", lambda: 1700000000.0)
    bench = Bench(r=rule(per_topic=True), quiet=rule())
    for payload in (b"12", b"345"):
        bench.send("bts/7/122", payload)
    found = bench.shown()

    assert found["mqtt_topic_messages_total"] == {("r", "bts/7/122"): 2}
    assert found["mqtt_topic_bytes_total"] == {("r", "bts/7/122"): 5}
    assert found["mqtt_topic_last_message_timestamp_seconds"] == {("r", "bts/7/122"): 1700000000}
    assert set(found["mqtt_message_errors_total"].values()) == {0}
