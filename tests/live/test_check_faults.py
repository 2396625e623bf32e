"""`bts-exporter check --connect` with the common faults: each is named, with its cure."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import free_port
from servers.certificates import Certificates
from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer
from stubs import environment

pytestmark = pytest.mark.live

#: Type, settings of the target, reason, and words that name the fault and its cure.
FAULTS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "redis wrong password": ("redis", "url: redis://127.0.0.1:{redis_auth}, password: wrong", "auth", ("password",)),
    "redis no password": ("redis", "url: redis://127.0.0.1:{redis_auth}", "auth", ("password",)),
    "redis wrong user": ("redis", "url: redis://nobody@127.0.0.1:{redis_auth}, password: secret", "auth", ("user",)),
    "redis no permission": ("redis", "url: redis://limited@127.0.0.1:{redis_auth}, password: limited", "noperm", ("+info",)),
    "redis is AMQP": ("redis", "url: redis://127.0.0.1:{amqp}", "protocol", ("AMQP",)),
    "redis is HTTP": ("redis", "url: redis://127.0.0.1:{mgmt}", "protocol", ("HTTP",)),
    "redis is MQTT": ("redis", "url: redis://127.0.0.1:{mqtt}", "", ("6379",)),
    "redis TLS to plain": ("redis", "url: rediss://127.0.0.1:{redis}", "timeout", ("redis://",)),
    "redis plain to TLS": ("redis", "url: redis://127.0.0.1:{redis_tls}", "", ("rediss://",)),
    "redis certificate": ("redis", "url: rediss://127.0.0.1:{redis_tls}", "tls", ("tls.ca_file",)),
    "redis name": ("redis", "url: redis://no-such-host.invalid", "dns", ("does not resolve",)),
    "redis refused": ("redis", "url: redis://127.0.0.1:{closed}", "refused", ("running",)),
    "redis silent": ("redis", "url: redis://127.0.0.1:{silent}", "timeout", ("{silent}",)),
    "redis database": ("redis", "url: redis://127.0.0.1:{redis}/99", "", ("99",)),
    "rabbitmq wrong password": ("rabbitmq", "url: http://guest@127.0.0.1:{mgmt}, password: wrong", "auth", ("password",)),
    "rabbitmq no tag": ("rabbitmq", "url: http://untagged:untagged@127.0.0.1:{mgmt}", "", ("monitoring",)),
    "rabbitmq no vhost permission": ("rabbitmq", "url: amqp://untagged:untagged@127.0.0.1:{amqp}/, declare: [q]", "noperm", ("permission",)),
    "rabbitmq no such vhost": ("rabbitmq", "url: amqp://guest:guest@127.0.0.1:{amqp}/nothing, declare: [q]", "", ("nothing",)),
    "rabbitmq AMQP wrong password": ("rabbitmq", "url: amqp://guest:wrong@127.0.0.1:{amqp}, declare: [q]", "auth", ("password",)),
    "rabbitmq is AMQP": ("rabbitmq", "url: http://guest:guest@127.0.0.1:{amqp}", "unreachable", ("15672",)),
    "rabbitmq is Redis": ("rabbitmq", "url: http://guest:guest@127.0.0.1:{redis}", "unreachable", ("15672",)),
    "rabbitmq is MQTT": ("rabbitmq", "url: http://guest:guest@127.0.0.1:{mqtt}", "", ("15672",)),
    "rabbitmq AMQP is HTTP": ("rabbitmq", "url: amqp://guest:guest@127.0.0.1:{mgmt}, declare: [q]", "", ("5672",)),
    "rabbitmq TLS to plain": ("rabbitmq", "url: https://guest:guest@127.0.0.1:{mgmt}", "tls", ("http://",)),
    "rabbitmq plain to TLS": ("rabbitmq", "url: http://guest:guest@127.0.0.1:{redis_tls}", "", ("https://",)),
    "rabbitmq AMQP TLS to plain": ("rabbitmq", "url: amqps://guest:guest@127.0.0.1:{amqp}, declare: [q]", "tls", ("amqp://",)),
    "rabbitmq AMQP plain to TLS": ("rabbitmq", "url: amqp://guest:guest@127.0.0.1:{redis_tls}, declare: [q]", "", ("5671",)),
    "rabbitmq AMQP is Redis": ("rabbitmq", "url: amqp://guest:guest@127.0.0.1:{redis}, declare: [q]", "", ("5672",)),
    "rabbitmq AMQP refused": ("rabbitmq", "url: amqp://127.0.0.1:{closed}, declare: [q]", "refused", ("running",)),
    "rabbitmq certificate": ("rabbitmq", "url: https://127.0.0.1:{redis_tls}", "tls", ("tls.ca_file",)),
    "rabbitmq name": ("rabbitmq", "url: http://no-such-host.invalid:15672", "dns", ("does not resolve",)),
    "rabbitmq refused": ("rabbitmq", "url: http://127.0.0.1:{closed}", "refused", ("management",)),
    "rabbitmq silent": ("rabbitmq", "url: http://127.0.0.1:{silent}", "timeout", ("{silent}",)),
    "mqtt wrong password": ("mqtt", "url: mqtt://user@127.0.0.1:{mqtt_auth}, password: wrong", "auth", ("password",)),
    "mqtt no password": ("mqtt", "url: mqtt://127.0.0.1:{mqtt_auth}", "auth", ("user",)),
    "mqtt ACL of $SYS": ("mqtt", "url: mqtt://user@127.0.0.1:{mqtt_auth}, password: secret", "noperm", ("ACL", "$SYS")),
    "mqtt is Redis": ("mqtt", "url: mqtt://127.0.0.1:{redis}", "", ("1883",)),
    "mqtt is HTTP": ("mqtt", "url: mqtt://127.0.0.1:{mgmt}", "", ("HTTP",)),
    "mqtt is AMQP": ("mqtt", "url: mqtt://127.0.0.1:{amqp}", "", ("AMQP",)),
    "mqtt TLS to plain": ("mqtt", "url: mqtts://127.0.0.1:{mqtt}", "", ("mqtt://",)),
    "mqtt plain to TLS": ("mqtt", "url: mqtt://127.0.0.1:{mqtt_tls}", "", ("mqtts://",)),
    "mqtt certificate": ("mqtt", "url: mqtts://127.0.0.1:{mqtt_tls}", "tls", ("tls.ca_file",)),
    "mqtt WebSocket to plain": ("mqtt", "url: ws://127.0.0.1:{mqtt}", "", ("mqtt://",)),
    "mqtt name": ("mqtt", "url: mqtt://no-such-host.invalid", "dns", ("does not resolve",)),
    "mqtt refused": ("mqtt", "url: mqtt://127.0.0.1:{closed}", "refused", ("1883",)),
    "mqtt silent": ("mqtt", "url: mqtt://127.0.0.1:{silent}", "timeout", ("{silent}",)),
    "host procfs": ("host", "procfs: /tmp, enable: [meminfo]", "", ("procfs",)),
}  # fmt: skip


def mosquitto_of(folder: Path, *settings: str, anonymous: bool) -> Mosquitto:
    """Return a running broker with a user that may read nothing."""
    folder.mkdir()
    broker = Mosquitto(
        folder,
        f"password_file {folder}/passwords",
        f"acl_file {folder}/acl",
        *settings,
        anonymous=anonymous,
    )
    (folder / "acl").write_text("topic readwrite public/#\n")
    (folder / "acl").chmod(0o600)
    broker.add_user("user", "secret")
    broker.start()
    return broker


@pytest.fixture(scope="module")
def servers(
    rabbitmq: RabbitMQ, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, int]]:
    """Return the ports of servers that are all in order, and of some that are not."""
    root = tmp_path_factory.mktemp("servers")
    rabbitmq.user("untagged", "untagged", "")
    tls = (
        "--tls-cert-file",
        str(certificates.server),
        "--tls-key-file",
        str(certificates.server_key),
    )
    tls_port = free_port()
    redis = RedisServer(tmp_path_factory.mktemp("redis"), "--tls-port", str(tls_port), "--tls-auth-clients", "no", *tls)  # fmt: skip
    auth = RedisServer(tmp_path_factory.mktemp("auth"), "--requirepass", "secret",
                       "--user", "limited", "on", ">limited", "~*", "+ping")  # fmt: skip
    listener = f"certfile {certificates.server}", f"keyfile {certificates.server_key}"
    brokers = [
        mosquitto_of(root / "open", anonymous=True),
        mosquitto_of(root / "closed", anonymous=False),
        mosquitto_of(root / "tls", *listener, anonymous=True),
    ]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield {
            "redis": redis.port,
            "redis_auth": auth.port,
            "redis_tls": tls_port,
            "amqp": rabbitmq.amqp,
            "mgmt": rabbitmq.mgmt,
            "mqtt": brokers[0].port,
            "mqtt_auth": brokers[1].port,
            "mqtt_tls": brokers[2].port,
            "closed": free_port(),
            "silent": silent.getsockname()[1],
        }
    for server in (redis, auth, *brokers):
        server.kill()


@pytest.fixture(scope="module")
def report(servers: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what one check with all faults says of each."""
    lines = ["scrape_timeout: 4s", "collectors:"]
    for kind in ("redis", "rabbitmq", "mqtt", "host"):
        lines.append(f"  {kind}:")
        lines += [
            f"  - {{name: {name}, {settings.format(**servers)}}}"
            for name, (of, settings, *_) in FAULTS.items()
            if of == kind
        ]
    config = tmp_path_factory.mktemp("check") / "config.yaml"
    config.write_text("\n".join(lines))
    argv = [sys.executable, "-m", "bts_exporter", f"--config.file={config}", "check", "--connect"]
    done = subprocess.run(
        argv, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    return dict(re.findall(r"^\w+\[(.*?)\]: (FAILS.*)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_with_its_cure(
    name: str, report: dict[str, str], servers: dict[str, int]
) -> None:
    """The line has the reason, and words that name the fault and the place to change."""
    _, _, reason, words = FAULTS[name]
    said = report[name]

    assert said.startswith(f"FAILS ({reason}" if reason else "FAILS")
    assert [word for word in words if word.format(**servers) not in said] == []
