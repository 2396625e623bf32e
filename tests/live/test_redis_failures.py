"""How the Redis collector fails: permissions, passwords, dead servers, servers that are busy."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest
import redis

from bts_exporter import TargetError, testing
from servers import free_port, wait_until
from servers.exporter import StartExporter
from servers.redis import (
    Listen,
    MakeCollector,
    MakeRedis,
    RedisServer,
    calls,
    failure,
    reason_when_stopped,
)

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[2] / "docs" / "collectors" / "redis.md"
PASSWORD = "correct horse"


def test_a_wrong_password_is_tried_once(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """A wrong password costs one attempt for each scrape, and the reason is `auth`."""
    server = make_redis()
    server.client.config_set("requirepass", PASSWORD)

    samples, error = failure(redis_collector(server.url, "wrong"))

    assert error.reason == "auth"
    assert samples["redis_up"] == {(): 0}
    assert calls(server.client, "auth") == 1
    assert [(entry["reason"], entry["count"]) for entry in server.client.acl_log()] == [("auth", 1)]


def test_a_missing_password_is_reported(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """A missing password has the reason `auth`."""
    server = make_redis("--requirepass", PASSWORD)

    assert failure(redis_collector(server.url))[1].reason == "auth"


@pytest.mark.parametrize("user", ["", "default@"])
def test_the_right_password(
    make_redis: MakeRedis, redis_collector: MakeCollector, user: str
) -> None:
    """With the password the server answers, with or without the user in the address."""
    server = make_redis("--requirepass", PASSWORD)

    samples = testing.collect(redis_collector(f"redis://{user}127.0.0.1:{server.port}", PASSWORD))

    assert samples["redis_up"] == {(): 1}


def acl_of_the_docs() -> list[str]:
    """Return the words after the password of the ACL line that the documentation gives for Redis 7.0."""
    line, *_ = re.findall(r"^ACL SETUSER bts on >PASSWORD (.*)$", DOCS.read_text(), re.MULTILINE)
    return line.split()


@pytest.fixture
def restricted(make_redis: MakeRedis) -> RedisServer:
    """Give a server with a stream in use, a list, and user bts as the documentation makes it."""
    server = make_redis()
    server.client.execute_command("ACL", "SETUSER", "bts", "on", f">{PASSWORD}", *acl_of_the_docs())
    ids = [server.client.xadd("s", {"n": n}) for n in range(10)]
    server.client.xgroup_create("s", "g", "0")
    server.client.xreadgroup("g", "c", {"s": ">"}, count=4)
    server.client.xdel("s", ids[7])
    server.client.rpush("queue", 1)
    return server


def test_the_documented_permissions_suffice(
    restricted: RedisServer, redis_collector: MakeCollector
) -> None:
    """With the ACL line of the documentation nothing is lost or denied, and nothing can be written."""
    url = f"redis://bts@127.0.0.1:{restricted.port}"
    collector = redis_collector(url, PASSWORD, streams=("s*",), keys=("*",))
    for _ in range(2):
        samples = testing.collect(collector)

    assert samples["redis_stream_group_lag"] == {("db0", "s", "g"): 5}
    assert samples["redis_key_size"] == {("db0", "s"): 9, ("db0", "queue"): 1}
    assert restricted.client.acl_log() == []
    user = redis.Redis(port=restricted.port, username="bts", password=PASSWORD)
    with pytest.raises(redis.exceptions.NoPermissionError):
        user.set("a", 1)
    user.close()


@pytest.mark.parametrize(
    ("denied", "metric", "labels", "reported"),
    [
        ("-xinfo|groups", "redis_stream_group_lag", ("db0", "s", "g"), True),
        ("-xinfo|stream", "redis_stream_length", ("db0", "s"), True),
        ("-xpending", "redis_stream_group_oldest_pending_age_seconds", ("db0", "s", "g"), False),
        ("-type", "redis_key_size", ("db0", "queue"), True),
        ("-llen", "redis_key_size", ("db0", "queue"), True),
        ("-info", "redis_memory_used_bytes", (), True),
        ("-scan", "redis_stream_length", ("db0", "s"), True),
        ("-config|get", "redis_db_keys", ("db1",), False),
    ],
)
def test_a_missing_permission_costs_only_its_metrics(
    restricted: RedisServer,
    redis_collector: MakeCollector,
    denied: str,
    metric: str,
    labels: tuple[str, ...],
    *,
    reported: bool,
) -> None:
    """A denied command costs only its metrics, and is reported as noperm if they are needed."""
    url = f"redis://bts@127.0.0.1:{restricted.port}"
    settings = {"streams": ("s*",), "keys": ("queue", "s")}
    whole = testing.collect(redis_collector(url, PASSWORD, **settings))
    restricted.client.execute_command("ACL", "SETUSER", "bts", denied)

    collector = redis_collector(url, PASSWORD, **settings)
    if reported:
        samples, error = failure(collector)
        assert error.reason == "noperm"
        assert samples["redis_exporter_last_scrape_error"] == {("noperm",): 1}
    else:
        samples = testing.collect(collector)

    assert labels in whole[metric]
    assert labels not in samples.get(metric, {})
    assert samples["redis_up"] == {(): 1}
    kept = {"redis_memory_used_bytes": (), "redis_key_size": ("db0", "s")}
    for name in kept.keys() - {metric}:
        assert kept[name] in samples[name]


def test_without_scripts_plain_commands_tell_the_same(
    restricted: RedisServer, redis_collector: MakeCollector
) -> None:
    """Without permission for EVAL_RO, a stream that can be counted with plain commands is complete."""
    url = f"redis://bts@127.0.0.1:{restricted.port}"
    whole = testing.collect(redis_collector(url, PASSWORD, streams=("s",)))
    restricted.client.execute_command("ACL", "SETUSER", "bts", "-eval_ro")

    samples = testing.collect(redis_collector(url, PASSWORD, streams=("s",)))

    assert samples["redis_stream_group_lag"] == whole["redis_stream_group_lag"]
    assert samples["redis_stream_length"] == whole["redis_stream_length"]


def test_a_forbidden_stream_costs_only_itself(
    restricted: RedisServer, redis_collector: MakeCollector
) -> None:
    """A stream that the user may not read is reported; the other streams are served."""
    restricted.client.execute_command("ACL", "SETUSER", "bts", "resetkeys", "%R~s")
    url = f"redis://bts@127.0.0.1:{restricted.port}"

    samples, error = failure(redis_collector(url, PASSWORD, streams=("s", "secret")))

    assert error.reason == "noperm"
    assert samples["redis_stream_length"] == {("db0", "s"): 9}


def test_denied_databases_are_requested_once(
    restricted: RedisServer, redis_collector: MakeCollector
) -> None:
    """If CONFIG is denied, as in managed services, the server logs few refusals."""
    restricted.client.execute_command("ACL", "SETUSER", "bts", "-config|get")
    collector = redis_collector(f"redis://bts@127.0.0.1:{restricted.port}", PASSWORD)
    for _ in range(3):
        samples = testing.collect(collector)

    assert samples["redis_db_keys"] == {("db0",): 2}
    assert [entry["count"] for entry in restricted.client.acl_log()] == [1]


def test_a_list_under_the_name_of_a_stream(
    redis_server: RedisServer, redis_collector: MakeCollector
) -> None:
    """A key of the wrong type is reported; the other streams and INFO are served."""
    redis_server.client.rpush("list", 1)
    redis_server.client.xadd("stream", {"a": 1})

    samples, error = failure(redis_collector(redis_server.url, streams=("list", "stream")))

    assert error.reason == "protocol"
    assert "has a list named 'list'" in str(error)
    assert samples["redis_stream_length"] == {("db0", "stream"): 1}
    assert samples["redis_up"] == {(): 1}


def test_nothing_listens(redis_collector: MakeCollector) -> None:
    """A port without a listener has the reason `refused`, which `optional` accepts."""
    samples, error = failure(redis_collector(f"redis://127.0.0.1:{free_port()}"))

    assert error.reason == "refused"
    assert samples["redis_up"] == {(): 0}


def test_a_frozen_server(make_redis: MakeRedis, redis_collector: MakeCollector) -> None:
    """A frozen server is a timeout; when it continues, the next scrape succeeds."""
    server = make_redis()
    collector = redis_collector(server.url)
    testing.collect(collector)
    server.freeze()

    samples, error = failure(collector, seconds=2)

    assert error.reason == "timeout"
    assert samples["redis_up"] == {(): 0}
    server.thaw()
    assert testing.collect(collector)["redis_up"] == {(): 1}


def test_a_server_that_dies_and_returns(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """A dead server has the reason `refused`; when it is back, the next scrape succeeds."""
    server = make_redis()
    collector = redis_collector(server.url, keys=("queue", "q*"))
    testing.collect(collector)
    server.kill()

    assert failure(collector)[1].reason == "refused"

    server.restart()
    assert testing.collect(collector)["redis_up"] == {(): 1}
    server.kill()
    server.restart()
    assert testing.collect(collector)["redis_up"] == {(): 1}


def test_a_server_that_loads_its_data(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """While the server loads its data, INFO is served, and the reason is `loading`."""
    server = make_redis()
    with server.client.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(f"key:{number}", "x" * 100)
        pipeline.execute()
    server.client.save()
    server.kill()
    slow = make_redis(
        *("--dir", str(server.folder), "--key-load-delay", "10000"),
        *("--loading-process-events-interval-bytes", "1024"),
    )

    samples, error = failure(redis_collector(slow.url, keys=("key:1",)))

    assert error.reason == "loading"
    assert samples["redis_up"] == {(): 1}
    assert samples["redis_loading_dump_file"] == {(): 1}


@pytest.mark.parametrize("kept", [True, False])
def test_a_busy_script(
    make_redis: MakeRedis, redis_collector: MakeCollector, *, kept: bool
) -> None:
    """While a script blocks the server, the reason is `loading` at once; afterwards everything is served."""
    server = make_redis("--busy-reply-threshold", "10")
    collector = redis_collector(server.url)
    if kept:
        testing.collect(collector)
    runner = redis.Redis(port=server.port, retry=None)
    thread = threading.Thread(target=run_endlessly, args=(runner,))
    thread.start()
    wait_until(lambda: is_busy(server), "the script is too slow")

    samples, error = failure(collector)
    server.client.script_kill()
    thread.join(30)
    runner.close()

    assert (error.reason, "BUSY" in str(error)) == ("loading", True)
    assert samples["redis_up"] == {(): 0}
    assert testing.collect(collector)["redis_up"] == {(): 1}


def run_endlessly(client: redis.Redis) -> None:
    """Run a script until it is killed."""
    with pytest.raises(redis.ResponseError, match="killed"):
        client.eval("while true do end", 0)


def is_busy(server: RedisServer) -> bool:
    """Return whether the server refuses commands because of a script."""
    try:
        server.client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_a_server_that_dies_during_a_command(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """If a server is killed while it executes commands, the scrape fails at once, not at the deadline."""
    server = make_redis()
    collector = redis_collector(server.url)
    testing.collect(collector)
    server.freeze()
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(failure(collector, 120)[1].reason))
    thread.start()
    wait_until(collector._collecting.locked, "the collection is under way")

    server.kill()
    thread.join(60)

    assert reasons == ["refused"]


def test_a_server_that_drips(redis_collector: MakeCollector, redis_listener: Listen) -> None:
    """A server that keeps sending and never completes a reply is given up by the deadline."""

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"+OK\r\n")
        connection.recv(65536)
        connection.sendall(b"$1000000\r\n")
        pause = threading.Event()
        while not pause.wait(0.02):
            connection.sendall(b"x")

    samples, error = failure(redis_collector(str(redis_listener(drip))), seconds=1)

    assert error.reason == "timeout"
    assert samples["redis_up"] == {(): 0}


def test_stop_ends_a_collection_under_way(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """A collection that waits for a frozen server ends as soon as the collector is stopped."""
    server = make_redis()
    collector = redis_collector(server.url)
    testing.collect(collector)
    server.freeze()

    assert reason_when_stopped(collector) == "unreachable"


def test_a_failure_of_the_background_ends_with_its_cause(
    make_redis: MakeRedis, redis_collector: MakeCollector
) -> None:
    """An error of SCAN while the server was down is not reported after its return."""
    server = make_redis()
    collector = redis_collector(server.url, keys=("q*",))
    testing.collect(collector)
    collector._scanner.error = TargetError("refused", "nothing listens")
    assert failure(collector)[0]["redis_up"] == {(): 1}
    server.kill()
    failure(collector)
    server.restart()

    assert testing.collect(collector)["redis_up"] == {(): 1}


def test_a_limit_drops_no_verdict(redis_server: RedisServer, exporter: StartExporter) -> None:
    """With any limit on series, the page has redis_up and the reason of the error."""
    redis_server.client.rpush("list", 1)
    server = exporter(f"""
collectors:
  redis:
    - {{name: limited, url: "{redis_server.url}", max_series: 20, streams: [list]}}
    - {{name: down, url: "redis://127.0.0.1:{free_port()}", max_series: 2}}
""")

    for _ in range(2):
        samples = server.samples()
        errors = {
            dict(labels)["target"]: (samples["redis_up", labels], dict(error)["err"])
            for name, labels in samples
            if name == "redis_up"
            for other, error in samples
            if other == "redis_exporter_last_scrape_error" and labels <= error
        }
        assert errors == {"limited": (1, "protocol"), "down": (0, "refused")}
