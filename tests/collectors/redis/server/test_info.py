from __future__ import annotations

import math
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.redis.server import info
from bts_collectors.redis.server.info_fields import PLAIN
from bts_exporter import Scrape

PRIMARY = """\
# Server
redis_version:7.0.15
redis_build_id:ae4d7c97
redis_mode:standalone
os:Linux 6.1 x86_64
process_id:42
run_id:8afc0334
tcp_port:6379
server_time_usec:1767225600250000
uptime_in_seconds:100

# Memory
used_memory:916192
used_memory_human:894.72K
maxmemory_policy:noeviction
mem_fragmentation_ratio:-nan

# Persistence
rdb_last_bgsave_status:ok
aof_last_write_status:err

# Stats
keyspace_hits:7
latest_fork_usec:1500

# Replication
role:master
master_replid:7f767c76
slave0:ip=10.0.0.2,port=6380,state=online,offset=14,lag=1
slave1:ip=10.0.0.3,port=6381,state=wait_bgsave,offset=0,lag=-1

# CPU
used_active_time_io_thread_1:2.5

# Commandstats
cmdstat_get:calls=4,usec=10,usec_per_call=2.50,rejected_calls=1,failed_calls=2
cmdstat_config|get:calls=1,usec=2000000,usec_per_call=2000000.00

# Errorstats
errorstat_WRONGTYPE:count=3

# Latencystats
latency_percentiles_usec_get:p50=1.003,p99=5.023,p99.9=9.5
latency_percentiles_usec_gone:p50=1

# Cluster
cluster_enabled:0

# Keyspace
db2:keys=10,expires=4,avg_ttl=2500,subexpiry=0
"""

REPLICA = """\
role:slave
master_host:10.0.0.1
master_port:6379
master_link_status:down
master_last_io_seconds_ago:-1
master_sync_in_progress:0
slave_repl_offset:99
slave_read_only:1
"""


