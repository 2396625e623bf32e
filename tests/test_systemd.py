"""The service on a machine where the README was followed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

from servers import need, wait_until
from servers.certificate_authority import Authority
from servers.machine import Machine, Samples, samples_of
from servers.sources import ROOT, archive, commands
from stubs import TALLY

UNIT = ROOT / "systemd" / "bts-exporter.service"
#: Prints the status of a request over TLS.
TLS_CLIENT = """\
import ssl, urllib.request
anyone = ssl._create_unverified_context()
print(urllib.request.urlopen("https://127.0.0.1:19100/-/healthy", context=anyone).status)
"""
CONFIG = "/etc/bts-exporter/config.yaml"
#: The machine's root is an overlay, which the file system collector leaves out by default.
HOST = """\
collectors:
  host:
    filesystem: {fs_types_exclude: "^(proc|sysfs|cgroup2?|devpts|mqueue|debugfs|tracefs)$"}
"""
#: A collection that never ends if the folder for its state has a file `hang`; it creates `hangs` before.
HANGS = """\
import os, threading
from pathlib import Path
from bts_exporter import Collector, gauge

class Hangs(Collector):
    value = gauge("hangs_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
        state = Path(os.environ["STATE_DIRECTORY"])
        if (state / "hang").exists():
            (state / "hangs").touch()
            threading.Event().wait()
"""
#: Requests, each over a new connection, until standard input ends; then their number, and the errors.
LOAD = """\
import select, sys, threading, urllib.request
served, errors, over = [], [], threading.Event()
def ask():
    while not over.is_set():
        try:
            with urllib.request.urlopen("http://127.0.0.1:19100/-/healthy", timeout=30) as answer:
                served.append(answer.read())
                print("served", flush=True)
        except Exception as error:
            errors.append(repr(error))
threads = [threading.Thread(target=ask) for _ in range(4)]
[thread.start() for thread in threads]
sys.stdin.read()
over.set()
[thread.join() for thread in threads]
print("errors", errors)
"""


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    """Return a machine on which the README's commands have been run as they are.

    What a person does is done by programs of these names: `editor` deletes the brokers, and sudo,
    which not all machines have, runs its arguments. `git` gets the address of this repository.
    """
    repository = "/srv/bts-exporter.git"
    machine.run(f"mkdir {repository}; tar --extract -C {repository}", stdin=archive())
    machine.run(
        f"""
        cd {repository}
        git init --quiet
        git add --all
        git -c user.name=test -c user.email=test commit --quiet --message=all
        git config --system url.{repository}.insteadOf https://example.org/bts-exporter.git
        """
    )
    machine.write("/usr/local/bin/editor", f"#!/bin/sh\ncat > $1 <<'END'\n{HOST}\nEND\n")
    machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
    machine.write("/etc/apt/apt.conf.d/99test", 'APT::Get::Assume-Yes "true";\n')
    machine.run("chmod +x /usr/local/bin/editor /usr/local/bin/sudo; mkdir /root/src")
    clone = commands("Try it")[0].partition("make run")[0]
    machine.run(f"cd /root/src\n{clone}\n{commands('Run it under systemd')[0]}", online=True)
    return machine


class Service:
    """The service on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run = machine.run

    def start(self) -> None:
        """Start the service; its log is in the AssertionError where that fails."""
        self.run("systemctl start bts-exporter || { journalctl --unit=bts-exporter; exit 1; }")

    def restart(self) -> None:
        """Restart the service."""
        self.run("systemctl restart bts-exporter || { journalctl --unit=bts-exporter; exit 1; }")

    def configure(self, yaml: str) -> None:
        """Write the exporter's settings."""
        self.machine.write(CONFIG, yaml)

    def drop_in(self, text: str) -> None:
        """Replace the drop-in of the unit, as `systemctl edit` would."""
        self.machine.write("/etc/systemd/system/bts-exporter.service.d/override.conf", text)
        self.run("systemctl daemon-reload")

    def property(self, name: str) -> str:
        """Return a property that systemd has of the service, such as its ActiveState."""
        return self.run(f"systemctl show --value --property={name} bts-exporter")

    def metrics(self) -> Samples:
        """Return the samples that the service serves."""
        return self.machine.metrics()

    def as_root(self) -> Samples:
        """Return the samples of the same settings, collected by root without the unit."""
        program = "/opt/bts-exporter/bin/bts-exporter"
        return samples_of(self.run(f"{program} --config.file={CONFIG} once"))

    def mountpoints(self) -> set[str]:
        """Return the mount points whose sizes the service serves."""
        return {
            dict(labels)["mountpoint"] for labels in self.metrics()["node_filesystem_size_bytes"]
        }

    def restarted(self, pid: str) -> None:
        """Wait until systemd has started another process than `pid`."""
        wait_until(lambda: self.property("NRestarts") != "0", "a restart")
        wait_until(lambda: self.property("ActiveState") == "active", "the service is up again")
        assert self.property("MainPID") != pid


@pytest.fixture
def service(installed: Machine) -> Iterator[Service]:
    """Return the service, started and ready, with settings of the host only."""
    service = Service(installed)
    service.configure(HOST)
    try:
        service.start()
        yield service
    finally:
        service.run(
            """
            systemctl disable --now bts-exporter.socket bts-exporter.service
            systemctl reset-failed bts-exporter || true
            rm -rf /etc/systemd/system/bts-exporter.service.d /etc/bts-exporter/plugins
            systemctl daemon-reload
            """
        )


@pytest.mark.live
def test_readme_installs_the_service(installed: Machine) -> None:
    """After the README's commands the service runs, is enabled, and serves the machine's metrics."""
    service = Service(installed)

    assert service.property("ActiveState") == "active"
    assert service.run("systemctl is-enabled bts-exporter") == "enabled"
    assert service.metrics()["node_load1"]
    clone = service.run("cd /root/src/bts-exporter; git status --porcelain --ignored")
    assert clone == ""  # pip, as root, leaves nothing in the user's clone


@pytest.mark.live
def test_service_is_ready_when_it_is_started(service: Service) -> None:
    """Once `systemctl start` returns the metrics are there, none of a collector that failed."""
    metrics = service.metrics()

    assert service.property("ActiveState") == "active"
    assert metrics["node_load1"]
    success = metrics["bts_exporter_collector_success"]
    assert success
    assert [labels for labels, value in success.items() if value != 1] == []


@pytest.mark.live
def test_limits_are_in_force(service: Service) -> None:
    """Systemd knows the limits of the unit, and the process has them."""
    pid = service.property("MainPID")
    limits = service.run(f"grep 'open files' /proc/{pid}/limits").split()

    assert service.property("MemoryMax") == str(2**30)
    assert service.property("TasksMax") == "1024"
    assert limits[3:5] == ["8192", "8192"]


@pytest.mark.live
def test_service_runs_without_privileges(service: Service) -> None:
    """No process of the unit is root's, or could become it."""
    pids = service.run("cat /sys/fs/cgroup/system.slice/bts-exporter.service/cgroup.procs").split()

    assert service.property("MainPID") in pids
    for pid in pids:
        lines = service.run(f"cat /proc/{pid}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert "0" not in status["Uid"].split() + status["Gid"].split()
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"


@pytest.mark.live
def test_file_systems_are_those_of_the_machine(service: Service) -> None:
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
        count, size = service.run(f"stat --file-system --format='%b %S' {folder}").split()
        assert served[folder] == int(count) * int(size)
    read_only = {
        dict(labels)["mountpoint"] for labels, v in metrics["node_filesystem_readonly"].items() if v
    }
    # In the unit's own view all is read-only.
    assert not read_only & {"/", "/tmp", *sizes}


@pytest.mark.live
def test_machine_can_unmount_what_the_service_sees(service: Service) -> None:
    """A file system that the machine unmounts is gone from the service's view as well."""
    service.run(
        """
        truncate -s 8M /opt/disk.img; mkfs.ext4 -q /opt/disk.img
        mkdir -p /mnt/loop; mount -o loop /opt/disk.img /mnt/loop
        """
    )
    assert "/mnt/loop" in service.mountpoints()

    service.run("umount /mnt/loop")

    assert "/mnt/loop" not in service.mountpoints()
    assert service.run("losetup --associated /opt/disk.img") == ""


@pytest.mark.live
def test_no_series_is_lost_to_the_hardening(service: Service) -> None:
    """The service serves every series of the host that root has without the unit."""
    outside = {
        (name, labels)
        for name, series in service.as_root().items()
        for labels in series
        if name.startswith("node_")
    }
    served = {(name, labels) for name, series in service.metrics().items() for labels in series}

    # At another moment: a state of a process or a connection may have come or gone.
    fleeting = {
        "node_processes_state",
        "node_processes_threads_state",
        "node_tcp_connection_states",
    }
    assert len(outside) > 400
    assert {(name, labels) for name, labels in outside - served if name not in fleeting} == set()


@pytest.mark.live
def test_name_is_that_of_the_machine(service: Service) -> None:
    """A new name of the machine is seen by a service that was running before."""
    service.run("hostname renamed")

    [labels] = service.metrics()["node_uname_info"]
    assert ("nodename", "renamed") in labels


@pytest.mark.live
def test_reload_puts_new_settings_in_force(service: Service) -> None:
    """`systemctl reload` is enough for new settings, and the process stays."""
    pid = service.property("MainPID")
    service.configure(HOST.replace("(proc|", "(tmpfs|proc|"))
    service.run("systemctl reload bts-exporter")

    wait_until(lambda: "/run" not in service.mountpoints(), "the new settings are active")
    assert service.property("MainPID") == pid
    assert service.property("ActiveState") == "active"


@pytest.mark.live
def test_reload_of_wrong_settings_leaves_the_old_ones(service: Service) -> None:
    """`systemctl reload` fails on wrong settings, the log says why, and the old ones stay active."""
    service.configure("collectors: {host: {nonsense: 1}}")
    service.run("! systemctl reload bts-exporter")
    assert "unknown key 'nonsense'" in service.run("journalctl --unit=bts-exporter")

    def failed() -> bool:
        return service.metrics()["bts_exporter_config_last_reload_successful"][()] == 0

    wait_until(failed, "the reload has failed")
    assert "/run" in service.mountpoints()
    assert service.property("ActiveState") == "active"


@pytest.mark.live
def test_history_survives_a_restart_of_the_service(service: Service) -> None:
    """The unit's StateDirectory is the only folder that the service may write to, and where states are."""
    service.machine.write("/etc/bts-exporter/plugins/tally.py", TALLY)
    service.configure("state: /var/lib/bts-exporter\ncollectors: {tally: }\n")
    service.restart()
    first = [service.metrics()["tally"][()] for _ in range(5)]

    service.restart()

    assert service.metrics()["tally"][()] > first[-1]
    assert service.run(
        "stat -L -c '%a' /var/lib/bts-exporter /var/lib/bts-exporter/tally.state"
    ).split() == ["700", "600"]


@pytest.mark.live
def test_stop_ends_the_service_cleanly(service: Service) -> None:
    """`systemctl stop` ends with success: no signal had to kill it, and nothing listens any more."""
    service.run("systemctl stop bts-exporter")

    assert service.property("ActiveState") == "inactive"
    assert service.property("Result") == "success"
    assert service.property("ExecMainStatus") == "0"
    assert service.machine.get("/metrics") == (0, "")


@pytest.mark.live
def test_stop_during_a_scrape(service: Service) -> None:
    """A stop while a plug-in hangs in a scrape is a clean one, within the unit's 5 s."""
    service.machine.write("/etc/bts-exporter/plugins/hangs.py", HANGS)
    service.configure("collectors: {hangs: }")
    service.restart()
    assert service.metrics()["hangs_value"]
    service.run("touch /var/lib/bts-exporter/hang")
    client = [sys.executable, "-Ic", LOAD.replace("/-/healthy", "/metrics")]
    scrape = subprocess.Popen(
        service.machine.networked(client), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(
            lambda: service.machine.try_("test -e /var/lib/bts-exporter/hangs").returncode == 0,
            "a scrape hangs",
        )
        service.run("systemctl stop bts-exporter")
    finally:
        scrape.kill()
        scrape.communicate()

    assert service.property("Result") == "success"
    assert service.property("ExecMainStatus") == "0"


@pytest.mark.live
def test_service_that_ends_by_itself_is_started_again(service: Service) -> None:
    """A process that somebody ended, and that stopped cleanly, comes back, with the file of the unit."""
    service.drop_in("[Service]\nRestartSec=100ms")
    pid = service.property("MainPID")
    service.run(f"kill {pid}")

    service.restarted(pid)
    assert f"--config.file={CONFIG}" in service.run(
        f"tr '\\0' ' ' < /proc/{service.property('MainPID')}/cmdline"
    )


@pytest.mark.live
def test_frozen_service_is_restarted(service: Service) -> None:
    """A process that does not notify the watchdog any more is replaced."""
    service.drop_in("[Service]\nWatchdogSec=1s\nRestartSec=100ms")
    service.restart()
    pid = service.property("MainPID")
    service.run(f"kill -STOP {pid}")

    service.restarted(pid)
    assert service.metrics()["node_load1"]


@pytest.mark.live
def test_no_connection_is_refused_during_a_restart(service: Service) -> None:
    """With the socket unit every request of a load is answered while the service is restarted."""
    service.run("systemctl stop bts-exporter; systemctl enable --now bts-exporter.socket")
    assert service.machine.get("/-/ready")[0] == 200  # the connection started the service
    pid = service.property("MainPID")
    load = subprocess.Popen(
        service.machine.networked([sys.executable, "-Ic", LOAD]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert load.stdout is not None
    for _ in range(3):
        load.stdout.readline()
        service.restart()
        load.stdout.readline()
    output, _ = load.communicate()

    assert service.property("MainPID") != pid
    assert service.property("ActiveState") == "active"
    assert output.splitlines()[-1] == "errors []"


@pytest.mark.live
def test_password_comes_from_systemd(service: Service) -> None:
    """A password in a file of root reaches the service as a credential, and is in no other place."""
    server = need("redis-server", "redis-server")
    service.run(f"systemd-run --unit=redis {shutil.which(server)} --requirepass 'correct horse'")
    service.run("install -d -m 700 /etc/bts-exporter/credentials")
    service.machine.write("/etc/bts-exporter/credentials/redis", "correct horse\n")
    service.run("chmod 600 /etc/bts-exporter/credentials/redis")
    [credential] = re.findall(r"^#(LoadCredential=.*)$", UNIT.read_text(), re.MULTILINE)
    assert f"#   {credential}\n" in commands("Run it under systemd")[2]
    service.drop_in(f"[Service]\n{credential}")
    url = "redis://127.0.0.1:6379"
    service.configure(f"collectors: {{redis: {{url: '{url}', password: !credential redis}}}}")
    service.restart()

    wait_until(lambda: service.metrics()["redis_up"] == {(): 1}, "Redis has accepted the password")
    pid = service.property("MainPID")
    assert "horse" not in service.run(f"tr '\\0' '\\n' < /proc/{pid}/cmdline")
    assert "horse" not in service.run(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert "horse" not in service.run("systemctl show bts-exporter; journalctl -u bts-exporter")
    assert "horse" not in service.machine.get("/")[1] + service.machine.get("/metrics")[1]
    service.run("systemctl reload bts-exporter")  # its check has the credential, too


@pytest.mark.live
def test_key_of_the_server_comes_from_systemd(service: Service, tmp_path: Path) -> None:
    """TLS works with a key that only root can read, as docs/web-config.md describes."""
    page = (ROOT / "docs" / "web-config.md").read_text()
    signed = Authority(tmp_path, "ca").sign("server", "subjectAltName=IP:127.0.0.1")
    service.machine.write("/etc/bts-exporter/server.pem", signed.cert.read_text())
    service.machine.write("/etc/bts-exporter/server.key", signed.key.read_text())
    service.run("chmod 600 /etc/bts-exporter/server.key")
    [key] = re.findall(r"`(key: !credential .*?)`", page)
    web = f"tls_server_config:\n  cert_file: server.pem\n  {key}\n"
    service.machine.write("/etc/bts-exporter/web.yml", web)
    [arguments] = re.findall(r"`(ARGS=--web.config.file=.*?)`", page)
    [drop_in] = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    defaults = "/etc/default/bts-exporter"
    service.run(f"cp {defaults} {defaults}.saved; echo '{arguments}' > {defaults}")
    service.drop_in(drop_in)
    try:
        service.restart()
        assert service.run(f"/opt/bts-exporter/bin/python -Ic {quote(TLS_CLIENT)}") == "200"
        service.run("systemctl reload bts-exporter")  # its check has the key, too
    finally:
        service.run(f"mv {defaults}.saved {defaults}")


@pytest.mark.live
def test_closed_folders_are_opened_by_one_capability(service: Service) -> None:
    """File systems in folders of root have sizes once the drop-in of the README is used."""
    service.run("mkdir -p /root/disk; mount -t tmpfs -o size=15M test /root/disk")
    errors = service.metrics()["node_filesystem_device_error"]
    assert [v for labels, v in errors.items() if ("mountpoint", "/root/disk") in labels] == [1]

    service.drop_in(capability())
    service.restart()

    assert "/root/disk" in service.mountpoints()
    service.run("umount /root/disk")


@pytest.mark.live
def test_files_of_root_are_opened_by_the_same_capability(service: Service) -> None:
    """Counters in files that only root can read are served once the drop-in of the README is used."""
    zone = "/srv/sys/class/powercap/intel-rapl:0"
    service.machine.write(f"{zone}/name", "package-0\n")
    service.machine.write(f"{zone}/energy_uj", "5000000\n")
    service.run(f"chmod 400 {zone}/energy_uj")
    service.configure("collectors: {host: {sysfs: /srv/sys}}")
    service.restart()
    assert "node_rapl_package_joules_total" not in service.metrics()

    service.drop_in(capability())
    service.restart()

    assert list(service.metrics()["node_rapl_package_joules_total"].values()) == [5]


def capability() -> str:
    """Return the README's drop-in for what takes a capability."""
    [drop_in] = re.findall(r"```ini\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(drop_in)
