"""Labels and filters from payloads and properties, as in other exporters and Telegraf."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bts_collectors.mqtt.client.topics import Pattern
from bts_collectors.mqtt.rules.config import Choice, Measure, Rule
from bts_collectors.mqtt.rules.payloads import Path
from collectors.mqtt.rules.rule_bench import COUNT, Bench, rule


def path(text: str) -> Path:
    """Return a path."""
    return Path.from_setting(text)


def at(text: str, **settings: Any) -> Measure:
    """Return a measure of what is at a path."""
    return Measure(path=path(text), **settings)


def errors(bench: Bench, reason: str) -> float:
    """Return the number of errors with a reason."""
    return bench.shown()["mqtt_message_errors_total"]["r", reason]


WEATHER = {"model": "WH2", "id": 196, "temperature_C": 13.1}


def test_labels_come_from_the_payload() -> None:
    """Devices that share a topic are distinguished by model and id."""
    labels = {"model": path("model"), "id": path("id")}
    bench = Bench(
        r=rule("rtl_433/{host}/events", payload_labels=labels, t=at("temperature_C"), count=COUNT)
    )
    bench.send("rtl_433/a/events", WEATHER)
    bench.send("rtl_433/a/events", WEATHER | {"id": 197.0, "temperature_C": 5})
    bench.send("rtl_433/a/events", {"temperature_C": 1})
    found = bench.shown()

    assert found["t"] == {("a", "WH2", "196"): 13.1, ("a", "WH2", "197"): 5, ("a", "", ""): 1}
    assert found["count"] == {("a", "WH2", "196"): 1, ("a", "WH2", "197"): 1, ("a", "", ""): 1}


def test_metric_chooses_among_labels_and_has_constant_ones() -> None:
    """A metric always has its own labels."""
    bench = Bench(
        r=rule(
            "{host}/events",
            payload_labels={"model": path("model")},
            t=at("temperature_C", labels=("host",), const_labels={"unit": "celsius"}),
            by_id=at("temperature_C", labels=(), payload_labels={"id": path("id")}),
        )
    )
    bench.send("a/events", WEATHER)
    found = bench.shown()

    assert found["t"] == {("a", "celsius"): 13.1}
    assert found["by_id"] == {("196",): 13.1}


@pytest.mark.parametrize("bad", [{"a": 1}, [1], "x" * 129])
def test_invalid_label_affects_only_its_metric(bad: object) -> None:
    """Objects, lists and long texts are counted; other metrics keep their values."""
    bench = Bench(r=rule("x", m=at("v", payload_labels={"id": path("id")}), other=at("v")))
    bench.send("x", {"v": 1, "id": bad})

    assert "m" not in bench.shown()
    assert bench.shown()["other"] == {(): 1}
    assert errors(bench, "label") == 1


def test_labels_from_the_payload_are_bounded() -> None:
    """By max_series, like all series; dropped values are counted."""
    bench = Bench(r=rule("x", m=at("v", payload_labels={"id": path("id")}), max_series=3))
    for number in range(5):
        bench.send("x", {"v": 1, "id": number})
    found = bench.shown()

    assert len(found["m"]) == 3
    assert found["mqtt_series_limit_dropped_total"] == {("r",): 2}


def test_series_that_came_and_went_are_not_kept() -> None:
    """A topic with ever new labels takes memory only for existing series."""
    from bts_exporter import Duration  # noqa: PLC0415

    settings = {"max_series": 200, "expire": Duration(10)}
    bench = Bench(r=rule("x", m=at("v", payload_labels={"id": path("id")}), **settings))
    reader = bench.rules["r"].route("x").__self__  # type: ignore[union-attr]
    for number in range(2000):
        reader.take(b'{"v": 1, "id": %d}' % number, False)
        if number % 100 == 99:
            bench.tick(11)

    assert len(reader._varying[0].series) <= 300
    assert bench.shown()["mqtt_series_limit_dropped_total"] == {("r",): 0}


def test_wildcard_over_keys_makes_a_series_of_each() -> None:
    """For devices with several sensors in one message."""
    bench = Bench(r=rule("shellies/{device}/ext", m=at("{sensor}.tC", const_labels={"type": "x"})))
    bench.send("shellies/a/ext", {"0": {"tC": 25.9}, "1": {"tC": 15.9}, "2": {"tC": "broken"}})

    assert bench.shown()["m"] == {("a", "0", "x"): 25.9, ("a", "1", "x"): 15.9}
    assert errors(bench, "wrong_type") == 1


def test_elements_with_an_id_make_a_series_each() -> None:
    """A message of a gateway may have many values."""
    bench = Bench(r=rule("kesy", m=at("values[{id=id}].v")))
    bench.send("kesy", {"values": [{"id": "Birinci", "v": 3}, {"id": "Ikinci", "v": True}]})

    assert bench.shown()["m"] == {("Birinci",): 3, ("Ikinci",): 1}


def test_several_values_for_one_series_are_an_error() -> None:
    """Several values for one series are an error, except for a histogram, which observes all of them."""
    both = {"m": at("*.v"), "h": at("*.v", type="histogram", buckets=(10.0,))}
    bench = Bench(r=rule("x", **both))
    bench.send("x", {"a": {"v": 1}, "b": {"v": 2}})
    found = bench.shown()

    assert "m" not in found
    assert found["h"]["_count",] == 2
    assert errors(bench, "label") == 1


def test_info_replaces_its_labels() -> None:
    """Only the latest labels of each topic remain."""
    info = Measure(type="info", payload_labels={"version": path("fw.version")})
    bench = Bench(r=rule("dev/{device}", device_info=info))
    bench.send("dev/a", {"fw": {"version": "1.0"}})
    bench.send("dev/b", {"fw": {"version": "1.0"}})
    bench.send("dev/a", {"fw": {"version": "1.1"}}, retained=True)

    assert bench.shown()["device_info"] == {("a", "1.1"): 1, ("b", "1.0"): 1}
    assert bench.shown()["mqtt_series"] == {("r",): 2}


def test_info_of_a_text() -> None:
    """The payload itself is the label."""
    info = Measure(type="info", payload_labels={"mode": path("$")})
    bench = Bench(r=rule("{device}/mode", format="text", mode_info=info))
    bench.send("a/mode", b"heating")

    assert bench.shown()["mode_info"] == {("a", "heating"): 1}


def test_user_properties_become_labels() -> None:
    """A missing property (MQTT 5) is an empty label."""
    bench = Bench(r=rule("x", m=at("v"), property_labels={"room": "room", "floor": "floor"}))
    handler = bench.rules["r"].route("x")
    assert handler
    user = b"\x26\x00\x04room\x00\x04hall" + b"\x26\x00\x01z\x00\x01z"
    handler(b'{"v": 1}', False, b"\x01\x01\x02\x00\x00\x00\x09\x0b\x80\x01\x03\x00\x01t" + user)
    handler(b'{"v": 2}', False)
    handler(b'{"v": 3}', False, user[:9])  # cut off

    assert bench.shown()["m"] == {("hall", ""): 1, ("", ""): 3}


def test_messages_are_selected_by_their_payload() -> None:
    """Other messages are only counted as filtered."""
    where = {"type": Choice.from_setting(["temp", 7]), "ok": Choice.from_setting(True)}
    bench = Bench(r=rule("x", where=where, m=at("v"), count=COUNT))
    for kind, ok, value in (("temp", True, 1), (7, True, 2), ("hum", True, 3), ("temp", False, 4)):
        bench.send("x", {"type": kind, "ok": ok, "v": value})
    bench.send("x", {"v": 5})
    bench.send("x", b"{")
    found = bench.shown()

    assert (found["m"], found["count"]) == ({(): 2}, {(): 2})
    assert found["mqtt_filtered_messages_total"] == {("r",): 3}
    assert errors(bench, "malformed") == 1


def test_messages_are_selected_by_their_topic() -> None:
    """By excluded topics, and patterns for levels."""
    bench = Bench(
        r=rule(
            "bts/{station}/#",
            ignore_topics=(Pattern.from_setting("bts/+/debug/#"),),
            levels={"station": re.compile(r"\d+")},
            count=COUNT,
        )
    )
    for topic in ("bts/7/a", "bts/7/debug", "bts/7/debug/x", "bts/x/a", "bts/8"):
        bench.send(topic, {})

    assert bench.shown()["count"] == {("7",): 1, ("8",): 1}
    assert bench.shown()["mqtt_received_messages_total"] == {("r",): 2}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"m": at("{a}.b", labels=()), "payload_labels": {"c": path("{x}.y")}},
            "without wildcards",
        ),
        ({"m": at("{station}.b")}, "a label is named twice"),
        ({"m": Measure(type="info", path=path("a"))}, "an info metric has no value"),
        ({"m": at("a"), "levels": {"x": re.compile("")}}, "levels: x not found in topic"),
        ({"m": at("a"), "where": {"a[": Choice.from_setting(1)}}, "where: 'a['"),
        ({"m": at("a", const_labels={"x": "y" * 129})}, "at most 128 characters"),
        ({"m": at("a", const_labels={"True": "y"})}, "YAML reads on, yes or true as True"),
        ({"None": at("a")}, "YAML reads null or ~ as None"),
        ({"y": at("a")}, "use a longer name"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    """With the cause, before any message."""
    with pytest.raises(ValueError, match=re.escape(words)):
        rule("bts/{station}", **settings)


# Series that end


STATE = {"m": at("v"), "total": at("v", type="counter"), "count": COUNT}


def test_deleted_retained_message_removes_the_series() -> None:
    """An empty payload deletes a retained message; it is not an error."""
    spread = at("{s}.v", labels=("station",))
    bench = Bench(r=rule("{station}", **STATE, s=spread, per_topic=True))
    for topic in ("a", "b"):
        bench.send(topic, {"v": 1, "x": {"v": 2}})
    bench.send("a", b"")
    found = bench.shown()

    assert {name: set(found[name]) for name in ("m", "total", "count")} == {
        name: {("b",)} for name in ("m", "total", "count")
    }
    assert set(found["s"]) == {("b", "x")}
    assert set(found["mqtt_topic_messages_total"]) == {("r", "b")}
    assert found["mqtt_series"] == {("r",): 7}
    assert set(found["mqtt_message_errors_total"].values()) == {0}


def test_deleted_topic_begins_again_with_its_next_message() -> None:
    """A deleted topic gets the same series with its next message."""
    bench = Bench(r=rule("{station}", **STATE))
    for payload in ({"v": 5}, b"", {"v": 6}):
        bench.send("a", payload)

    assert bench.shown()["m"] == {("a",): 6}
    assert bench.shown()["count"] == {("a",): 1}
    assert bench.shown()["mqtt_series"] == {("r",): 3}


def test_series_of_several_topics_outlive_one_of_them() -> None:
    """A sum over stations does not end with one station."""
    bench = Bench(r=rule("{station}/{p}", count=Measure(type="counter", labels=("p",)), m=at("v")))
    bench.send("a/t", {"v": 1})
    bench.send("b/t", {"v": 2})
    bench.send("a/t", b"")

    assert bench.shown()["count"] == {("t",): 2}
    assert bench.shown()["m"] == {("b", "t"): 2}


def test_empty_payload_that_means_something_is_a_message() -> None:
    """A rule that only counts, or maps the empty text, removes no series."""
    pressed = Bench(r=rule("{button}", count=COUNT))
    pressed.send("a", b"")
    mapped = Bench(r=rule("{door}", format="text", m=Measure(map={"": 0, "open": 1})))
    mapped.send("a", b"")

    assert pressed.shown()["count"] == {("a",): 1}
    assert mapped.shown()["m"] == {("a",): 0}


def test_limit_counts_series_that_exist() -> None:
    """Topics without a value have no series, and dropped series make room."""
    bench = Bench(r=rule("{station}", m=at("v", on_error="drop"), max_series=2))
    for topic in ("junk1", "junk2", "junk3"):
        bench.send(topic, {"other": 1})
    for topic, payload in (("a", {"v": 1}), ("b", {"v": 2}), ("a", {}), ("c", {"v": 3})):
        bench.send(topic, payload)
    found = bench.shown()

    assert found["m"] == {("b",): 2, ("c",): 3}
    assert found["mqtt_series"] == {("r",): 2}
    assert found["mqtt_series_limit_dropped_total"] == {("r",): 0}


def test_choice_is_compared_as_text() -> None:
    """Numbers and booleans as in JSON."""
    assert Choice.from_setting([1, 2.0, True, "x"]).texts == {"1", "2", "true", "x"}
    with pytest.raises(ValueError, match="expected a text or number"):
        Choice.from_setting({})


def test_rule_says_why_it_does_not_match_a_topic() -> None:
    """The first level that differs, or the pattern that excludes it."""
    one = Rule(
        topic=Pattern.from_setting("bts/{station}/{p}"),
        ignore_topics=(Pattern.from_setting("bts/9/#"),),
        levels={"station": re.compile(r"\d+")},
    )

    assert one.why_not("bts/7/t") == ""
    assert one.why_not("btx/7/t") == "level 1 is 'btx', but 'bts' in bts/{station}/{p}"
    assert one.why_not("bts/7") == "the topic has 2 levels, but bts/{station}/{p} has 3"
    assert one.why_not("bts/9/t") == "ignore_topics has bts/9/#"
    assert one.why_not("bts/x/t") == r"levels: station is 'x', which does not match \d+"
    assert "128" in one.why_not("bts/7/" + "x" * 129)
    assert "begins with $" in Rule(topic=Pattern.from_setting("#")).why_not("$SYS/x")
