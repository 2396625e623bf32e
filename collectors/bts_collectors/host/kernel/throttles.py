"""Thermal throttling counters: one file per core, looked up again when the set of processors changes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from bts_collectors.host.kernel.devices import entries
from bts_collectors.host.kernel.files import read_number

Place = TypeVar("Place", bound=Hashable)


class Throttles:
    """Reads the counters below /sys/devices/system/cpu; most virtual machines have none."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        #: The processors that were online when the files were looked up.
        self._online: bytes | None = None
        self._cores: dict[tuple[str, str], str] = {}
        self._packages: dict[str, str] = {}

    def read(self, online: bytes) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """Return the counts by (package, core) and by package.

        `online` is the list of online processors: the files are looked up again when it changes.
        """
        if online != self._online:
            self._cores, self._packages = _find(self._folder)
            self._online = online
        return _read_all(self._cores), _read_all(self._packages)


def _read_all(files: dict[Place, str]) -> dict[Place, int]:
    counts = ((place, read_number(path)) for place, path in files.items())
    return {place: count for place, count in counts if count is not None}


def _find(folder: str) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Return the files by core and by package; processors of one core share the file of the first."""
    cores: dict[tuple[str, str], str] = {}
    packages: dict[str, str] = {}
    for cpu in _processors(folder):
        package = read_number(f"{cpu}/topology/physical_package_id")
        core = read_number(f"{cpu}/topology/core_id")
        if package is None or core is None:  # offline, or an architecture without these files
            continue
        _add(cores, (str(package), str(core)), f"{cpu}/thermal_throttle/core_throttle_count")
        _add(packages, str(package), f"{cpu}/thermal_throttle/package_throttle_count")
    return cores, packages


def _add(files: dict[Place, str], place: Place, path: str) -> None:
    if place not in files and read_number(path) is not None:
        files[place] = path


def _processors(folder: str) -> list[str]:
    names = entries(folder)
    numbers = [int(name[3:]) for name in names if name.startswith("cpu") and name[3:].isdecimal()]
    return [f"{folder}/cpu{number}" for number in sorted(numbers)]
