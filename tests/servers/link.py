"""A network device whose speed the kernel knows: virtual machines often have none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def link_with_speed() -> Iterator[str | None]:
    """Add a pair of virtual devices that report 10 Gbit/s; give the name of one, None where not permitted."""
    name, peer = f"bts{os.getpid()}a", f"bts{os.getpid()}b"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield None
        return
    added = _ip("add", name, "type", "veth", "peer", "name", peer)
    try:
        for one in (name, peer):
            _ip("set", one, "up")
        yield name if added else None
    finally:
        if added:
            _ip("delete", name)


def _ip(*arguments: str) -> bool:
    return (
        subprocess.run(["ip", "link", *arguments], check=False, capture_output=True).returncode == 0
    )
