"""Debian's mosquitto: `mosquitto` is a running one, `start_mosquitto` makes one with settings of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import Process, free_port, listens, need

StartMosquitto = Callable[..., "Mosquitto"]


class Mosquitto:
    """A broker that publishes `$SYS` every second; without `persistence` it keeps nothing when it ends."""

    def __init__(
        self, folder: Path, *settings: str, anonymous: bool = True, persistence: bool = False
    ) -> None:
        """Take more lines of mosquitto.conf as `settings`."""
        self.program = need("mosquitto", "mosquitto")
        self.folder = folder
        self.port = free_port()
        self.settings = settings
        self.anonymous = anonymous
        self.persistence = persistence
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """Return its address, without user and password."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again on the same port, and wait until it listens."""
        lines = [
            "sys_interval 1",
            f"persistence {str(self.persistence).lower()}",
            "user root",  # or it gives up root and cannot read its folder
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(self.anonymous).lower()}",
            *self.settings,
        ]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = Process([self.program, "-c", str(config)], self.folder)
        self.process.ready(lambda: listens(self.port))

    def kill(self) -> None:
        """End it at once; `start` starts it again."""
        if self.process:
            self.process.kill()

    def freeze(self) -> None:
        """Stop it where it is: connections stay open and nothing answers."""
        assert self.process
        self.process.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        assert self.process
        self.process.thaw()

    def add_user(self, name: str, password: str) -> None:
        """Put a user into the file `passwords` in its folder, for the setting `password_file`."""
        passwords = self.folder / "passwords"
        passwords.touch(mode=0o600)
        program = need("mosquitto_passwd", "mosquitto")
        subprocess.run([program, "-b", passwords, name, password], check=True, capture_output=True)

    def publish(
        self, topic: str, payload: str | bytes = "x", *, count: int = 1, retain: bool = False
    ) -> None:
        """Publish with QoS 1, and return when the broker has acknowledged all of it."""
        raw = payload if isinstance(payload, bytes) else payload.encode()
        options = ["-q", "1", "--repeat", str(count), "-t", topic, *(["-r"] if retain else [])]
        self._client("mosquitto_pub", *options, *(["-s"] if raw else ["-n"]), given=raw)

    def subscribe_and_leave(self, client_id: str, topic: str) -> None:
        """Leave a session behind that subscribes to `topic` with QoS 1 and is not connected."""
        self._client("mosquitto_sub", "-i", client_id, "-c", "-q", "1", "-t", topic, "-E")

    def _client(self, program: str, *options: str, given: bytes = b"") -> None:
        argv = [need(program, "mosquitto-clients"), "-p", str(self.port), *options]
        subprocess.run(argv, input=given, check=True, capture_output=True, timeout=20)


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """Return a function that starts a broker: lines of mosquitto.conf, `anonymous=`, `users=`."""
    brokers: list[Mosquitto] = []

    def start(
        *settings: str, anonymous: bool = True, users: dict[str, str] | None = None
    ) -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(brokers)}"
        folder.mkdir()
        if users:
            settings = (*settings, f"password_file {folder / 'passwords'}")
        broker = Mosquitto(folder, *settings, anonymous=anonymous)
        brokers.append(broker)
        for name, password in (users or {}).items():
            broker.add_user(name, password)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: StartMosquitto) -> Mosquitto:
    """Return a running broker that lets anybody in."""
    return start_mosquitto()
