"""A disk with as many partitions as a test wants: a loop device over a sparse file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_LOOP_SET_FD, _LOOP_CLR_FD = 0x4C00, 0x4C01
_BLKPG, _ADD, _DELETE = 0x1269, 1, 2
_SIZE = 64 * 1024


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("device", ctypes.c_char * 64),
        ("volume", ctypes.c_char * 64),
    )


class _Change(ctypes.Structure):
    _fields_ = (
        ("action", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_int),
        ("partition", ctypes.c_void_p),
    )


@contextmanager
def loop_disk(folder: Path, partitions: int) -> Iterator[str]:
    """Give the name of a disk with partitions; the test is skipped where we may not make one."""
    if os.geteuid() != 0:
        pytest.skip("not everywhere: loop devices are for root")
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate((partitions + 1) * _SIZE)
    with ExitStack() as stack:
        name, device = _attach(image, stack)
        for number in range(1, partitions + 1):
            _change(device, _ADD, number)
            stack.callback(_change, device, _DELETE, number)
        yield name


def _attach(image: Path, stack: ExitStack) -> tuple[str, int]:
    """Return name and descriptor of the last loop device that is free, with the image behind it."""
    backing = os.open(image, os.O_RDWR)
    stack.callback(os.close, backing)
    for path in sorted(Path("/dev").glob("loop[0-9]"), reverse=True):
        try:
            device = os.open(path, os.O_RDWR)
        except OSError:
            continue
        stack.callback(os.close, device)
        try:
            fcntl.ioctl(device, _LOOP_SET_FD, backing)
        except OSError as error:
            if error.errno != errno.EBUSY:
                break
        else:
            stack.callback(fcntl.ioctl, device, _LOOP_CLR_FD)
            return path.name, device
    pytest.skip("not everywhere: there is no free loop device for us")


def _change(device: int, action: int, number: int) -> None:
    partition = _Partition(start=number * _SIZE, length=_SIZE, number=number)
    size, address = ctypes.sizeof(partition), ctypes.addressof(partition)
    change = _Change(action=action, size=size, partition=address)
    if ctypes.CDLL(None, use_errno=True).ioctl(device, _BLKPG, ctypes.byref(change)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
