"""`bts-exporter check --connect` with real servers: targets, patterns, optional targets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers import free_port
from servers.mosquitto import StartMosquitto
from servers.redis import RedisServer
from stubs import environment

pytestmark = pytest.mark.live

BTS_EXPORTER = (sys.executable, "-m", "bts_exporter")


def check(folder: Path, collectors: str, *flags: str) -> tuple[int, list[str], str]:
    """Return exit code, the lines on standard output behind the first, and standard error."""
    config = folder / "config.yaml"
    config.write_text(f"collectors:\n{collectors}")
    done = subprocess.run(
        [*BTS_EXPORTER, f"--config.file={config}", *flags, "check", "--connect"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()[1:], done.stderr


def test_patterns_say_what_they_matched(redis_server: RedisServer, tmp_path: Path) -> None:
    """Each pattern of a Redis has the number of names that it matched, none among them."""
    for number in range(3):
        redis_server.client.xadd(f"bts:{number}", {"a": 1})
    redis_server.client.set("bts:text", "no stream")
    redis_server.client.rpush("jobs:1", 1)

    code, [line], stderr = check(
        tmp_path,
        f"  redis:\n    url: {redis_server.url}\n"
        '    streams: ["bts:*", "btx:*", named]\n    keys: ["jobs:*"]\n',
    )

    assert (code, stderr) == (0, "")
    said = line.split("; ")
    assert said[0] == "redis: ok"
    assert said[1].endswith(" series")
    assert int(said[1].split()[0]) > 100
    assert said[2:] == [
        "streams: 3 names match bts:*",
        "streams: 0 names match btx:*",
        "keys: 1 name matches jobs:*",
    ]


def test_queues_are_counted_as_the_settings_name_them(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Patterns of queues are those of the settings, and count queues; libraries' own keys are not shown."""
    redis_server.client.rpush("mail.in", 1)
    redis_server.client.rpush("mail.out\x06\x163", 1)

    code, [line], _ = check(
        tmp_path, f"  redis: {{url: '{redis_server.url}', queues: {{celery: [mail.*, x.*]}}}}\n"
    )

    assert code == 0
    assert line.split("; ")[2:] == [
        "queues.celery: 2 queues match mail.*",
        "queues.celery: 0 queues match x.*",
    ]


def test_failures_come_first_and_what_is_absent_last(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """The order is that of importance, and the parts of the host that are fine are one line."""
    code, lines, _ = check(
        tmp_path,
        f"  host: {{cgroup_group: {{names: [x]}}}}\n  redis: {{url: '{redis_server.url}'}}\n"
        f"  mqtt: {{url: 'mqtt://127.0.0.1:{free_port()}'}}\n",
    )

    assert code == 1
    assert [line.partition(":")[0] for line in lines] == ["mqtt", "redis", "host", "host"]
    assert lines[0].startswith("mqtt: FAILS (refused): ")
    assert lines[3].startswith("host: nothing to read for: ")


def test_rules_say_how_many_messages_came(start_mosquitto: StartMosquitto, tmp_path: Path) -> None:
    """Of each rule of an MQTT broker the messages are counted that came while it was tried."""
    broker = start_mosquitto()
    broker.publish("bts/7/122", "5", retain=True)

    code, [line], _ = check(
        tmp_path,
        f"  mqtt:\n    url: {broker.url}\n    rules:\n"
        "      near: {topic: 'bts/#', metrics: {near_total: {type: counter}}}\n"
        "      far: {topic: 'far/#', metrics: {far_total: {type: counter}}}\n",
    )

    assert code == 0
    assert line.startswith("mqtt: ok; ")
    assert "; rules.near: 1 message matches bts/# so far" in line
    assert "; rules.far: 0 messages match far/# so far" in line


def test_failures_are_told_once(tmp_path: Path) -> None:
    """Each target that does not answer has one line on standard output, and none in the log."""
    ports = [free_port() for _ in range(3)]
    code, lines, stderr = check(
        tmp_path,
        f"  redis: {{url: 'redis://127.0.0.1:{ports[0]}'}}\n"
        f"  rabbitmq: {{url: 'http://127.0.0.1:{ports[1]}'}}\n"
        f"  mqtt: {{url: 'mqtt://127.0.0.1:{ports[2]}'}}\n",
    )

    assert (code, stderr) == (1, "")
    assert [line.partition(":")[0] for line in lines] == ["redis", "rabbitmq", "mqtt"]
    assert all("FAILS (refused): " in line for line in lines)


def test_log_is_there_for_who_asks_for_it(tmp_path: Path) -> None:
    """With --log.level=info the log is shown as well."""
    url = f"redis://127.0.0.1:{free_port()}"
    _, [line], stderr = check(tmp_path, f"  redis: {{url: '{url}'}}\n", "--log.level=info")

    assert "FAILS (refused)" in line
    assert "collection fails" in stderr


@pytest.mark.parametrize("there", [True, False])
def test_absence_of_an_optional_target_is_not_reported(
    there: bool, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The output says that the absence of an optional target is not reported, whether it answers or not."""
    url = redis_server.url if there else f"redis://127.0.0.1:{free_port()}"

    code, [line], stderr = check(tmp_path, f"  redis: {{url: '{url}', optional: true}}\n")

    assert (code, stderr) == (0, "")
    assert line.startswith("redis: ok; " if there else "redis: nothing to read: not there")
    assert line.endswith(
        "; optional: its absence will not be reported as a failure (delete `optional: true` if it must be there)"
    )


def test_host_is_never_absent(tmp_path: Path) -> None:
    """Of the machine itself nothing is said about `optional`: it is there."""
    code, lines, _ = check(tmp_path, "  host: {optional: true}\n")

    assert code == 0
    assert re.match("host: ok; [0-9]+ collectors, [0-9]+ series", lines[0])
    assert [line for line in lines if "absence" in line] == []


def test_groups_of_processes_say_how_many_there_are(tmp_path: Path) -> None:
    """Each group has the number of its processes and the expressions that found them."""
    code, lines, _ = check(
        tmp_path,
        "  host:\n    enable: [process_group]\n    process_group:\n      groups:\n"
        "        - {name: me, cmdline: check.--connect, user: .}\n"
        "        - {name: none, comm: ^nowhere$}\n",
    )

    [line] = [line for line in lines if line.startswith("process_group: ")]
    assert code == 0
    assert re.search(
        "; group me: [1-9][0-9]* process(es)? match(es)? cmdline check.--connect and", line
    )
    assert "; group none: 0 processes match comm ^nowhere$" in line