def emitted(text: str, databases: int = 0) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of an INFO text."""
    scrape = Scrape(monotonic() + 60)
    parsed = info.parse(text)
    info.emit(scrape, parsed)
    info.emit_keyspace(scrape, parsed.fields, databases)

    assert scrape.losses == []
    return {metric.name: samples for metric, samples in scrape.samples.items()}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("redis_memory_used_bytes", 916192),
        ("redis_keyspace_hits_total", 7),
        ("redis_rdb_last_bgsave_status", 1),
        ("redis_aof_last_write_status", 0),
        ("redis_latest_fork_seconds", 0.0015),
        ("redis_uptime_in_seconds", 100),
        ("redis_start_time_seconds", 1767225500),
        ("redis_process_id", 42),
        ("redis_cluster_enabled", 0),
    ],
)
def test_plain_field(metric: str, value: float) -> None:
    """A field without labels has its value, words as 1 and 0, durations in seconds."""
    assert {(): value} == emitted(PRIMARY)[metric]


def test_counters_of_64_bits_are_exact() -> None:
    """A counter has the value of the server, also where a float would be rounded."""
    samples = emitted("total_net_output_bytes:18446744073709551615")

    assert samples["redis_net_output_bytes_total"] == {(): 18446744073709551615}


def test_absent_fields_give_no_samples() -> None:
    """A missing field, or one that is not a finite number, has no sample."""
    samples = emitted(PRIMARY)

    assert "redis_connected_clients" not in samples
    assert "redis_mem_fragmentation_ratio" not in samples
    assert "redis_slave_info" not in samples


def test_a_text_without_fields() -> None:
    """Lines without a colon are skipped, and a text without fields is empty."""
    assert info.parse("HTTP/1.1 400 Bad Request\r\n# Server: x\r\n\r\n") == info.Info()


def test_instance_info_has_the_identity_as_labels() -> None:
    """redis_instance_info has the fields that identify the server."""
    assert emitted(PRIMARY)["redis_instance_info"] == {
        (
            "master",
            "7.0.15",
            "ae4d7c97",
            "standalone",
            "Linux 6.1 x86_64",
            "noeviction",
            "6379",
            "8afc0334",
            "42",
            "7f767c76",
            "",
        ): 1
    }


def test_commands() -> None:
    """Calls, seconds, rejected and failed calls have the label cmd, if the server counts them."""
    samples = emitted(PRIMARY)

    assert samples["redis_commands_total"] == {("get",): 4, ("config|get",): 1}
    assert samples["redis_commands_duration_seconds_total"] == {("get",): 1e-5, ("config|get",): 2}
    assert samples["redis_commands_rejected_calls_total"] == {("get",): 1}
    assert samples["redis_commands_failed_calls_total"] == {("get",): 2}


def test_latency_percentiles() -> None:
    """Percentiles are a summary whose sum and count are those of the command."""
    assert emitted(PRIMARY)["redis_latency_percentiles_usec"] == {
        ("", "get", "0.5"): 1.003,
        ("", "get", "0.99"): 5.023,
        ("", "get", "0.999"): 9.5,
        ("_sum", "get"): 10,
        ("_count", "get"): 4,
    }


def test_errors_by_code() -> None:
    """Errors have their code as a label."""
    assert emitted(PRIMARY)["redis_errors_total"] == {("WRONGTYPE",): 3}


def test_errors_invented_by_scripts_are_limited() -> None:
    """The number of series of error codes is limited, because scripts can invent codes."""
    text = "\n".join(f"errorstat_E{number}:count=1" for number in range(1000))

    assert len(emitted(text)["redis_errors_total"]) == info.MOST_ERRORS


def test_databases() -> None:
    """Databases have their name as a label; empty ones are 0."""
    samples = emitted(PRIMARY, databases=3)

    assert samples["redis_db_keys"] == {("db2",): 10, ("db0",): 0, ("db1",): 0}
    assert samples["redis_db_keys_expiring"] == {("db2",): 4, ("db0",): 0, ("db1",): 0}
    assert samples["redis_db_avg_ttl_seconds"] == {("db2",): 2.5}


def test_replicas_of_a_primary() -> None:
    """Every replica has its offset, and its lag where the primary knows it."""
    samples = emitted(PRIMARY)

    assert samples["redis_connected_slave_offset_bytes"] == {
        ("10.0.0.2", "6380", "online"): 14,
        ("10.0.0.3", "6381", "wait_bgsave"): 0,
    }
    assert samples["redis_connected_slave_lag_seconds"] == {("10.0.0.2", "6380", "online"): 1}


def test_a_replica_listed_twice_is_emitted_once() -> None:
    """A replica that reconnects while its old connection lingers makes no repeated sample."""
    row = "ip=10.0.0.2,port=6380,state=online,offset=14,lag=1"

    samples = emitted(f"slave0:{row}\nslave1:{row}\n")

    assert samples["redis_connected_slave_offset_bytes"] == {("10.0.0.2", "6380", "online"): 14}


def test_replica() -> None:
    """A replica has its primary and the state of the link; no time if there was never a contact."""
    samples = emitted(REPLICA)
    master = ("10.0.0.1", "6379")

    assert {(*master, "1"): 1} == samples["redis_slave_info"]
    assert {master: 0} == samples["redis_master_link_up"]
    assert {master: 0} == samples["redis_master_sync_in_progress"]
    assert {master: 99} == samples["redis_slave_repl_offset"]
    assert "redis_master_last_io_seconds_ago" not in samples


def test_io_threads() -> None:
    """The time of I/O threads has the label thread."""
    assert emitted(PRIMARY)["redis_active_time_io_thread_seconds_total"] == {("1",): 2.5}


@pytest.mark.parametrize(
    ("text", "version"),
    [("redis_version:7.0.15", (7, 0, 15)), ("redis_version:8.2", (8, 2)), ("os:Linux", ())],
)
def test_version(text: str, version: tuple[int, ...]) -> None:
    """Versions compare as numbers; a missing version is empty."""
    assert version == info.parse(text).facts.version


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", info.Facts()),
        ("redis_version:7.0.15\nserver_time_usec:1\nrun_id:8afc", info.Facts((7, 0, 15), "8afc")),
        ("cluster_enabled:0", info.Facts()),
        ("cluster_enabled:1", info.Facts(has_cluster_info=True)),
        ("cluster_enabled:1\ncluster_state:ok", info.Facts()),
        ("valkey_version:8.0.9", info.Facts()),
        ("valkey_version:9.1.2", info.Facts(has_commandlog=True)),
        (
            "sentinel_masters:1\nmaster0:name=mine,status=ok,address=10.0.0.1:6379\nmaster1:status=ok",
            info.Facts(is_sentinel=True, masters=("mine",)),
        ),
    ],
)
def test_facts(text: str, facts: info.Facts) -> None:
    """INFO decides which other commands are sent."""
    assert facts == info.parse(text).facts


def test_server_time_is_in_milliseconds() -> None:
    """The server's clock comes from its own field, and is unknown without it."""
    assert info.parse(PRIMARY).server_time() == 1767225600250
    assert info.parse("").server_time() is None


def test_valkey_names_its_mode_and_version_otherwise() -> None:
    """redis_instance_info has the mode of a Valkey, and its version in addition to that of Redis."""
    (labels,) = emitted("redis_version:7.2.4\nserver_mode:cluster\nvalkey_version:9.1.2")[
        "redis_instance_info"
    ]

    assert (labels[1], labels[3], labels[-1]) == ("7.2.4", "cluster", "9.1.2")


