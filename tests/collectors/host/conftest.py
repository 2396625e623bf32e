"""Host files in a temporary directory, with content that the test writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Writes files, by path below the directory, and returns the paths for a subsystem's settings.
Machine = Callable[[dict[str, str]], dict[str, Any]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a function that writes files such as `proc/stat`, and returns the paths for the settings."""

    def write(files: dict[str, str]) -> dict[str, Any]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("utf-8", "surrogateescape"))
        return {
            "procfs": str(tmp_path / "proc"),
            "sysfs": str(tmp_path / "sys"),
            "rootfs": str(tmp_path / "root"),
            "udev_data": str(tmp_path / "udev"),
        }

    return write


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], int]:
    """Give a function that counts the files below `tmp_path` that this process has open."""

    def count() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(link.readlink()).startswith(str(tmp_path)) for link in links)

    return count
