from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.batching import run
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.collector import RedisCollector
from bts_collectors.redis.server.collector import Server
from bts_exporter import Metric, Scrape, TargetError, Url

FAMILIES = Path(__file__).with_name("families.txt")
INFO = ("INFO", "everything")
NOPERM = ReplyError("NOPERM this user has no permissions to run this command")

REDIS = "redis_version:7.0.15\nserver_time_usec:1767225600000000\nrun_id:a\ndb0:keys=1,expires=0\ncmdstat_get:calls=1,usec=9\n"
REPLIES: dict[tuple[Any, ...], Any] = {
    INFO: REDIS.encode(),
    ("CONFIG", "GET"): [b"databases", b"2", b"maxclients", b"10"],
    ("SLOWLOG", "LEN"): 3,
    ("SLOWLOG", "GET"): [[14, 1767225600, 15400, [], b"", b""]],
    ("LATENCY", "LATEST"): [[b"fork", 1767225700, 2, 2]],
    ("LATENCY", "HISTOGRAM"): [b"get", [b"calls", 1, b"histogram_usec", [16, 1]]],
    ("CLUSTER", "INFO"): b"cluster_state:ok\r\ncluster_enabled:1\r\n",
    ("COMMANDLOG", "LEN"): 5,
    ("CLIENT", "LIST"): b"id=1 name=me user=app\n",
}
#: Question, as ACLs call it -> the family that is lost with it.
LOST = {
    "config|get": "redis_config_maxclients",
    "slowlog|len": "redis_slowlog_length",
    "slowlog|get": "redis_slowlog_last_id",
    "latency|latest": "redis_latency_spike_last",
    "latency|histogram": "redis_commands_latencies_usec",
    "cluster|info": "redis_cluster_state",
    "commandlog|len": "redis_commandlog_slow_length",
    "client|list": "redis_clients",
}


class Fake:
    """A server that replies from a table and records the commands of each round trip."""

    def __init__(self, **info: str) -> None:
        """Add fields to INFO."""
        self.replies = dict(REPLIES)
        self.say(**info)
        self.rounds: list[list[tuple[Any, ...]]] = []
        self.server = Server(clients=True, latency_histograms=True)

    def say(self, **info: str) -> None:
        """Change fields of INFO."""
        fields = "".join(f"{name}:{value}\n" for name, value in info.items())
        self.replies[INFO] = (REDIS + fields).encode()

    def deny(self, command: str) -> None:
        """Refuse a command from now on."""
        first, second = command.upper().split("|")
        self.replies[first, second] = NOPERM

    def read(self) -> tuple[ScrapeContext, dict[str, dict[tuple[str, ...], float]]]:
        """Read it once; return the context and its samples."""
        self.rounds.clear()
        context = ScrapeContext(Url("redis", "example.net", 6379), Scrape(monotonic() + 60))
        run([self.server.read(context)], self._ask)
        assert "invalid_sample" not in dict(context.scrape.losses)
        return context, {metric.name: rows for metric, rows in context.scrape.samples.items()}

    def requests(self) -> set[str]:
        """Return the requests of the last scrape."""
        return {f"{c[0]}|{c[1]}".lower() for commands in self.rounds for c in commands}

    def _ask(self, commands: Sequence[tuple[Any, ...]], _: object) -> list[Any]:
        self.rounds.append(list(commands))
        return [self.replies.get(command[:2], b"") for command in commands]


def test_families() -> None:
    """Every family that redis_exporter's dashboards use has its name, its type and its labels."""
    declared = {
        metric.name: f"{metric.name} {metric.kind} {' '.join(metric.labels)}".rstrip()
        for metric in RedisCollector.declared()
        if isinstance(metric, Metric)
    }
    expected = FAMILIES.read_text().splitlines()

    assert [declared.get(line.split(" ")[0]) for line in expected] == expected


def test_a_known_server_costs_one_round_trip() -> None:
    """The first scrape takes two round trips, because the commands depend on the kind of server; later ones take one."""
    fake = Fake(cluster_enabled="1", valkey_version="9.1.2")
    fake.read()
    assert (len(fake.rounds), fake.server.is_known) == (2, True)

    context, samples = fake.read()

    assert len(fake.rounds) == 1
    assert LOST.keys() | {"info|everything"} == fake.requests()
    assert set(LOST.values()) <= samples.keys()
    assert context.version == (7, 0, 15)
    assert samples["redis_db_keys"] == {("db0",): 1, ("db1",): 0}
    assert samples["redis_exporter_command_supported"] == {(name,): 1 for name in LOST}


