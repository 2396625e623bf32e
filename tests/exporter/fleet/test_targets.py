from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from bts_exporter import commands
from bts_exporter.errors import ConfigError, OutputError
from bts_exporter.fleet import machines as machines_module
from bts_exporter.fleet import targets
from bts_exporter.fleet.host_ranges import expand
from servers.sources import ROOT

RULES = ROOT / "monitoring" / "prometheus" / "rules"
OURS = """\
labels: {environment: production}
groups:
  south:
    port: 9200
    labels: {site: south, role: edge}
    hosts:
      bts-[01:03].south.example:
  north:
    labels: {site: north}
    hosts:
      db-1.north.example:
        address: 10.0.0.7
        labels: {role: broker}
        brokers:
          redis: ["redis://user:hush@127.0.0.1:6379"]
          rabbitmq: ["http://127.0.0.1:15672"]
      v6: {address: "2001:db8::1", labels: {job: other}}
"""
ANSIBLE = """\
all:
  vars:
    bts_exporter_labels: {environment: production}
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
    greeting: "hello {{ inventory_hostname }}"
  children:
    north:
      vars:
        bts_exporter_labels: {site: north, role: edge}
      hosts:
        bts-[01:02].north.example:2222:
        db-1:
          ansible_host: 10.0.0.7
          bts_exporter_port: 9200
          bts_exporter_collectors:
            redis: {url: "redis://127.0.0.1:6379", password: "!credential redis"}
    brokers:
      children:
        redis_servers:
          vars: {bts_exporter_labels: {role: broker}}
          hosts: {db-1: }
"""
COMMON = {"environment": "production", "job": "bts-exporter"}


def inventory(folder: Path, text: str) -> Path:
    """Write an inventory, and return its path."""
    path = folder / "inventory.yaml"
    path.write_text(text)
    return path


def of(folder: Path, text: str) -> list[dict[str, object]]:
    """Return the blocks of targets of an inventory."""
    blocks: list[dict[str, object]] = json.loads(
        targets.page(targets.read_inventory(inventory(folder, text)))
    )
    return blocks


def problems(folder: Path, text: str) -> list[str]:
    """Return the problems of an inventory as `line: path: message`."""
    path = inventory(folder, text)
    with pytest.raises(ConfigError) as caught:
        targets.read_inventory(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_hosts_with_equal_labels_share_a_block(tmp_path: Path) -> None:
    """Labels and ports are inherited, ranges expanded; `instance` has the name of a host with an address."""
    south = [f"bts-0{number}.south.example:9200" for number in (1, 2, 3)]

    blocks = of(tmp_path, OURS)

    db = {**COMMON, "instance": "db-1.north.example:19100", "role": "broker", "site": "north"}
    v6 = {**COMMON, "instance": "v6:19100", "job": "other", "site": "north"}
    assert blocks == [
        {"targets": ["10.0.0.7:19100"], "labels": db},
        {"targets": ["[2001:db8::1]:19100"], "labels": v6},
        {"targets": south, "labels": {**COMMON, "role": "edge", "site": "south"}},
    ]


def test_output_does_not_depend_on_the_order_of_the_inventory(tmp_path: Path) -> None:
    """An inventory whose groups are in another order gives the same bytes."""
    head, south, north = (
        OURS.partition("  south:")[0],
        *OURS.partition("  south:")[2].split("  north:"),
    )
    reordered = f"{head}  north:{north}  south:{south}"

    first = targets.page(targets.read_inventory(inventory(tmp_path, OURS)))
    second = targets.page(targets.read_inventory(inventory(tmp_path, reordered)))

    assert reordered != OURS
    assert first == second


def test_ansible_inventory_is_read(tmp_path: Path) -> None:
    """Variables of deeper groups override others, labels are joined; vaults and templates elsewhere do no harm."""
    blocks = of(tmp_path, ANSIBLE)

    db = {**COMMON, "instance": "db-1:9200", "role": "broker", "site": "north"}
    edge = ["bts-01.north.example:19100", "bts-02.north.example:19100"]
    assert blocks == [
        {"targets": ["10.0.0.7:9200"], "labels": db},
        {"targets": edge, "labels": {**COMMON, "role": "edge", "site": "north"}},
    ]


def test_groups_of_ansible_with_many_ways_to_each(tmp_path: Path) -> None:
    """The time does not grow with the number of ways to a group: here 2 to the power of 40."""
    below = {
        f"{side}{level}": [f"{c}{level + 1}" for c in "ab"] for level in range(40) for side in "ab"
    }
    groups = [
        f"{name}: {{children: {{{', '.join(f'{c}: ' for c in children)}}}}}"
        for name, children in below.items()
    ]
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("\n".join([*groups, "a40: {hosts: {one: }}", "b40: {children: {a0: }}"]))

    assert [machine.name for machine in targets.read_inventory(inventory)] == ["one"]


def test_group_of_ansible_selects_the_hosts(tmp_path: Path) -> None:
    """Where a group bts_exporter exists, only its hosts and those of its children are targets."""
    text = (
        ANSIBLE
        + "    bts_exporter: {children: {redis_servers: }}\n    switches: {hosts: {sw-1: }}\n"
    )

    blocks = of(tmp_path, text)

    assert [block["targets"] for block in blocks] == [["10.0.0.7:9200"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "groups:\n  a: {hosts: {x: }}\n  b: {hosts: {X.: }}\n",
            "3: groups.b.hosts.X.: the host x is listed twice, first at FILE:2: delete one of them",
        ),
        (
            "groups:\n  a: {hosts: {'x[1:3]': }}\n  b:\n    hosts:\n      x2:\n",
            "5: groups.b.hosts.x2: the host x2 is listed twice, first at FILE:2: delete one of them",
        ),
        ("groups:\n  a:\n    hosts:\n      x:\n      x:\n", "5: groups.a.hosts.x: given twice"),
        (
            "groups:\n  a:\n    hosts:\n      x:\n      y: {address: x}\n",
            "5: groups.a.hosts.y: x:19100 is the address of x, too: give each its own address or port",
        ),
        (
            "groups:\n  a:\n    port: 65536\n    hosts: {x: }\n",
            "3: groups.a.port: 65536 is not a valid port (expected 1 to 65535)",
        ),
        (
            "groups:\n  a:\n    hosts:\n      x: {port: '80'}\n",
            "4: groups.a.hosts.x.port: '80' is not a valid port (expected 1 to 65535)",
        ),
        (
            "groups:\n  a:\n    labels: {rack: 7}\n    hosts: {x: }\n",
            "3: groups.a.labels: the value of rack is 7, not text (put it in quotes: '7')",
        ),
        (
            "groups:\n  a:\n    hosts: {'x y': }\n",
            "3: groups.a.hosts.x y: 'x y' is not a valid host name or IP address (expected one without a port)",
        ),
        (
            "groups:\n  a:\n    hosts: {'x[5:3]': }\n",
            "3: groups.a.hosts.x[5:3]: [5:3] is not a valid range (expected such as [01:50] or [a:f])",
        ),
        (
            "groups:\n  a:\n    host: {x: }\n",
            "3: groups.a.host: unknown key 'host'; did you mean hosts?",
        ),
        (
            "all:\n  hosts:\n    x: {bts_exporter_port: 0}\n",
            "3: all.hosts.x.bts_exporter_port: 0 is not a valid port (expected 1 to 65535)",
        ),
        ("all: {hosts: }\n", "1: it has no hosts, so that nothing would be scraped"),
    ],
)
def test_mistake_is_reported_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """Hosts that are listed twice, bad ports and other mistakes are errors with file and line."""
    found = problems(tmp_path, text)

    assert expected.replace("FILE", str(tmp_path / "inventory.yaml")) in found


