"""What systemd and a service tell each other: readiness, watchdog, listening sockets."""

from __future__ import annotations

import os
import socket
import time

#: The first file descriptor that systemd passes.
_FIRST_FD = 3


def notify(*lines: str) -> None:
    """Tell the service manager `lines` such as `READY=1`; nothing without one, never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.settimeout(1)
            manager.sendto("\n".join(lines).encode(), address)
    except OSError:
        return  # a manager that is gone must not end the service


def reloading() -> None:
    """Tell the service manager that the settings are being loaded anew."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds() -> float | None:
    """Return how often the manager wants to hear WATCHDOG=1, halved to be safe; None: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 else None


def sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd passed to this process, usually none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST_FD + i) for i in range(count)]
