"""The notification protocol of systemd: readiness, watchdog, listening sockets."""

from __future__ import annotations

import os
import socket
import time

#: The first file descriptor that systemd passes.
_FIRST_FD = 3


def notify(*lines: str) -> None:
    """Send `lines` such as `READY=1` to the service manager, if there is one; never raises."""
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
    """Notify the service manager that the settings are being reloaded."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds() -> float | None:
    """Return half of the watchdog's timeout in seconds; None without a watchdog."""
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
    passed = [socket.socket(fileno=_FIRST_FD + i) for i in range(count)]
    for sock in passed:
        sock.set_inheritable(False)  # programs that a plug-in starts must not keep the port
    return passed
