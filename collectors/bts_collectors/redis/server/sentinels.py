"""A Sentinel: its primaries, their replicas and the other Sentinels; never its passwords."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.labels import text
from bts_collectors.redis.server.info import Info, number
from bts_exporter import Metric, Scrape, gauge

_OF = ("master_name", "master_address")

PLAIN = {
    field: gauge(f"redis_{field}", f"Field {field} of INFO, Sentinel.")
    for field in (
        "sentinel_masters",
        "sentinel_tilt",
        "sentinel_running_scripts",
        "sentinel_scripts_queue_length",
        "sentinel_simulate_failure_flags",
    )
}
STATUS = gauge(
    "redis_sentinel_master_status",
    "1 if status of a masterN of INFO, Sentinel, is ok, else 0.",
    (*_OF, "master_status"),
)
SLAVES = gauge("redis_sentinel_master_slaves", "Field slaves of a masterN of INFO, Sentinel.", _OF)
SENTINELS = gauge(
    "redis_sentinel_master_sentinels", "Field sentinels of a masterN of INFO, Sentinel.", _OF
)
#: Field of SENTINEL MASTERS -> its metric, and the divisor of its value.
SETTINGS = {
    field: (gauge(f"redis_sentinel_master_{name}", f"Field {field} of SENTINEL MASTERS.", _OF), by)
    for field, name, by in (
        ("quorum", "setting_ckquorum", 1),
        ("failover-timeout", "setting_failover_timeout", 1),
        ("parallel-syncs", "setting_parallel_syncs", 1),
        ("down-after-milliseconds", "setting_down_after_milliseconds", 1),
        ("config-epoch", "config_epoch", 1),
        ("last-ok-ping-reply", "last_ok_ping_reply_seconds", 1000),
    )
}
CKQUORUM = gauge(
    "redis_sentinel_master_ckquorum_status",
    "1 if SENTINEL CKQUORUM finds enough Sentinels for a failover, else 0.",
    ("master_name",),
)
OK_SLAVES = gauge(
    "redis_sentinel_master_ok_slaves",
    "Replicas of SENTINEL SLAVES that are neither s_down nor o_down.",
    _OF,
)
OK_SENTINELS = gauge(
    "redis_sentinel_master_ok_sentinels",
    "This Sentinel, and those of SENTINEL SENTINELS that are neither s_down nor o_down.",
    _OF,
)
PEER = gauge(
    "redis_sentinel_peer_info",
    "Another Sentinel of the same primary: SENTINEL SENTINELS.",
    (*_OF, "name", "ip", "port", "runid", "flags"),
)
METRICS: tuple[Metric, ...] = (
    *PLAIN.values(),
    STATUS,
    SLAVES,
    SENTINELS,
    *(metric for metric, _ in SETTINGS.values()),
    CKQUORUM,
    OK_SLAVES,
    OK_SENTINELS,
    PEER,
)

_MASTERS: Command = ("SENTINEL", "MASTERS")


def commands(names: Iterable[str]) -> list[Command]:
    """Return the commands about the primaries of these names."""
    return [_MASTERS, *(command for name in names for command in _about(name))]


def _about(name: str) -> tuple[Command, Command, Command]:
    return (
        ("SENTINEL", "CKQUORUM", name),
        ("SENTINEL", "SENTINELS", name),
        ("SENTINEL", "SLAVES", name),
    )


def emit_info(scrape: Scrape, info: Info) -> None:
    """Emit the fields of a Sentinel's INFO."""
    for field, metric in PLAIN.items():
        if (value := number(info.fields.get(field, ""))) is not None:
            scrape.emit(metric, value)
    for row in info.masters():
        status = row.get("status", "")
        labels = (row["name"], row.get("address", ""))
        scrape.emit(STATUS, status == "ok", *labels, status)
        for metric, word in ((SLAVES, "slaves"), (SENTINELS, "sentinels")):
            if (value := number(row.get(word, ""))) is not None:
                scrape.emit(metric, value, *labels)


def emit(scrape: Scrape, replies: Mapping[Command, Reply]) -> None:
    """Emit the replies to `commands`."""
    for row in _rows(replies[_MASTERS]):
        if "name" in row and "ip" in row and "port" in row:
            labels = (row["name"], f"{row['ip']}:{row['port']}")
            _emit_settings(scrape, row, labels)
            _emit_peers(scrape, labels, *map(replies.get, _about(row["name"])))


def _emit_settings(scrape: Scrape, row: Mapping[str, str], labels: tuple[str, str]) -> None:
    for field, (metric, by) in SETTINGS.items():
        if (value := number(row.get(field, ""))) is not None:
            scrape.emit(metric, value / by, *labels)


def _emit_peers(
    scrape: Scrape, labels: tuple[str, str], quorum: Reply, sentinels: Reply, slaves: Reply
) -> None:
    if type(quorum) is bytes or str(quorum).startswith("NOQUORUM"):
        scrape.emit(CKQUORUM, type(quorum) is bytes, labels[0])
    if isinstance(slaves, list):
        scrape.emit(OK_SLAVES, sum(map(_is_up, _rows(slaves))), *labels)
    if isinstance(sentinels, list):
        scrape.emit(OK_SENTINELS, 1 + sum(map(_is_up, _rows(sentinels))), *labels)
        peers = {tuple(row.get(label, "") for label in PEER.labels[2:]) for row in _rows(sentinels)}
        for peer in peers:
            scrape.emit(PEER, 1, *labels, *peer)


def _is_up(row: Mapping[str, str]) -> bool:
    return "flags" in row and not {"s_down", "o_down"} & set(row["flags"].split(","))


def _rows(reply: Reply) -> Iterator[dict[str, str]]:
    """Yield the lists of names and values in a reply as dicts."""
    for row in reply if isinstance(reply, list) else []:
        if isinstance(row, list):
            texts = [text(word) for word in row if type(word) is bytes]
            yield dict(zip(texts[::2], texts[1::2], strict=False))
