from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields, Message, Parser, new_error, new_method_return

from bts_collectors.host.subsystems.systemd import Systemd, SystemdSettings, Unit, parse_units
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

ROOT = Path(__file__).parents[4]
#: Boots a real systemd in its own namespaces; the script is next to the repository.
SANDBOX = ROOT.parent / "shared" / "tools" / "systemd_sandbox.sh"

STATES = ("active", "activating", "deactivating", "inactive", "failed")


def row(
    name: str, state: str = "active", loaded: str = "loaded", path: str = ""
) -> tuple[Any, ...]:
    """Return a unit in the form of ListUnits of systemd 252."""
    return (name, "what it is", loaded, state, "sub", "", path or f"/unit/{name[0]}", 0, "", "/")


class FakeBus:
    """A bus with a systemd whose replies the test defines.

    `properties` are by `(path, name)`; other properties are refused.
    """

    def __init__(self, root: Path, path: str = "run/dbus/system_bus_socket") -> None:
        self.properties: dict[tuple[str, str], tuple[str, Any]] = {}
        self.units = [row("a.service"), row("b.mount"), row("c.socket", "failed")]
        self.greeting = b"OK 1234deadbeef\r\n"
        self.error = ""
        self.calls: list[str] = []
        self.on_call: Callable[[socket.socket, Message], bool] = lambda *_: True
        self.manager(Version="252.38-1~deb12u1", SystemState="degraded", Virtualization="kvm")
        path = str(root / path)
        Path(path).parent.mkdir(parents=True)
        self._server = socket.create_server(path, family=socket.AF_UNIX)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def manager(self, **values: str) -> None:
        """Set properties of systemd's manager."""
        for name, value in values.items():
            self.properties["/org/freedesktop/systemd1", name] = ("s", value)

    def stop(self) -> None:
        """End the bus; a connection that it holds is closed."""
        self._over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def hang(self, _: socket.socket, __: Message) -> bool:
        """Send no replies until the test is over."""
        self._over.wait()
        return False

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._server.accept()
                with connection:
                    self._talk(connection)
        except OSError:
            return

    def _talk(self, connection: socket.socket) -> None:
        said = b""
        while not said.endswith(b"BEGIN\r\n"):
            said += connection.recv(1024)
        connection.sendall(self.greeting)
        parser = Parser()
        while True:
            message = parser.get_next_message()
            if message is None:
                data = connection.recv(4096)
                if not data:
                    return
                parser.add_data(data)
            elif self.on_call(connection, message):
                connection.sendall(self._answer(message).serialise(message.header.serial))

    def _answer(self, call: Message) -> Message:
        member = call.header.fields[HeaderFields.member]
        self.calls.append(member)
        if self.error and member != "Hello":
            return new_error(call, self.error, "s", ("no",))
        if member == "Hello":
            return new_method_return(call, "s", (":1.7",))
        if member == "ListUnits":
            return new_method_return(call, "a(ssssssouso)", (self.units,))
        value = self.properties.get((call.header.fields[HeaderFields.path], call.body[1]))
        if value is None:
            return new_error(call, "org.freedesktop.DBus.Error.UnknownProperty", "s", ("no",))
        return new_method_return(call, "v", (value,))


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[FakeBus]:
    """Give a bus to the test."""
    bus = FakeBus(tmp_path)
    try:
        yield bus
    finally:
        bus.stop()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Samples]:
    """Give a function that collects from the host in `tmp_path` with some settings."""

    def run(seconds: float = 10.0, **kwargs: Any) -> Samples:
        config = Systemd.Config(rootfs=str(tmp_path), settings=SystemdSettings(**kwargs))
        return collect(Systemd(config), seconds)

    return run


