import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.mqtt.sys import log_topic
from bts_collectors.mqtt.sys.log_topic import CLIENT_EPISODES, EPISODES, LAST_EPISODE, DropEpisodes
from bts_exporter import Scrape

NOTICE = b"1795452617: Outgoing messages are being dropped for client %s."


@pytest.fixture
def episodes() -> DropEpisodes:
    """Return episodes whose clock stands at 1000."""
    return DropEpisodes(clock=lambda: 1000.0)


def tell(episodes: DropEpisodes, *payloads: bytes) -> None:
    """Deliver log messages as the network thread does."""
    handler = episodes.route(log_topic.TOPIC)
    assert handler
    for payload in payloads:
        handler(payload, False)


def shown(episodes: DropEpisodes) -> Scrape:
    """Return a scrape with the emitted samples."""
    scrape = Scrape(time.monotonic() + 30)
    episodes.emit(scrape)
    return scrape


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (NOTICE % b"consumer", "consumer"),
        (b"Outgoing messages are being dropped for client consumer.", "consumer"),
        (b"2026-01-01T00:00:00: Outgoing messages are being dropped for client a b.c.", "a b.c"),
        (NOTICE % b"c\xff", "c\N{REPLACEMENT CHARACTER}"),
        (b"1795452617: Client consumer disconnected.", None),
        (b"1795452617: New connection from 127.0.0.1:33158 on port 1883.", None),
        (b"Outgoing messages are being dropped for client .", None),
        (b"", None),
    ],
)
def test_notice_names_the_client(payload: bytes, expected: str | None) -> None:
    """Only one kind of log message counts, with any format of its time."""
    assert log_topic.dropping(payload) == expected


@given(st.binary(max_size=200))
def test_no_log_message_raises_an_error(payload: bytes) -> None:
    """Any text names a client or none."""
    assert log_topic.dropping(payload) != ""


def test_nothing_dropped_is_0(episodes: DropEpisodes) -> None:
    """The first episode is an increase, because the counter exists before."""
    assert shown(episodes).samples == {EPISODES: {(): 0}}


def test_episodes_are_counted_by_client(episodes: DropEpisodes) -> None:
    """Their number, and the time of the last one."""
    tell(episodes, NOTICE % b"a", NOTICE % b"b", b"other", NOTICE % b"a")
    samples = shown(episodes).samples

    assert samples[EPISODES] == {(): 3}
    assert samples[CLIENT_EPISODES] == {("a",): 2, ("b",): 1}
    assert samples[LAST_EPISODE] == {("a",): 1000, ("b",): 1000}


def test_latest_clients_are_remembered(
    episodes: DropEpisodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series are bounded although clients come and go; the total includes all clients."""
    monkeypatch.setattr(log_topic, "MAX_CLIENTS", 2)
    tell(episodes, *(NOTICE % name for name in [b"a", b"b", b"a", b"c", b"x" * 129]))
    samples = shown(episodes).samples

    assert samples[EPISODES] == {(): 5}
    assert samples[CLIENT_EPISODES] == {("a",): 2, ("c",): 1}


def test_only_notices_are_wanted(episodes: DropEpisodes) -> None:
    """There is no handler for other topics."""
    assert episodes.route("$SYS/broker/log/E") is None
    assert episodes.route("bts/1/t") is None
