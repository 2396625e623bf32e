from __future__ import annotations

import ctypes
import errno

import pytest

from bts_collectors.host.subsystems import timex
from bts_collectors.host.subsystems.timex import Clock, Timex
from bts_exporter import NotPresent
from bts_exporter.testing import Samples, collect

NANO = 0x2000


def samples(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Samples:
    """Return the samples if the kernel returns `clock`."""
    monkeypatch.setattr(timex, "read_clock", lambda _: clock)
    return collect(Timex(Timex.Config()))


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let adjtimex(2) fail."""

    class Library:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def adjtimex(self, pointer: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", Library)


def test_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Microseconds, nanoseconds and parts per million with 16 fractional bits become SI units."""
    clock = Clock(
        state=0,
        status=NANO | 1,
        offset=-1500,
        freq=-65536000,
        maxerror=250000,
        esterror=16,
        constant=10,
        tick=10000,
        ppsfreq=65536,
        jitter=2000,
        shift=4,
        stabil=131072,
        jitcnt=1,
        calcnt=2,
        errcnt=3,
        stbcnt=4,
        tai=37,
    )

    assert {name: value[()] for name, value in samples(monkeypatch, clock).items()} == {
        "node_timex_sync_status": 1,
        "node_timex_status": NANO | 1,
        "node_timex_offset_seconds": -1.5e-6,
        "node_timex_frequency_adjustment_ratio": 0.999,
        "node_timex_maxerror_seconds": 0.25,
        "node_timex_estimated_error_seconds": 16e-6,
        "node_timex_loop_time_constant": 10,
        "node_timex_tick_seconds": 0.01,
        "node_timex_pps_frequency_hertz": 1e-6,
        "node_timex_pps_jitter_seconds": 2e-6,
        "node_timex_pps_shift_seconds": 4,
        "node_timex_pps_stability_hertz": 2e-6,
        "node_timex_pps_jitter_total": 1,
        "node_timex_pps_calibration_total": 2,
        "node_timex_pps_error_total": 3,
        "node_timex_pps_stability_exceeded_total": 4,
        "node_timex_tai_offset_seconds": 37,
    }


def test_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without STA_NANO, offset and jitter are in microseconds."""
    found = samples(monkeypatch, Clock(state=0, status=0, offset=-1500, jitter=2000))

    assert found["node_timex_offset_seconds"] == {(): -1.5e-3}
    assert found["node_timex_pps_jitter_seconds"] == {(): 2e-3}


def test_not_synchronized(monkeypatch: pytest.MonkeyPatch) -> None:
    """TIME_ERROR means that the clock is not synchronized; a pending leap second does not."""
    lost = samples(monkeypatch, Clock(state=5, status=64))
    leaping = samples(monkeypatch, Clock(state=1, status=0))

    assert lost["node_timex_sync_status"] == {(): 0}
    assert leaping["node_timex_sync_status"] == {(): 1}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_without_permission(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """In a container without permission there is nothing to read."""
    refuse(monkeypatch, number)

    with pytest.raises(NotPresent, match="adjtimex"):
        collect(Timex(Timex.Config()))


def test_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error of the call is an error with its name."""
    refuse(monkeypatch, errno.EFAULT)

    with pytest.raises(OSError, match="adjtimex: Bad address"):
        collect(Timex(Timex.Config()))


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without the call has nothing to read."""

    class Library:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

    monkeypatch.setattr(ctypes, "CDLL", Library)

    with pytest.raises(NotPresent, match="this system is not Linux"):
        collect(Timex(Timex.Config()))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "adjtimex"), reason="this system is not Linux")
def test_this_machine() -> None:
    """The real kernel's structure has the expected layout."""
    found = collect(Timex(Timex.Config()))

    # USER_HZ is 100 everywhere: a tick of 10 ms, which NTP changes by a tenth at most.
    assert 0.009 <= found["node_timex_tick_seconds"][()] <= 0.011
    assert abs(found["node_timex_frequency_adjustment_ratio"][()] - 1) < 0.001
    assert 0 <= found["node_timex_tai_offset_seconds"][()] < 100
