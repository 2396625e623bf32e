"""The Debian package, installed, upgraded, removed and purged on a machine of its own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import bts_exporter
from servers import wait_until
from servers.debian_package import GENERATED, build
from servers.machine import Machine
from servers.sources import ROOT, commands

#: What dpkg says about a package whose files are there.
INSTALLED = "install ok installed"
CONFIG = "/etc/bts-exporter/config.yaml"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package that `make deb` builds from a copy of the sources."""
    return build(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Return a machine on which the package is installed by the README's command."""
    machine.run(f"mkdir /srv/dist; cat > /srv/dist/{package.name}", stdin=package.read_bytes())
    machine.run("rm -f /usr/sbin/policy-rc.d")  # by which images of containers forbid services
    machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
    build, install = commands("Run it under systemd")[1].splitlines()
    assert build == "make deb"
    machine.run(f"chmod +x /usr/local/bin/sudo; cd /srv; {install}")
    return machine


def status(machine: Machine) -> str:
    """Return what dpkg says about the package."""
    query = "dpkg-query --show --showformat='${Status}' bts-exporter"
    return machine.try_(query).stdout.strip()


def state(machine: Machine) -> str:
    """Return the ActiveState of the service."""
    return machine.run("systemctl show --value --property=ActiveState bts-exporter")


def contents(package: Path) -> dict[str, str]:
    """Return the files and folders of the package, with their modes."""
    listing = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return {row[5].removeprefix("."): row[0] for row in rows}


def test_package_holds_generated_pages_and_a_bill_of_materials(
    package: Path, tmp_path: Path
) -> None:
    """The man page and completions come along, and each pinned requirement is in the bill."""
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    documents = tmp_path / "usr/share/doc/bts-exporter"
    bill = json.loads((documents / "bts-exporter.cdx.json").read_text())
    pinned = (ROOT / "packages" / "requirements.lock").read_text()

    assert [name for name in GENERATED.values() if not (tmp_path / name).exists()] == []
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["version"] == bts_exporter.__version__
    listed = {f"{part['name']}=={part['version']}" for part in bill["components"]}
    assert listed >= set(
        re.findall(r"^(?:redis|msgspec|pyyaml|urllib3)==\S+", pinned, re.MULTILINE)
    )
    assert listed <= set(re.findall(r"^[\w.-]+==[\w.]+", pinned, re.MULTILINE))


def test_package_changes_nothing_outside_its_own_folders(package: Path) -> None:
    """All files belong to root, none can be written by others, and all are in our folders."""
    for path, mode in contents(package).items():
        assert mode[8] == "-", path
        assert path.endswith("/") or "bts-exporter" in path


@pytest.mark.live
def test_package_starts_the_service(installed: Machine) -> None:
    """After the installation the service runs as its own user, and serves."""
    pid = installed.run("systemctl show --value --property=MainPID bts-exporter")

    assert status(installed) == INSTALLED
    assert installed.run("systemctl is-enabled bts-exporter") == "enabled"
    assert installed.try_("systemctl is-enabled bts-exporter.socket").stdout.strip() == "disabled"
    assert installed.run(f"stat --format=%u /proc/{pid}") != "0"
    assert installed.metrics()["node_load1"]
    assert bts_exporter.__version__ in installed.run("bts-exporter --version")


@pytest.mark.live
def test_upgrade_keeps_settings_and_restarts(installed: Machine) -> None:
    """An upgrade starts the new program, and the files of the administrator stay."""
    installed.write(CONFIG, "collectors: {host: }\n# ours\n")
    installed.write("/etc/default/bts-exporter", "ARGS=--web.listen-address=127.0.0.1:9100\n")
    installed.run("systemctl restart bts-exporter")
    pid = installed.run("systemctl show --value --property=MainPID bts-exporter")
    installed.run("dpkg --install --force-confold /srv/dist/*.deb")

    assert installed.run("systemctl show --value --property=MainPID bts-exporter") != pid
    assert "# ours" in installed.run(f"cat {CONFIG}")
    wait_until(lambda: installed.get("/-/ready", 9100)[0] == 200, "it serves the same address")


@pytest.mark.live
def test_removal_keeps_what_a_purge_removes(installed: Machine) -> None:
    """A removed package leaves its settings; after a purge nothing of it is left."""
    installed.run("mkdir -p /etc/bts-exporter/plugins; touch /etc/bts-exporter/plugins/own.py")
    installed.run("touch /var/lib/bts-exporter/state")
    installed.run("dpkg --remove bts-exporter")
    assert state(installed) == "inactive"
    assert installed.get("/metrics", 9100) == (0, "")
    assert "# ours" in installed.run(f"cat {CONFIG}")

    installed.run("dpkg --purge bts-exporter")
    assert status(installed) in {"", "unknown ok not-installed"}
    folders = "/etc /lib /run /usr /var/cache /var/lib /var/log"
    assert installed.run(f"find {folders} -path '*bts-exporter*' -not -path '*/dpkg/*'") == ""
