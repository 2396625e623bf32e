from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.os_release import OperatingSystem, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

UBUNTU = """\
# comment
NAME="Ubuntu"
VERSION="22.04.1 LTS (Jammy \\"Jellyfish\\")"
ID=ubuntu
ID_LIKE='debian'

PRETTY_NAME="Ubuntu 22.04.1 LTS"
VERSION_ID="22.04"
SUPPORT_END=2032-04-01
"""


@pytest.fixture
def samples(machine: Machine) -> Callable[..., Samples]:
    """Give a function that collects from an /etc/os-release."""

    def from_content(content: str, path: str = "root/etc/os-release") -> Samples:
        return collect(OperatingSystem(OperatingSystem.Config(**machine({path: content}))))

    return from_content


def info(samples: Samples) -> dict[str, str]:
    """Return the labels of node_os_info that are not empty."""
    (values,) = samples["node_os_info"]
    return {n: v for n, v in zip(OperatingSystem.info.labels, values, strict=True) if v}


def test_fields(samples: Callable[..., Samples]) -> None:
    """The fields are labels, without shell quotes; version and end of support are numbers."""
    found = samples(UBUNTU)

    assert info(found) == {
        "name": "Ubuntu",
        "version": '22.04.1 LTS (Jammy "Jellyfish")',
        "id": "ubuntu",
        "id_like": "debian",
        "pretty_name": "Ubuntu 22.04.1 LTS",
        "version_id": "22.04",
    }
    assert found["node_os_version"] == {("ubuntu", "debian", "Ubuntu"): 22.04}
    assert found["node_os_support_end_timestamp_seconds"] == {(): 1964390400}


def test_second_path(samples: Callable[..., Samples]) -> None:
    """Without /etc/os-release the file in /usr/lib is used."""
    assert info(samples("ID=x\n", "root/usr/lib/os-release")) == {"id": "x"}


def test_first_path_wins(machine: Machine) -> None:
    """With both files the one in /etc is used."""
    paths = machine({"root/etc/os-release": "ID=a\n", "root/usr/lib/os-release": "ID=b\n"})

    assert info(collect(OperatingSystem(OperatingSystem.Config(**paths)))) == {"id": "a"}


def test_upgrade(machine: Machine) -> None:
    """The content after an upgrade is in the next scrape."""
    collector = OperatingSystem(
        OperatingSystem.Config(**machine({"root/etc/os-release": "VERSION_ID=11\n"}))
    )
    before = collect(collector)
    machine({"root/etc/os-release": "VERSION_ID=12\n"})

    assert (info(before), info(collect(collector))) == ({"version_id": "11"}, {"version_id": "12"})


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("12", 12.0),
        ("8.6", 8.6),
        ("22.04.1", 22.04),
        ("20260801", 20260801.0),
        ("rolling", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_version(samples: Callable[..., Samples], version: str, number: float | None) -> None:
    """A version is major.minor; one that is not a number has no series."""
    found = samples(f"ID=x\nVERSION_ID={version}\n")

    assert found.get("node_os_version", {}).get(("x", "", "")) == number


@pytest.mark.parametrize("date", ["", "soon", "2026-13-01", "2026-02-30"])
def test_invalid_end_of_support(samples: Callable[..., Samples], date: str) -> None:
    """An end of support that is not a date is left out."""
    assert "node_os_support_end_timestamp_seconds" not in samples(f"ID=x\nSUPPORT_END={date}\n")


def test_unbalanced_quotes() -> None:
    """A value with invalid shell syntax is unchanged."""
    assert parse(b'NAME="Half\nID=x\n') == {"name": '"Half', "id": "x"}


@pytest.mark.parametrize("content", ["", "\0\udcff what\n", "# nothing\n", "=x\n", "a b=c\n"])
def test_garbage(samples: Callable[..., Samples], content: str) -> None:
    """A file without any field is an error with the path."""
    with pytest.raises(TargetError, match=r"/etc/os-release: (unexpected content|is empty)"):
        samples(content)


def test_absent(machine: Machine) -> None:
    """Without either file there is nothing to read."""
    with pytest.raises(NotPresent, match=r"/etc/os-release and .*/usr/lib/os-release are absent"):
        collect(OperatingSystem(OperatingSystem.Config(**machine({}))))
