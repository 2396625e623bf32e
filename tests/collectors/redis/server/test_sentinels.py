from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from hiredis import ReplyError

from bts_collectors.redis.server import info, sentinels
from bts_exporter import Scrape

INFO = """\
sentinel_masters:2
sentinel_tilt:0
sentinel_tilt_since_seconds:-1
sentinel_running_scripts:1
master0:name=mine,status=ok,address=10.0.0.1:6379,slaves=2,sentinels=3
master1:name=yours,status=odown,address=10.0.0.9:6379,slaves=x,sentinels=1
"""

MASTER = [
    *(b"name", b"mine", b"ip", b"10.0.0.1", b"port", b"6379", b"flags", b"master"),
    *(b"last-ok-ping-reply", b"453", b"down-after-milliseconds", b"30000", b"config-epoch", b"4"),
    *(b"quorum", b"2", b"failover-timeout", b"180000", b"parallel-syncs", b"1"),
    *(b"auth-pass", b"hush"),
]
UP = [b"name", b"a", b"ip", b"10.0.0.2", b"port", b"26379", b"runid", b"f00", b"flags", b"sentinel"]
DOWN = [b"name", b"b", b"ip", b"10.0.0.3", b"port", b"26379", b"flags", b"s_down,sentinel"]
QUORUM, SENTINELS, SLAVES = (("SENTINEL", w, "mine") for w in ("CKQUORUM", "SENTINELS", "SLAVES"))

Samples = dict[str, dict[tuple[str, ...], float]]


def emitted(**changed: Any) -> Samples:
    """Return the samples of a Sentinel with one primary, with some replies changed."""
    scrape = Scrape(monotonic() + 60)
    replies = {"masters": [MASTER], "quorum": b"OK 2 usable", "sentinels": [UP, DOWN], "slaves": []}
    sentinels.emit(
        scrape, dict(zip(sentinels.commands(["mine"]), (replies | changed).values(), strict=True))
    )

    assert scrape.losses == []
    return {metric.name: samples for metric, samples in scrape.samples.items()}


def test_info() -> None:
    """INFO of a Sentinel has the primaries with their state; invalid numbers are skipped."""
    scrape = Scrape(monotonic() + 60)

    sentinels.emit_info(scrape, info.parse(INFO))

    assert {metric.name: samples for metric, samples in scrape.samples.items()} == {
        "redis_sentinel_masters": {(): 2},
        "redis_sentinel_tilt": {(): 0},
        "redis_sentinel_running_scripts": {(): 1},
        "redis_sentinel_master_status": {
            ("mine", "10.0.0.1:6379", "ok"): 1,
            ("yours", "10.0.0.9:6379", "odown"): 0,
        },
        "redis_sentinel_master_slaves": {("mine", "10.0.0.1:6379"): 2},
        "redis_sentinel_master_sentinels": {
            ("mine", "10.0.0.1:6379"): 3,
            ("yours", "10.0.0.9:6379"): 1,
        },
    }


def test_the_commands() -> None:
    """One command requests all primaries, and three more request the details of each."""
    assert sentinels.commands(["mine"]) == [("SENTINEL", "MASTERS"), QUORUM, SENTINELS, SLAVES]


def test_settings_of_a_primary() -> None:
    """The settings of a primary have name and address as labels; no password is emitted."""
    samples = emitted()
    mine = ("mine", "10.0.0.1:6379")

    assert {name: samples[name] for name in samples if "setting" in name} == {
        "redis_sentinel_master_setting_ckquorum": {mine: 2},
        "redis_sentinel_master_setting_failover_timeout": {mine: 180000},
        "redis_sentinel_master_setting_parallel_syncs": {mine: 1},
        "redis_sentinel_master_setting_down_after_milliseconds": {mine: 30000},
    }
    assert samples["redis_sentinel_master_config_epoch"] == {mine: 4}
    assert samples["redis_sentinel_master_last_ok_ping_reply_seconds"] == {mine: 0.453}
    assert "hush" not in repr(samples)


def test_peers() -> None:
    """Sentinels that are down count neither as ok nor as absent: they have their series."""
    samples = emitted()
    mine = ("mine", "10.0.0.1:6379")

    assert samples["redis_sentinel_master_ok_sentinels"] == {mine: 2}
    assert samples["redis_sentinel_master_ok_slaves"] == {mine: 0}
    assert samples["redis_sentinel_peer_info"] == {
        (*mine, "a", "10.0.0.2", "26379", "f00", "sentinel"): 1,
        (*mine, "b", "10.0.0.3", "26379", "", "s_down,sentinel"): 1,
    }


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"OK 2 usable Sentinels.", {("mine",): 1}),
        (ReplyError("NOQUORUM 1 usable Sentinels."), {("mine",): 0}),
        (ReplyError("NOPERM this user has no permissions"), None),
        (ReplyError("ERR No such master with that name"), None),
    ],
)
def test_quorum(reply: Any, status: dict[tuple[str, ...], float] | None) -> None:
    """The quorum is emitted without the text of the reply; an unknown quorum has no sample."""
    assert status == emitted(quorum=reply).get("redis_sentinel_master_ckquorum_status")


@pytest.mark.parametrize("reply", [ReplyError("ERR No such master"), None, [b"x"], [[b"x"], 7]])
def test_odd_replies(reply: Any) -> None:
    """A primary that disappeared in between, or an odd reply, costs only its own samples."""
    samples = emitted(sentinels=reply, slaves=reply)

    assert samples["redis_sentinel_master_config_epoch"] == {("mine", "10.0.0.1:6379"): 4}
    assert emitted(masters=reply) == {}
