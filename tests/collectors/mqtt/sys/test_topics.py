import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue


def sample(topic: str, payload: bytes) -> tuple[str, tuple[str, ...], float] | None:
    """Return name, labels and value of a message below `$SYS/broker/`."""
    reading = systopics.read(f"$SYS/broker/{topic}", payload)
    if reading is None or reading.metric is None:
        return None
    return reading.metric.name, reading.labels, reading.value


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        ("uptime", b"81 seconds", ("mosquitto_uptime_seconds", (), 81)),
        ("version", b"mosquitto version 2.0.11", ("mosquitto_info", ("2.0.11",), 1)),
        ("clients/connected", b"3", ("mosquitto_clients", ("connected",), 3)),
        ("clients/disconnected", b"0", ("mosquitto_clients", ("disconnected",), 0)),
        ("clients/total", b"4", ("mosquitto_sessions", (), 4)),
        ("clients/maximum", b"5", ("mosquitto_clients_max", (), 5)),
        ("clients/expired", b"6", ("mosquitto_clients_expired_total", (), 6)),
        ("messages/received", b"7", ("mosquitto_packets_received_total", (), 7)),
        ("messages/sent", b"8", ("mosquitto_packets_sent_total", (), 8)),
        ("bytes/received", b"9", ("mosquitto_network_bytes_received_total", (), 9)),
        ("bytes/sent", b"10", ("mosquitto_network_bytes_sent_total", (), 10)),
        ("publish/messages/received", b"11", ("mosquitto_messages_received_total", (), 11)),
        ("publish/messages/sent", b"12", ("mosquitto_messages_sent_total", (), 12)),
        ("publish/messages/dropped", b"13", ("mosquitto_messages_dropped_total", (), 13)),
        ("publish/bytes/received", b"14", ("mosquitto_payload_bytes_received_total", (), 14)),
        ("publish/bytes/sent", b"15", ("mosquitto_payload_bytes_sent_total", (), 15)),
        ("store/messages/count", b"16", ("mosquitto_store_messages", (), 16)),
        ("store/messages/bytes", b"17", ("mosquitto_store_bytes", (), 17)),
        ("retained messages/count", b"18", ("mosquitto_retained_messages", (), 18)),
        ("subscriptions/count", b"19", ("mosquitto_subscriptions", (), 19)),
        ("shared_subscriptions/count", b"20", ("mosquitto_shared_subscriptions", (), 20)),
        ("heap/current", b"21", ("mosquitto_heap_bytes", (), 21)),
        ("heap/maximum", b"22", ("mosquitto_heap_max_bytes", (), 22)),
        ("connection/north/state", b"1", ("mosquitto_bridge_up", ("north",), 1)),
        ("connection/north/state", b"0", ("mosquitto_bridge_up", ("north",), 0)),
    ],
)
def test_topic_gives_its_sample(
    topic: str, payload: bytes, expected: tuple[str, tuple[str, ...], float]
) -> None:
    """Each topic of mosquitto 2 gives one sample under our name."""
    assert expected == sample(topic, payload)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("clients/connected", b""),
        ("clients/connected", b"many"),
        ("clients/connected", b"-1"),
        ("clients/connected", b"nan"),
        ("clients/connected", b"1_000"),
        ("clients/connected", b"1e9"),
        ("clients/connected", b"1 "),
        ("clients/connected", "٣".encode()),
        ("uptime", b"-3 seconds"),
        ("uptime", b"3 minutes"),
        ("version", b""),
        ("version", b"2.0\n"),
        ("version", b"2" * 70),
        ("connection/north/state", b"2"),
        ("connection//state", b"1"),
        ("connection/a/b/state", b"1"),
        ("connection/" + "n" * 129 + "/state", b"1"),
        ("load/messages/received/1min", b"lots"),
        ("clients/active", b"3"),
        ("log/N", b"1690000000: New connection"),
        ("", b"1"),
    ],
)
def test_payload_without_a_value_gives_no_sample(topic: str, payload: bytes) -> None:
    """An invalid number or an unknown topic has no sample."""
    assert sample(topic, payload) is None


@pytest.mark.parametrize(
    "topic", ["bts/broker/uptime", "$SYS/brokers", "$SYS/broker", "x$SYS/broker/uptime"]
)
def test_topic_elsewhere_is_ignored(topic: str) -> None:
    """Only topics below $SYS/broker/ are mosquitto's."""
    assert systopics.read(topic, b"1") is None


@given(
    st.one_of(
        st.text(),
        st.sampled_from([*systopics.NUMBERS, "uptime", "version"]),
        st.text().map("connection/{}/state".format),
    ),
    st.one_of(st.binary(), st.text(st.characters(categories=["N"])).map(str.encode)),
)
@example("bytes/sent", b"9" * 400)
@example("connection/\ud800/state", b"1")
def test_any_message_gives_a_finite_sample_or_none(topic: str, payload: bytes) -> None:
    """No topic and no payload can raise, or make a value or a label of unbounded size."""
    reading = systopics.read(f"$SYS/broker/{topic}", payload)

    assert reading is None or (
        math.isfinite(reading.value)
        and reading.value >= 0
        and len(reading.labels) == len(reading.metric.labels)
        and all(len(label) <= systopics.MAX_BRIDGE_NAME for label in reading.labels)
    )


def counts(**values: float) -> dict[str, SysValue]:
    """Return values of the counts of stored and retained messages."""
    topics = {"stored": systopics.STORED, "retained": systopics.RETAINED}
    return {topics[k]: SysValue(systopics.QUEUED, (), value) for k, value in values.items()}


def test_queued_messages_are_the_stored_that_are_not_retained() -> None:
    """Messages in the store that are not retained wait for a client."""
    assert systopics.queued(counts(stored=45, retained=38)) == 7


def test_queued_messages_are_unknown_where_the_counts_contradict_each_other() -> None:
    """More retained messages than messages have no meaningful difference."""
    assert systopics.queued(counts(stored=35, retained=40)) is None


@pytest.mark.parametrize("readings", [{}, counts(stored=5), counts(retained=5)])
def test_queued_messages_are_unknown_without_both_counts(readings: dict[str, SysValue]) -> None:
    """Queued messages need both counts."""
    assert systopics.queued(readings) is None


def test_rates_have_no_metric() -> None:
    """They are only read for another exporter's names."""
    reading = systopics.read("$SYS/broker/load/messages/received/1min", b"1.50")

    assert reading == SysValue(None, (), 1.5)