def test_reserved_label_is_refused(tmp_path: Path) -> None:
    """A label that the exporter's metrics have is an error: Prometheus would rename theirs."""
    found = problems(tmp_path, "labels: {group: a}\ngroups: {a: {hosts: {x: }}}\n")

    assert len(found) == 1
    assert found[0].startswith("1: labels: the label group belongs to the exporter's metrics")


def test_labels_that_rules_use_are_reserved() -> None:
    """Every label that an alert rule selects, joins or prints is reserved, apart from those of targets and rules."""
    rules = "".join(path.read_text() for path in RULES.glob("*.yml"))
    used = {*re.findall(r"\$labels\.(\w+)", rules), *re.findall(r'[{,](\w+)(?:=|!=|=~|!~)"', rules)}
    for names in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", rules):
        used.update(name.strip() for name in names.split(","))

    assert used - {"job", "site", "role", "replica", "started"} <= machines_module._OURS
    assert "queue" in used


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("redis: ['redis://cache:6379']", "redis: ['rediss://CACHE.']"),
        ("redis: ['redis://127.0.0.1']", "redis: ['redis://x']"),
        ("redis: ['redis://127.0.0.1']", "redis: ['redis://10.0.0.1']"),
        ("rabbitmq: ['http://mq:15672']", "rabbitmq: ['amqp://mq']"),
        ("mqtt: ['mqtt://m']", "mqtt: ['mqtts://m:8883']"),
    ],
)
def test_broker_on_two_machines_is_refused(tmp_path: Path, first: str, second: str) -> None:
    """Two machines with collectors for the same broker are an error, however they spell its address."""
    hosts = f"      x: {{address: 10.0.0.1, brokers: {{{first}}}}}\n      y: {{brokers: {{{second}}}}}\n"

    found = problems(tmp_path, f"groups:\n  a:\n    hosts:\n{hosts}")

    assert len(found) == 1
    assert found[0].startswith("5: groups.a.hosts.y.brokers.")
    assert "two collectors are placed for one broker" in found[0]


