"""The Ansible role: its files, and what it does to a machine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from bts_exporter.fleet import targets
from servers.debian_package import build
from servers.machine import Machine
from servers.sources import ROOT

FOLDER = ROOT / "deploy" / "ansible"
ROLE = FOLDER / "roles" / "bts_exporter"
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  vars:
    bts_exporter_deb: /srv/PACKAGE
    bts_exporter_port: 19123
    bts_exporter_host: {filesystem: {fs_types_exclude: "^(proc|sysfs)$"}}
    bts_exporter_collectors:
      redis: {url: "redis://127.0.0.1:1", optional: true, password: "!credential redis"}
    bts_exporter_credentials: {redis: hush}
  roles: [bts_exporter]
"""


def test_variables_are_documented_and_used() -> None:
    """The defaults, the argument specification and the tasks and templates name the same variables."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    text = "".join(
        path.read_text() for part in ("tasks", "templates") for path in (ROLE / part).iterdir()
    )

    assert {name: option["default"] for name, option in options.items()} == defaults
    assert set(re.findall(r"\bbts_exporter_[a-z]+\b", text)) == defaults.keys()


def test_examples_of_inventories_are_valid() -> None:
    """`bts-exporter targets` accepts the examples, Ansible's and ours."""
    ansible = targets.read_inventory(FOLDER / "inventory.example.yml")
    ours = targets.read_inventory(ROOT / "deploy" / "settings" / "inventory.yaml")

    assert len(ansible) == 401
    assert [broker.type_name for machine in ansible for broker in machine.brokers] == ["redis"]
    assert len(ours) == 654


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Debian package; the test is skipped where Ansible is not installed."""
    if shutil.which("ansible-playbook") is None:
        pytest.skip("not everywhere: `make test-long` installs Ansible")
    return build(tmp_path_factory.mktemp("sources"))


def play(machine: Machine, playbook: str) -> tuple[str, dict[str, int]]:
    """Run a playbook on the machine itself, and return its output and the counts of its result."""
    machine.write("/srv/play.yml", playbook)
    done = machine.try_(
        "cd /srv; ANSIBLE_NOCOLOR=1 ansible-playbook --connection local --inventory localhost, play.yml",
        online=True,
    )
    counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", done.stdout)}
    return done.stdout + done.stderr, counts


@pytest.mark.live
def test_role_is_idempotent(machine: Machine, package: Path) -> None:
    """The first run installs and starts the service, the second changes nothing; wrong settings replace nothing."""
    machine.run("mkdir -p /srv/roles; rm -f /usr/sbin/policy-rc.d")
    machine.run(f"cat > /srv/{package.name}", stdin=package.read_bytes())
    for path in ROLE.rglob("*.*"):
        machine.write(f"/srv/roles/{path.relative_to(ROLE.parent)}", path.read_text())
    playbook = PLAYBOOK.replace("PACKAGE", package.name)

    first, changed = play(machine, playbook)
    before = machine.run("systemctl show --value --property=MainPID bts-exporter")
    second, again = play(machine, playbook)
    wrong, failed = play(machine, playbook.replace("optional: true", "optionl: true"))

    assert changed["failed"] == 0, first
    assert changed["changed"] > 0
    assert "hush" not in first
    assert (again["failed"], again["changed"]) == (0, 0), second
    assert failed["failed"] == 1
    assert "unknown key 'optionl'; did you mean optional?" in wrong
    assert machine.run("systemctl show --value --property=MainPID bts-exporter") == before
    samples = machine.metrics(19123)
    assert samples["node_load1"]
    assert samples["bts_exporter_config_last_reload_successful"] == {(): 1}
    assert "redis" in json.dumps(list(samples["bts_exporter_collector_supported"]))
    mode = machine.run("stat --format=%a:%U /etc/bts-exporter/credentials/redis")
    assert mode == "600:root"