def test_modules() -> None:
    """Every loaded module is emitted with the modules that it uses, a list with commas."""
    text = """\
module:name=search,ver=21005,api=1,filters=0,usedby=[],using=[ReJSON,graph],options=[handle-io-errors]
module:name=ReJSON,ver=20810,api=1,filters=0,usedby=[search],using=[],options=[]
"""

    assert emitted(text)["redis_module_info"] == {
        ("search", "21005", "1", "0", "[]", "[ReJSON,graph]"): 1,
        ("ReJSON", "20810", "1", "0", "[search]", "[]"): 1,
    }


def test_the_lag_of_replicas_in_bytes() -> None:
    """A replica's lag in bytes is emitted once it is online: before, its offset means nothing."""
    text = "master_repl_offset:100\n" + PRIMARY.partition("# Replication")[2]
    lags = emitted(text)["redis_replica_lag_bytes"]

    assert list(lags) == [("10.0.0.2", "6380", "online")]
    assert emitted("master_repl_offset:100\nslave0:ip=a,port=1,state=online,offset=90")[
        "redis_replica_lag_bytes"
    ] == {("a", "1", "online"): 10}


def test_fields_of_cluster_info() -> None:
    """Fields of CLUSTER INFO become metrics of the same name, except a few with historical names."""
    scrape = Scrape(monotonic() + 60)

    info.emit_cluster(
        scrape,
        {
            "cluster_state": "ok",
            "cluster_slots_fail": "3",
            "cluster_stats_messages_sent": "7",
            "cluster_name": "mine",
            "cluster_é l": "1",
            "total": "2",
        },
    )

    assert {metric.name: values for metric, values in scrape.samples.items()} == {
        "redis_cluster_state": {(): 1},
        "redis_cluster_slots_fail": {(): 3},
        "redis_cluster_messages_sent_total": {(): 7},
    }


@pytest.mark.parametrize(
    "text",
    [
        "used_memory:1e999\nuptime_in_seconds:nan\nserver_time_usec:inf\nredis_version:99999999999999.x",
        "used_memory:" + "9" * 400,
        "used_memory\n:\n::\n=\n:1\n\0:\0\n# \n#",
        "cmdstat_:\ncmdstat_get\ncmdstat_set:calls\ncmdstat_del:calls=,usec=x\nlatency_:p50=1",
        "latency_percentiles_usec_get:p=1,px=2,p50=,=3\ncmdstat_get:calls=1,usec=2",
        "latency_percentiles_usec_set:p50=1\ncmdstat_set:calls=1",
        "errorstat_:count\nerrorstat_ERR:count=\ndb0:\ndb1:keys\ndb2:keys=x\ndbx:keys=1",
        "slave0:\nslave1:ip=a\nslave2:offset=x,lag=y\nmaster_host:\nmaster_port:x\nmaster0:",
        "sentinel_masters:1\nmaster0:\nmaster1:name=x\nmodule:\nmodule:name\nmodule:=,=",
        "used_active_time_io_thread_x:1\nused_active_time_io_thread_1:x\ncluster_:1\ncluster_a b:1",
        "used_memory:1\nused_memory:2\n# Mine\nmine_used_memory:3\nsearch_unheard_of:1",
    ],
    ids=lambda text: text[:20],
)
def test_damaged_text(text: str) -> None:
    """Garbage, duplicate and unknown fields, and invalid numbers cost only themselves."""
    samples = emitted(text + "\nconnected_clients:7\n")

    assert samples["redis_connected_clients"] == {(): 7}
    assert all(map(math.isfinite, (v for values in samples.values() for v in values.values())))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted([*PLAIN, "cmdstat_x", "latency_percentiles_usec_x", "module"])),
            st.text(st.sampled_from("=,:.p01e-[]xé\x85 "), max_size=12),
        )
    )
)
def test_any_text_can_be_parsed(fields: list[tuple[str, str]]) -> None:
    """Whatever the values are, all samples are well-formed."""
    emitted("\n".join(f"{name}:{value}" for name, value in fields))


def test_names_of_the_metrics_are_unique() -> None:
    """No two declared metrics share a name."""
    names = [metric.name for metric in info.METRICS]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("field", "name", "kind"),
    [
        ("used_memory", "redis_memory_used_bytes", "gauge"),
        ("maxmemory", "redis_memory_max_bytes", "gauge"),
        ("connected_clients", "redis_connected_clients", "gauge"),
        ("evicted_keys", "redis_evicted_keys_total", "counter"),
        ("total_net_input_bytes", "redis_net_input_bytes_total", "counter"),
        ("mem_aof_buffer", "redis_mem_aof_buffer_bytes", "gauge"),
    ],
)
def test_table_of_fields(field: str, name: str, kind: str) -> None:
    """Fields have the names and types that dashboards know, and the help names the field."""
    metric = PLAIN[field]

    assert (name, kind) == (metric.name, metric.kind)
    assert field in metric.help