def test_replicas_may_monitor_the_same_broker(tmp_path: Path) -> None:
    """Two hosts whose label `replica` differs may have the same broker; a third one without it, or with an equal one, may not."""
    broker = "brokers: {redis: ['redis://cache']}"
    pair = f"""\
groups:
  a:
    hosts:
      x: {{labels: {{replica: a}}, {broker}}}
      y: {{labels: {{replica: b}}, {broker}}}
"""

    machines = targets.read_inventory(inventory(tmp_path, pair))
    third = problems(tmp_path, f"{pair}      z: {{{broker}}}\n")
    equal = problems(tmp_path, pair.replace("replica: b", "replica: a"))

    assert len(machines) == 2
    assert [found.partition(":")[0] for found in (*third, *equal)] == ["6", "5"]


def test_broker_of_an_ansible_group_is_refused(tmp_path: Path) -> None:
    """A group's variable that places a broker on two hosts is an error; a broker on each host is not."""
    text = "all:\n  vars:\n    bts_exporter_collectors: {redis: {url: 'redis://%s'}}\n  hosts: {x: , y: }\n"

    found = problems(tmp_path, text % "cache")
    local = targets.read_inventory(inventory(tmp_path, text % "127.0.0.1"))

    assert len(found) == 1
    assert found[0].startswith("3: all.vars.bts_exporter_collectors.redis.url: two collectors")
    assert len(local) == 2


def test_template_in_a_variable_of_ours_is_refused(tmp_path: Path) -> None:
    """A value that only Ansible can compute is an error where it is needed."""
    text = 'all:\n  hosts:\n    x: {bts_exporter_labels: {site: "{{ site }}"}}\n'

    found = problems(tmp_path, text)

    assert len(found) == 1
    assert found[0].startswith(
        "3: all.hosts.x.bts_exporter_labels.site: templates, vaults and tags"
    )


def test_other_inventories_are_refused_with_the_cure(tmp_path: Path) -> None:
    """Ansible's INI format and other YAML are refused with the command that converts them."""
    for text in ("[north]\nhost-1 a=b\n", "hosts: [a, b]\n", "- a\n"):
        path = tmp_path / "hosts"
        path.write_text(text)

        with pytest.raises(ConfigError, match="ansible-inventory -i FILE --list --yaml"):
            targets.read_inventory(path)


def test_output_is_replaced_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--output replaces the file by another one that everybody can read, and prints who monitors which broker."""
    path = inventory(tmp_path, OURS)
    output = tmp_path / "targets.json"
    output.write_text("old")
    before = output.stat().st_ino
    old_mask = os.umask(0o077)

    try:
        commands.targets(str(path), str(output))
    finally:
        os.umask(old_mask)

    printed = capsys.readouterr()
    assert output.read_text() == targets.page(targets.read_inventory(path))
    assert output.stat().st_ino != before
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert {entry.name for entry in tmp_path.iterdir()} == {"inventory.yaml", "targets.json"}
    assert f"{output}: redis redis://127.0.0.1:6379: monitored by db-1.north.example" in printed.out
    assert "hush" not in printed.out
    assert "the job is 'other': alerts such as BtsExporterDown expect 'bts-exporter'" in printed.err


def test_output_that_is_a_loop_of_links(tmp_path: Path) -> None:
    """A link that leads nowhere is replaced."""
    link = tmp_path / "loop.json"
    link.symlink_to("loop.json")

    targets.write(link, "[]")

    assert link.read_text() == "[]"


def test_output_stays_if_the_inventory_is_wrong(tmp_path: Path) -> None:
    """An inventory with an error, or a folder that is missing, leaves no file and changes none."""
    output = tmp_path / "targets.json"
    output.write_text("old")
    wrong = inventory(tmp_path, "groups: {a: {port: 0, hosts: {x: }}}")

    with pytest.raises(ConfigError):
        commands.targets(str(wrong), str(output))
    with pytest.raises(
        OutputError, match=r"No such file or directory: create the folder .*/missing$"
    ):
        commands.targets(str(inventory(tmp_path, OURS)), str(tmp_path / "missing" / "x.json"))

    assert output.read_text() == "old"


def test_large_inventory_of_ansible_is_read(tmp_path: Path) -> None:
    """An inventory with more values than settings may have is read: ansible-inventory repeats a group's for each host."""
    shared = "".join(f"        v{number}: {number}\n" for number in range(30))
    hosts = f"      h0: &first\n{shared}"
    hosts += "".join(f"      h{number}: *first\n" for number in range(1, 2000))

    machines = targets.read_inventory(inventory(tmp_path, f"all:\n  hosts:\n{hosts}"))

    assert len(machines) == 2000


def test_ranges_are_those_of_ansible() -> None:
    """Numbers keep their leading zeros; letters, steps and several ranges work."""
    assert expand("a[08:10]") == ["a08", "a09", "a10"]
    assert expand("a[1:5:2]-[x:y]") == ["a1-x", "a1-y", "a3-x", "a3-y", "a5-x", "a5-y"]
    with pytest.raises(ValueError, match="more than 100000 hosts"):
        expand("a[1:9999999]")
