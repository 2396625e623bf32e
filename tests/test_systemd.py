"""The unit file: what it must not switch on, what systemd thinks of it, and the service it makes."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers import free_port, listens, wait_until
from servers.redis import MakeRedis

ROOT = Path(__file__).parents[1]
#: What `pip install .` and the unit's head need.
SOURCES = ("setup.py", "pyproject.toml", "README.md", "exporters", "collectors", "systemd")
UNIT = ROOT / "systemd" / "bts-exporter.service"
#: Boots a real systemd in namespaces of its own; it lies beside the repository where we develop.
SANDBOX = ROOT.parent / "shared" / "tools" / "systemd_sandbox.sh"
#: Highest exposure, in tenths, that `systemd-analyze security` may find: without host metrics'
#: needs (the machine's network, processes, clock) nothing above 2.1 is left.
EXPOSURE = 21


def setting(name: str) -> list[str]:
    """Return the values that the unit file gives to a setting, in their order."""
    return [
        line.partition("=")[2]
        for line in UNIT.read_text().splitlines()
        if line.startswith(f"{name}=")
    ]


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        pytest.param("ProtectProc", "default", id="hides /proc/1/mountinfo"),
        pytest.param("ProcSubset", "all", id="hides /proc/stat, /proc/meminfo and the rest"),
        pytest.param("ProtectClock", "no", id="forbids adjtimex"),
        pytest.param("ProtectHostname", "no", id="keeps the name of a renamed machine"),
        pytest.param("PrivateNetwork", "no", id="hides the machine's interfaces"),
        pytest.param("ProtectHome", "read-only", id="hides file systems below /home"),
    ],
)
def test_hardening_takes_no_metrics_away(name: str, harmless: str) -> None:
    """Settings that were seen to take host metrics away are left alone."""
    assert set(setting(name)) <= {harmless}


def test_tmp_is_the_machines_own() -> None:
    """DynamicUser implies a /tmp of the unit's own, which has another size and hides mounts."""
    assert setting("PrivateTmp") == ["yes"]
    assert setting("BindReadOnlyPaths") == ["/tmp /var/tmp"]


def test_limits_leave_headroom() -> None:
    """The unit bounds memory, threads and files, at least at twice what was measured at most."""
    assert setting("MemoryMax") == ["1G"]
    assert int(setting("TasksMax")[0]) >= 2 * (128 + 64)
    assert int(setting("LimitNOFILE")[0]) >= 2 * 1500