def test_units(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """Run a shell script on the host, as root."""
    bus.properties["/unit/a", "Type"] = ("s", "notify")
    bus.units.append(row("d.service", "inactive", "not-found"))
    samples = run()

    assert samples["node_systemd_unit_state"] == {
        **{("a.service", state, "notify"): state == "active" for state in STATES},
        **{("c.socket", state, ""): state == "failed" for state in STATES},
    }
    assert samples["node_systemd_units"] == {
        ("active",): 2,
        ("activating",): 0,
        ("deactivating",): 0,
        ("inactive",): 1,
        ("failed",): 1,
    }


def test_systemd_itself(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """The version is a number and a label; a property that an older systemd lacks has no series."""
    samples = run()

    assert samples["node_systemd_version"] == {("252.38-1~deb12u1",): 252.38}
    assert samples["node_systemd_system_running"] == {(): 0}
    assert samples["node_systemd_virtualization_info"] == {("kvm",): 1}

    bus.manager(SystemState="running", Virtualization="")
    samples = run()

    assert samples["node_systemd_system_running"] == {(): 1}
    assert samples["node_systemd_virtualization_info"] == {("none",): 1}

    for name in ("SystemState", "Virtualization"):
        del bus.properties["/org/freedesktop/systemd1", name]
    assert run().keys() == {"node_systemd_version", "node_systemd_units", "node_systemd_unit_state"}


def test_numbers(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """Sockets, timers and services have numeric properties; a missing one has no series."""
    bus.units.append(row("t.timer"))
    bus.properties |= {
        ("/unit/a", "NRestarts"): ("u", 3),
        ("/unit/c", "NAccepted"): ("u", 10),
        ("/unit/c", "NConnections"): ("u", 2),
        ("/unit/t", "LastTriggerUSec"): ("t", 1_700_000_000_500_000),
    }
    samples = run()

    assert samples["node_systemd_service_restart_total"] == {("a.service",): 3}
    assert samples["node_systemd_socket_accepted_connections_total"] == {("c.socket",): 10}
    assert samples["node_systemd_socket_current_connections"] == {("c.socket",): 2}
    assert samples["node_systemd_timer_last_trigger_seconds"] == {("t.timer",): 1_700_000_000.5}
    assert "node_systemd_socket_refused_connections_total" not in samples


def test_tasks_and_start_times(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """They are read if enabled; an infinite limit has no series, and an inactive unit has the start 0."""
    bus.properties |= {
        ("/unit/a", "TasksCurrent"): ("t", 4),
        ("/unit/a", "TasksMax"): ("t", 2**64 - 1),
        ("/unit/a", "ActiveEnterTimestamp"): ("t", 5_000_000),
        ("/unit/c", "ActiveEnterTimestamp"): ("t", 7_000_000),
    }
    samples = run(tasks=True, start_time=True, restarts=False)

    assert samples["node_systemd_unit_tasks_current"] == {("a.service",): 4}
    assert "node_systemd_unit_tasks_max" not in samples
    assert samples["node_systemd_unit_start_time_seconds"] == {
        ("a.service",): 5,
        ("c.socket",): 0,
    }


def test_filters(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """Both expressions match whole names, and an empty one excludes nothing."""
    bus.units.append(row("a.service.d"))

    def units(**kwargs: Any) -> list[str]:
        return sorted({labels[0] for labels in run(**kwargs)["node_systemd_unit_state"]})

    assert units(unit_include=re.compile(r"a\.service")) == ["a.service"]
    assert units(unit_exclude=re.compile(r"a\.serv|c.*")) == ["a.service", "a.service.d", "b.mount"]
    assert units(unit_exclude=re.compile("")) == ["a.service", "a.service.d", "b.mount", "c.socket"]


def test_many_units(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """With more units than calls in flight each unit has its own value."""
    bus.units = [row(f"{n}.service", path=f"/unit/{n}") for n in range(100)]
    bus.properties = bus.properties | {(f"/unit/{n}", "NRestarts"): ("u", n) for n in range(100)}

    assert run()["node_systemd_service_restart_total"] == {(f"{n}.service",): n for n in range(100)}


def test_messages_that_are_not_replies(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """Messages that are not replies are ignored."""

    def chatter(connection: socket.socket, call: Message) -> bool:
        stray = new_method_return(call, "s", ("stray",))
        stray.header.fields[HeaderFields.reply_serial] = 4000
        connection.sendall(stray.serialise(1))
        return True

    bus.on_call = chatter

    assert run()["node_systemd_system_running"] == {(): 0}


def test_duplicate_reply(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A duplicate reply is not taken for that of another call."""
    bus.properties |= {("/unit/c", "NAccepted"): ("u", 1), ("/unit/c", "NConnections"): ("u", 2)}

    def stutter(connection: socket.socket, call: Message) -> bool:
        connection.sendall(bus._answer(call).serialise(1))
        return True

    bus.on_call = stutter

    assert run()["node_systemd_socket_current_connections"] == {("c.socket",): 2}


def test_private_socket(tmp_path: Path, run: Callable[..., Samples]) -> None:
    """Without a bus systemd is called directly, which does not know Hello."""
    bus = FakeBus(tmp_path, "run/systemd/private")
    try:
        assert run()["node_systemd_system_running"] == {(): 0}
        assert "Hello" not in bus.calls
    finally:
        bus.stop()


def test_no_systemd(run: Callable[..., Samples]) -> None:
    """Without either socket there is nothing to read."""
    with pytest.raises(NotPresent, match=r"system_bus_socket and .*private are absent"):
        run()


@pytest.mark.parametrize("error", ["ServiceUnknown", "NameHasNoOwner"])
def test_bus_without_systemd(bus: FakeBus, run: Callable[..., Samples], error: str) -> None:
    """A bus on a host with another init has nothing to read."""
    bus.error = f"org.freedesktop.DBus.Error.{error}"

    with pytest.raises(NotPresent, match="systemd is not connected to this bus"):
        run()


def test_policy_forbids_the_call(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A bus whose policy forbids the call is an error with the bus."""
    bus.error = "org.freedesktop.DBus.Error.AccessDenied"

    with pytest.raises(TargetError, match=r"system_bus_socket: refused: .*AccessDenied") as caught:
        run()
    assert caught.value.reason == "noperm"


def test_rejected(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A bus that does not accept the user is an authentication error."""
    bus.greeting = b"REJECTED EXTERNAL\r\n"

    with pytest.raises(TargetError, match="system_bus_socket: the bus does not accept") as caught:
        run()
    assert caught.value.reason == "auth"


def test_nothing_listens(tmp_path: Path, run: Callable[..., Samples]) -> None:
    """A socket without a listener is an error with the socket."""
    FakeBus(tmp_path).stop()

    with pytest.raises(ConnectionRefusedError, match="system_bus_socket"):
        run()


def test_closed(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A bus that closes the connection is an error with the socket."""

    def close(connection: socket.socket, _: Message) -> bool:
        connection.shutdown(socket.SHUT_RDWR)
        return False

    bus.on_call = close

    with pytest.raises(TargetError, match="system_bus_socket: the bus closed") as caught:
        run()
    assert caught.value.reason == "unreachable"


def test_hang(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """The collection ends at the deadline if the bus does not reply."""
    bus.on_call = bus.hang

    with pytest.raises(TargetError, match="system_bus_socket: systemd did not answer") as caught:
        run(seconds=0.2)
    assert caught.value.reason == "timeout"


def test_hang_in_the_middle(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """Samples from before systemd hung are served."""

    def hang_on_units(connection: socket.socket, call: Message) -> bool:
        units = call.header.fields[HeaderFields.member] == "ListUnits"
        return bus.hang(connection, call) if units else True

    bus.on_call = hang_on_units

    with pytest.raises(TargetError, match="did not answer in time"):
        run(seconds=0.5)
    assert bus.calls == ["Hello", "Get", "Get", "Get"]


def test_drip(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A bus that sends a byte now and then does not delay the collection beyond the deadline."""

    def drip(connection: socket.socket, call: Message) -> bool:
        over = bus._over
        for byte in new_method_return(call, "s", ("x" * 10_000,)).serialise(1):
            if over.wait(0.0001):
                return False
            connection.sendall(bytes([byte]))
        return False

    bus.on_call = drip

    with pytest.raises(TargetError, match="did not answer in time"):
        run(seconds=0.2)


def test_flood(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A bus that sends endless other messages does not either."""

    def flood(connection: socket.socket, call: Message) -> bool:
        stray = new_method_return(call, "s", ("stray",))
        stray.header.fields[HeaderFields.reply_serial] = 4000
        much = stray.serialise(1) * 1000
        while True:  # until the connection is closed
            connection.sendall(much)

    bus.on_call = flood

    with pytest.raises(TargetError, match="did not answer in time"):
        run(seconds=0.2)


def test_garbage(bus: FakeBus, run: Callable[..., Samples]) -> None:
    """A reply that is not D-Bus is an error with the bus."""

    def noise(connection: socket.socket, _: Message) -> bool:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return False

    bus.on_call = noise

    with pytest.raises(
        TargetError, match="system_bus_socket: the reply is not valid D-Bus"
    ) as caught:
        run()
    assert caught.value.reason == "protocol"


def test_opt_in() -> None:
    """As in node_exporter, the subsystem is off by default."""
    assert not Systemd.by_default


def test_state_of_a_newer_systemd() -> None:
    """An unknown state is counted under its name."""
    units, states = parse_units([row("a.service", "refreshing"), row("b.service", loaded="masked")])

    assert units == [Unit("a.service", "refreshing", "/unit/a")]
    assert states == {**dict.fromkeys(STATES, 0), "refreshing": 1, "active": 1}


class RealMachine:
    """A host with systemd as its first process, and one failed service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command(str(SANDBOX), "up", str(folder))
        self._pid = (folder / "pid").read_text().strip()
        self.root = Path(f"/proc/{self._pid}/root")

    def run(self, script: str) -> None:
        """Run a shell script on the machine, as root."""
        self._command(str(SANDBOX), "run", str(self._folder), "bash", "-euc", script)

    def among_its_processes(self, *command: str) -> str:
        """Return the output of a command that has our files and the host's process ids."""
        return self._command("nsenter", f"--target={self._pid}", "--pid", *command)

    def shut_down(self) -> None:
        """End everything on the host."""
        self._command(str(SANDBOX), "down", str(self._folder))

    def _command(self, *argv: str) -> str:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            argv, env=env, timeout=60, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMachine]:
    """Give a host with a real systemd."""
    if not SANDBOX.exists():
        pytest.skip("not everywhere: no sandbox for systemd next to the repository")
    if os.geteuid() != 0 or shutil.which("systemctl") is None:
        pytest.skip("not everywhere: the sandbox takes root and systemd")
    machine = RealMachine(tmp_path_factory.mktemp("systemd"))
    try:
        machine.run(FAILING)
        yield machine
    finally:
        machine.shut_down()


FAILING = """
cat > /run/systemd/system/fails.service <<'END'
[Service]
Type=oneshot
ExecStart=/bin/false
END
systemctl daemon-reload
systemctl start fails.service || true
# The bus starts when it is first used, and systemd joins it then.
until busctl status org.freedesktop.systemd1 > /dev/null 2>&1; do sleep 0.05; done
"""


@pytest.mark.live
def test_real_systemd(real: RealMachine) -> None:
    """A failed service on a real host is served."""
    samples = collect(Systemd(Systemd.Config(rootfs=str(real.root))))
    (version,) = samples["node_systemd_version"].values()

    assert samples["node_systemd_unit_state"]["fails.service", "failed", "oneshot"] == 1
    assert samples["node_systemd_unit_state"]["fails.service", "active", "oneshot"] == 0
    assert samples["node_systemd_units"][("failed",)] >= 1
    assert samples["node_systemd_system_running"] == {(): 0}
    assert samples["node_systemd_service_restart_total"][("fails.service",)] == 0
    assert samples["node_systemd_timer_last_trigger_seconds"]
    assert version > 200
    assert not [name for name, *_ in samples["node_systemd_unit_state"] if name.endswith(".mount")]


SCRIPT = """
import sys
from bts_collectors.host.subsystems.systemd import Systemd
from bts_exporter.testing import collect

for _ in range(20):
    samples = collect(Systemd(Systemd.Config(rootfs=sys.argv[1])))
print(samples["node_systemd_unit_state"]["fails.service", "failed", "oneshot"])
"""


@pytest.mark.live
def test_real_systemd_without_a_bus(real: RealMachine, tmp_path: Path) -> None:
    """Without a bus systemd replies to root directly, in each scrape."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "systemd").symlink_to(real.root / "run" / "systemd")

    # systemd checks the process id of its peer.
    assert real.among_its_processes(sys.executable, "-c", SCRIPT, str(tmp_path)) == "1\n"