def test_unsupported_commands_are_not_sent() -> None:
    """A command that the server lacks according to INFO is not sent."""
    fake = Fake(redis_version="6.2.14", cluster_enabled="0")
    fake.read()

    assert fake.requests() == {
        "info|everything",
        "config|get",
        "slowlog|len",
        "slowlog|get",
        "latency|latest",
        "client|list",
    }


def test_large_replies_are_only_requested_if_wanted() -> None:
    """CLIENT LIST and LATENCY HISTOGRAM are sent only if the settings enable them."""
    fake = Fake()
    fake.server = Server(clients=False, latency_histograms=False)
    fake.read()

    assert not {"client|list", "latency|histogram"} & fake.requests()


@pytest.mark.parametrize("denied", LOST)
def test_a_denied_command_costs_only_its_metrics(denied: str) -> None:
    """A denied command costs its own families, is not an error, and is not sent again."""
    fake = Fake(cluster_enabled="1", valkey_version="9.1.2")
    fake.deny(denied)

    context, samples = fake.read()

    assert context.scrape.losses == []
    assert LOST[denied] not in samples
    assert {family for name, family in LOST.items() if name != denied} <= samples.keys()
    assert samples["redis_exporter_command_supported"][denied,] == 0
    fake.read()
    assert denied not in fake.requests()


def test_another_server_at_the_address_gets_all_commands() -> None:
    """After a restart or a failover, commands that were refused before are sent again."""
    fake = Fake()
    fake.deny("slowlog|len")
    fake.read()
    fake.say(run_id="b")
    fake.replies["SLOWLOG", "LEN"] = 3
    fake.read()

    _, samples = fake.read()

    assert samples["redis_slowlog_length"] == {(): 3}


def test_without_info_the_rest_is_read() -> None:
    """Without permission for INFO, INFO is missing, and an error says so."""
    fake = Fake()
    fake.replies[INFO] = NOPERM

    context, samples = fake.read()

    assert [reason for reason, _ in context.scrape.losses] == ["noperm"]
    assert (context.version, context.now) == ((), None)
    assert samples["redis_slowlog_length"] == {(): 3}


@pytest.mark.parametrize("reply", [b"", b"# Server\r\nname:x\r\n", None, 7, [b"x"]])
def test_an_info_of_another_server(reply: Any) -> None:
    """An INFO that Redis never sends ends the scrape."""
    fake = Fake()
    fake.replies[INFO] = reply

    with pytest.raises(TargetError, match="sent an unexpected reply to INFO"):
        fake.read()


@pytest.mark.parametrize("odd", [None, 7, b"\xff", [], [None, [None]]], ids=repr)
def test_odd_replies_cost_their_own_families(odd: Any) -> None:
    """Odd replies to other commands do not affect the metrics from INFO."""
    fake = Fake(cluster_enabled="1", valkey_version="9.1.2")
    fake.replies |= {command: odd for command in fake.replies if command != INFO}

    context, samples = fake.read()

    assert context.scrape.losses == []
    assert samples["redis_commands_total"] == {("get",): 1}


def test_a_sentinel() -> None:
    """A Sentinel gets only commands that Sentinels support."""
    fake = Fake(
        sentinel_masters="1",
        master0="name=mine,status=ok,address=10.0.0.1:6379,slaves=0,sentinels=1",
    )
    fake.replies |= {
        ("SENTINEL", "MASTERS"): [[b"name", b"mine", b"ip", b"10.0.0.1", b"port", b"6379"]],
        ("SENTINEL", "CKQUORUM"): b"OK",
        ("SENTINEL", "SENTINELS"): [],
        ("SENTINEL", "SLAVES"): [],
    }

    fake.read()
    _, samples = fake.read()

    assert fake.rounds == [
        [
            INFO,
            ("SENTINEL", "MASTERS"),
            ("SENTINEL", "CKQUORUM", "mine"),
            ("SENTINEL", "SENTINELS", "mine"),
            ("SENTINEL", "SLAVES", "mine"),
            ("CLIENT", "LIST"),
        ]
    ]
    assert samples["redis_sentinel_masters"] == {(): 1}
    assert samples["redis_sentinel_master_ckquorum_status"] == {("mine",): 1}