def test_systemd_finds_no_fault(installed: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the unit."""
    done = run(systemd_analyze(), "verify", str(installed))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_is_hardened(installed: Path) -> None:
    """`systemd-analyze security` finds no more exposure than host metrics ask for."""
    done = run(
        systemd_analyze(),
        "security",
        "--offline=yes",
        f"--threshold={EXPOSURE}",
        str(installed),
    )

    assert done.returncode == 0, done.stdout + done.stderr


def without_bytecode(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what Python makes of the sources."""
    return None if "__pycache__" in member.name else member


class Machine:
    """A machine with the service: systemd as its first process, and the exporter in /opt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    def boot(self) -> None:
        """Start systemd; mounts are made to reach services, as on every machine but a container."""
        command(str(SANDBOX), "up", str(self.folder))
        self.run("mount --make-rshared /")

    def install(self) -> None:
        """Do what the head of the unit file says, with this repository."""
        self._copy_sources("/opt/source")
        self.run(
            f"""
            cd /opt/source
            /usr/bin/python3 -m venv /opt/bts-exporter
            /opt/bts-exporter/bin/pip install --quiet --disable-pip-version-check .
            install -m 644 systemd/bts-exporter.service /etc/systemd/system/
            echo 'ARGS=--web.listen-address=127.0.0.1:{self.port}' > /etc/default/bts-exporter
            mkdir -p /etc/bts-exporter
            systemctl daemon-reload
            """
        )

    def _copy_sources(self, folder: str) -> None:
        """Hand the sources over as a stream: the machine has a /tmp of its own, where we may be."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name in SOURCES:
                archive.add(ROOT / name, name, filter=without_bytecode)
        unpack = f"mkdir -p {folder} && tar -x -C {folder}"
        sandbox = [str(SANDBOX), "run", str(self.folder), "bash", "-euc", unpack]
        subprocess.run(sandbox, input=stream.getvalue(), timeout=60, check=True)

    def run(self, script: str) -> str:
        """Return the output of a shell script that runs on the machine, as root."""
        return command(str(SANDBOX), "run", str(self.folder), "bash", "-euc", script).strip()

    def start(self) -> None:
        """Start the service; its log is in the AssertionError where that fails."""
        self.run("systemctl start bts-exporter || { journalctl --unit=bts-exporter; exit 1; }")

    def configure(self, yaml: str) -> None:
        """Write the exporter's settings."""
        self.run(f"cat > /etc/bts-exporter/config.yaml <<'END'\n{yaml}\nEND")

    def drop_in(self, text: str) -> None:
        """Replace the drop-in of the unit, as `systemctl edit` would."""
        folder = "/etc/systemd/system/bts-exporter.service.d"
        self.run(f"mkdir -p {folder}; cat > {folder}/override.conf <<'END'\n{text}\nEND")
        self.run("systemctl daemon-reload")

    def property(self, name: str) -> str:
        """Return what systemd tells of the service, such as its ActiveState."""
        return self.run(f"systemctl show --value --property={name} bts-exporter")

    def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Return what the service serves: name of sample -> labels, sorted -> value."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            text = response.read().decode()
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = (
                    sample.value
                )
        return found

    def shut_down(self) -> None:
        """End everything on the machine; nothing of it is left."""
        command(str(SANDBOX), "down", str(self.folder))


#: The machine's root is an overlay, which the file system collector leaves out by itself.
HOST = """\
collectors:
  host:
    filesystem: {fs_types_exclude: "^(proc|sysfs|cgroup2?|devpts|mqueue|debugfs|tracefs)$"}
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine on which the service is installed."""
    if not SANDBOX.exists():
        pytest.skip("not everywhere: no sandbox for systemd beside the repository")
    if os.geteuid() != 0 or shutil.which("systemctl") is None:
        pytest.skip("not everywhere: the sandbox takes root and systemd")
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.boot()
    try:
        machine.install()
        yield machine
    finally:
        machine.shut_down()


@pytest.fixture
def service(machine: Machine) -> Iterator[Machine]:
    """Return the machine with the service started and ready."""
    machine.configure(HOST)
    try:
        machine.start()
        yield machine
    finally:
        machine.run("systemctl stop bts-exporter; systemctl reset-failed bts-exporter || true")
        machine.run("rm -rf /etc/systemd/system/bts-exporter.service.d; systemctl daemon-reload")


@pytest.mark.live
def test_service_is_ready_when_it_is_started(service: Machine) -> None:
    """Once `systemctl start` returns the metrics are there, none of a collector that failed."""
    metrics = service.metrics()

    assert service.property("ActiveState") == "active"
    assert metrics["node_load1"]
    success = metrics["bts_exporter_collector_success"]
    assert success
    assert [labels for labels, value in success.items() if value != 1] == []


@pytest.mark.live
def test_limits_are_in_force(service: Machine) -> None:
    """Systemd knows the limits of the unit, and the process has them."""
    pid = service.property("MainPID")
    limits = service.run(f"grep 'open files' /proc/{pid}/limits").split()

    assert service.property("MemoryMax") == str(2**30)
    assert service.property("TasksMax") == "1024"
    assert limits[3:5] == ["8192", "8192"]


@pytest.mark.live
def test_service_runs_without_privileges(service: Machine) -> None:
    """The process is not root's and could not become it."""
    pid = service.property("MainPID")
    status = dict(
        line.split(":\t", 1) for line in service.run(f"cat /proc/{pid}/status").splitlines()
    )

    assert "0" not in status["Uid"].split()
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.live
def test_file_systems_are_those_of_the_machine(service: Machine) -> None:
    """The unit's own mounts change no figure, also of what is mounted while it runs."""
    sizes = {"/mnt/disk": 11, "/home/open/disk": 12, "/tmp/disk": 13, "/var/tmp/disk": 14}
    for folder, size in sizes.items():
        service.run(f"mkdir -p {folder}; mount -t tmpfs -o size={size}M test {folder}")
    metrics = service.metrics()

    served = {
        dict(labels)["mountpoint"]: value
        for labels, value in metrics["node_filesystem_size_bytes"].items()
    }
    assert {folder: served.get(folder) for folder in sizes} == {
        folder: size * 2**20 for folder, size in sizes.items()
    }
    for folder in ("/", "/tmp", "/run"):
        blocks, size = service.run(f"stat --file-system --format='%b %S' {folder}").split()
        assert served[folder] == int(blocks) * int(size)
    read_only = {
        dict(labels)["mountpoint"] for labels, v in metrics["node_filesystem_readonly"].items() if v
    }
    # In the unit's own view all is read-only.
    assert not read_only & {"/", "/tmp", *sizes}


@pytest.mark.live
def test_machine_can_unmount_what_the_service_sees(service: Machine) -> None:
    """A file system that the machine unmounts is let go of by the service's view as well."""
    service.run(
        """
        truncate -s 8M /opt/disk.img; mkfs.ext4 -q /opt/disk.img
        mkdir -p /mnt/loop; mount -o loop /opt/disk.img /mnt/loop
        """
    )
    assert "/mnt/loop" in mountpoints(service)

    service.run("umount /mnt/loop")

    assert "/mnt/loop" not in mountpoints(service)
    assert service.run("losetup --associated /opt/disk.img") == ""


@pytest.mark.live
def test_no_metric_is_lost_to_the_hardening(service: Machine) -> None:
    """What root reads without the unit the service serves too, under every name."""
    text = service.run(
        "/opt/bts-exporter/bin/bts-exporter"
        " --config.file=/etc/bts-exporter/config.yaml once 2>/dev/null"
    )
    outside = {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }

    assert "node_load1" in outside
    assert {name for name in outside if name.startswith("node_")} - set(service.metrics()) == set()


@pytest.mark.live
def test_name_is_that_of_the_machine(service: Machine) -> None:
    """A new name of the machine is seen by a service that was running before."""
    service.run("hostname renamed")

    [labels] = service.metrics()["node_uname_info"]
    assert ("nodename", "renamed") in labels


@pytest.mark.live
def test_reload_puts_new_settings_in_force(service: Machine) -> None:
    """`systemctl reload` is enough for new settings, and the process stays."""
    pid = service.property("MainPID")
    service.configure(HOST.replace("(proc|", "(tmpfs|proc|"))
    service.run("systemctl reload bts-exporter")

    wait_until(lambda: "/run" not in mountpoints(service), "the new settings in force")
    assert service.property("MainPID") == pid
    assert service.property("ActiveState") == "active"


@pytest.mark.live
def test_reload_of_wrong_settings_leaves_the_old_ones(service: Machine) -> None:
    """`systemctl reload` fails on wrong settings and the log says why; those before stay in force."""
    service.configure("collectors: {host: {nonsense: 1}}")
    service.run("! systemctl reload bts-exporter")
    assert "unknown key 'nonsense'" in service.run("journalctl --unit=bts-exporter")

    def failed() -> bool:
        return service.metrics()["bts_exporter_config_last_reload_successful"][()] == 0

    wait_until(failed, "the reload told as failed")
    assert "/run" in mountpoints(service)
    assert service.property("ActiveState") == "active"


@pytest.mark.live
def test_stop_ends_the_service_cleanly(service: Machine) -> None:
    """`systemctl stop` ends with success: no signal had to kill it, and nothing listens any more."""
    service.run("systemctl stop bts-exporter")

    assert service.property("ActiveState") == "inactive"
    assert service.property("Result") == "success"
    assert service.property("ExecMainStatus") == "0"
    assert not listens(service.port)


@pytest.mark.live
def test_service_that_ends_by_itself_is_started_again(service: Machine) -> None:
    """A process that somebody ended, and that stopped cleanly, comes back, with the file of the unit."""
    service.drop_in("[Service]\nRestartSec=100ms")
    pid = service.property("MainPID")
    service.run(f"kill {pid}")

    wait_until(lambda: service.property("NRestarts") != "0", "a restart")
    wait_until(lambda: service.property("ActiveState") == "active", "the service up again")
    assert "--config.file=/etc/bts-exporter/config.yaml" in service.run(
        f"tr '\\0' ' ' < /proc/{service.property('MainPID')}/cmdline"
    )


@pytest.mark.live
def test_frozen_service_is_started_anew(service: Machine) -> None:
    """A process that no longer answers the watchdog is replaced."""
    service.drop_in("[Service]\nWatchdogSec=1s\nRestartSec=100ms")
    service.run("systemctl restart bts-exporter")
    pid = service.property("MainPID")
    service.run(f"kill -STOP {pid}")

    wait_until(lambda: service.property("NRestarts") != "0", "a restart by the watchdog")
    wait_until(lambda: service.property("ActiveState") == "active", "the service up again")
    assert service.property("MainPID") != pid
    assert service.metrics()["node_load1"]


@pytest.mark.live
def test_password_comes_from_systemd(service: Machine, make_redis: MakeRedis) -> None:
    """A password in a file of root's alone reaches the service as a credential."""
    redis = make_redis("--requirepass", "correct horse")
    service.run("umask 077; mkdir /root/secrets; echo 'correct horse' > /root/secrets/redis")
    service.drop_in("[Service]\nLoadCredential=redis:/root/secrets/redis")
    service.configure(f"collectors: {{redis: {{url: '{redis.url}', password: !credential redis}}}}")
    service.run("systemctl restart bts-exporter")

    assert service.metrics()["redis_up"] == {(): 1}


@pytest.mark.live
def test_closed_folders_are_opened_by_one_capability(service: Machine) -> None:
    """File systems in folders of root's alone have sizes once the drop-in of the unit is used."""
    service.run("mkdir -p /root/disk; mount -t tmpfs -o size=15M test /root/disk")
    errors = service.metrics()["node_filesystem_device_error"]
    assert [v for labels, v in errors.items() if ("mountpoint", "/root/disk") in labels] == [1]

    capabilities = re.findall(r"^#(.*=CAP_DAC_READ_SEARCH)$", UNIT.read_text(), re.MULTILINE)
    service.drop_in("\n".join(["[Service]", *capabilities]))
    service.run("systemctl restart bts-exporter")

    assert "/root/disk" in mountpoints(service)


def mountpoints(machine: Machine) -> set[str]:
    """Return the mount points whose sizes the service serves."""
    return {
        dict(labels)["mountpoint"] for labels in machine.metrics()["node_filesystem_size_bytes"]
    }


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return the unit file as on a machine where its program is installed."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/bts-exporter/bin/bts-exporter", sys.executable))
    return path


def systemd_analyze() -> str:
    """Return the path of systemd-analyze; without systemd the test is skipped."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    return program


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Return how a command ended, and what it said."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def command(*argv: str) -> str:
    """Return the output of a command, AssertionError with all it said where it failed."""
    done = run(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
