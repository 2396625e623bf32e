"""A RabbitMQ broker of our own with the management plug-in, and an AMQP consumer to attach to it."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pika
import pytest

from servers import Process, listens, need, wait_until

PACKAGE = "rabbitmq-server"

PLUGINS = (
    "rabbitmq_management",
    "rabbitmq_prometheus",
    "rabbitmq_stream",
    "rabbitmq_stream_management",
)
CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {mgmt}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {native}
stream.listeners.tcp.1 = 127.0.0.1:{stream}
stream.advertised_host = 127.0.0.1
stream.advertised_port = {stream}
log.console = true
log.console.level = info
log.file = false
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 1GB
collect_statistics_interval = 1000
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
"""

#: A node that finds another when it starts first is in one cluster with it from then on.
CLUSTERED = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {peer}
"""

#: One scheduler that does not spin, and no port but those of loopback.
ERLANG_ARGUMENTS = (
    "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
)


class RabbitMQ:
    """A broker with guest/guest, its own Erlang port mapper, and its statistics a second apart."""

    def __init__(self, folder: Path, config: str = "", peer: RabbitMQ | None = None) -> None:
        """Start a broker; with `peer` in one cluster with that."""
        # Debian's /usr/sbin/rabbitmq-server changes to another user; the real one is in this folder.
        self._programs = Path(need("rabbitmq-env", PACKAGE)).parent
        self._folder = folder
        self.amqp, self.mgmt, self.native, self.stream, self._distribution, self._epmd_port = (
            quiet_port() for _ in range(6)
        )
        self.url = f"http://127.0.0.1:{self.mgmt}"
        self.native_url = f"http://127.0.0.1:{self.native}"
        self.amqp_url = f"amqp://127.0.0.1:{self.amqp}"
        self.node = f"test-{self.amqp}@localhost"
        for name in ("home", "conf.d", "broker", "epmd"):
            (folder / name).mkdir()
        cookie = folder / "home/.erlang.cookie"
        self._cookie = peer._cookie if peer else uuid.uuid4().hex
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        (folder / "env.conf").touch()
        (folder / "plugins").write_text(f"[{','.join(PLUGINS)}].\n")
        (folder / "rabbitmq.conf").write_text(
            CONFIG.format(amqp=self.amqp, mgmt=self.mgmt, native=self.native, stream=self.stream)
            + (CLUSTERED.format(peer=peer.node) if peer else "")
            + config
        )
        if peer:
            self._epmd_port = peer._epmd_port
        self._env = self._environment()
        self._epmd = None if peer else self._start_epmd()
        try:
            self.process = self._start()
        except BaseException:
            self._stop_epmd()
            raise

    def restart(self) -> None:
        """End the broker at once and start it again with the same ports; durable queues survive."""
        self.process.kill()
        self.process = self._start()

    def stop(self) -> None:
        """End the broker and its port mapper."""
        self.process.kill()
        self._stop_epmd()

    def ctl(self, *arguments: str) -> str:
        """Return what `rabbitmqctl` prints; CalledProcessError when it fails."""
        return subprocess.run(
            [self._programs / "rabbitmqctl", *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def api(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Return the decoded answer of the management API to guest; AssertionError for an error."""
        status, answer = self._request(method, path, body)
        assert status < HTTPStatus.BAD_REQUEST, f"{method} {path}: {status} {answer.decode()}"
        return json.loads(answer) if answer else None

    def vhost(self, name: str) -> None:
        """Make a virtual host that guest may use."""
        self.api(f"vhosts/{quote(name, '')}", "PUT", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api(f"permissions/{quote(name, '')}/guest", "PUT", everything)

    def user(self, name: str, password: str, tags: str) -> None:
        """Make a user without permissions."""
        self.api(f"users/{quote(name, '')}", "PUT", {"password": password, "tags": tags})

    def queue(self, name: str, vhost: str = "/", **arguments: object) -> None:
        """Declare a durable queue; `_` in the names of arguments stands for `-`."""
        spelled = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        path = f"queues/{quote(vhost, '')}/{quote(name, '')}"
        self.api(path, "PUT", {"durable": True, "arguments": spelled})

    def wait_for_statistics(self, queues: Sequence[str]) -> None:
        """Return when the broker reports a depth of each of these queues in the default virtual host."""

        def has_all() -> bool:
            known = {each["name"] for each in self.api("queues/%2F") if "messages_ready" in each}
            return known >= set(queues)

        wait_until(has_all, f"statistics of {queues}", 60)

    def publish(self, queue: str, count: int, vhost: str = "/", **properties: object) -> None:
        """Publish `count` messages to a queue; AssertionError where one did not get there."""
        path = f"exchanges/{quote(vhost, '')}/amq.default/publish"
        message = {"routing_key": queue, "payload": "x", "payload_encoding": "string"}
        for _ in range(count):
            answer = self.api(path, "POST", message | {"properties": properties})
            assert answer["routed"], f"{queue} in {vhost} got no message"

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Give a channel that stays open: what is done in a short one the broker may never count."""
        address = pika.ConnectionParameters("127.0.0.1", self.amqp, heartbeat=0)
        connection = pika.BlockingConnection(address)
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel
        finally:
            connection.close()

    def get(self, queue: str, count: int, vhost: str = "/") -> None:
        """Take messages out of a queue, acknowledged."""
        path = f"queues/{quote(vhost, '')}/{quote(queue, '')}/get"
        taken = {"count": count, "ackmode": "ack_requeue_false", "encoding": "auto"}
        assert len(self.api(path, "POST", taken)) == count

    def _start_epmd(self) -> Process:
        port = self._epmd_port
        argv = [need("epmd", PACKAGE), "-address", "127.0.0.1", "-port", str(port)]
        epmd = Process(argv, self._folder / "epmd")
        epmd.ready(lambda: listens(port))
        return epmd

    def _stop_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()

    def _start(self) -> Process:
        folder = self._folder / "broker"
        log = folder / "out.log"
        read = log.stat().st_size if log.exists() else 0
        process = Process([str(self._programs / "rabbitmq-server")], folder, self._env)
        process.ready(lambda: b"Server startup complete" in log.read_bytes()[read:], seconds=120)
        wait_until(self._answers, "the management API answers")
        return process

    def _answers(self) -> bool:
        try:
            return self._request("GET", "overview", None)[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _request(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.mgmt, timeout=20)
        try:
            credentials = b64encode(b"guest:guest").decode()
            headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/api/{path}", content, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": "/dev/null",
            # The start script then becomes the broker instead of its parent: one process to end.
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_ARGUMENTS,
        }


class AmqpConsumer:
    """A consumer over AMQP 0-9-1 that takes messages and never acknowledges one."""

    def __init__(self, port: int, queue: str, *, auto_ack: bool, prefetch: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._await(10, 10)
        login = struct.pack(">L", 0) + _short("PLAIN") + _long(b"\0guest\0guest") + _short("en_US")
        self._send(0, (10, 11), login)
        self._await(10, 30)
        self._send(0, (10, 31), struct.pack(">HLH", 2047, 131072, 0))
        self._send(0, (10, 40), _short("/") + _short("") + b"\0")
        self._await(10, 41)
        self._send(1, (20, 10), _short(""))
        self._await(20, 11)
        self._send(1, (60, 10), struct.pack(">LHB", 0, prefetch, 0))
        self._await(60, 11)
        flags = struct.pack(">BL", 2 if auto_ack else 0, 0)
        self._send(1, (60, 20), b"\0\0" + _short(queue) + _short("") + flags)
        self._await(60, 21)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def _send(self, channel: int, method: tuple[int, int], arguments: bytes) -> None:
        payload = struct.pack(">HH", *method) + arguments
        frame = struct.pack(">BHL", 1, channel, len(payload)) + payload + b"\xce"
        self._socket.sendall(frame)

    def _await(self, *method: int) -> None:
        _, _, size = struct.unpack(">BHL", self._stream.read(7))
        payload = self._stream.read(size + 1)
        assert struct.unpack(">HH", payload[:4]) == method, payload


def quiet_port() -> int:
    """Return a free port that no outgoing connection is given before the broker, seconds later, listens."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _short(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


def _long(content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + content


def start(tmp_path_factory: pytest.TempPathFactory, config: str = "") -> RabbitMQ:
    """Start a broker in a folder of its own."""
    return RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), config)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """Return a broker that all tests of the session share: queues differ by their names."""
    broker = start(tmp_path_factory)
    yield broker
    broker.stop()
