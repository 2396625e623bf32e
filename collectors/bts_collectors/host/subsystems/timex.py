"""The subsystem `timex`: state of the system clock, as set by an NTP client."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import NotPresent, Scrape, counter, gauge

_TIME_ERROR = 5
_STA_NANO = 0x2000
_MICROSECONDS = 1e6
_NANOSECONDS = 1e9
#: Unit of frequencies: parts per million, with 16 fractional bits.
_PPM = 1e6 * 65536


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    )


class Clock(NamedTuple):
    """Result of adjtimex(2), in the kernel's units."""

    state: int
    status: int
    offset: int = 0
    freq: int = 0
    maxerror: int = 0
    esterror: int = 0
    constant: int = 0
    tick: int = 0
    ppsfreq: int = 0
    jitter: int = 0
    shift: int = 0
    stabil: int = 0
    jitcnt: int = 0
    calcnt: int = 0
    errcnt: int = 0
    stbcnt: int = 0
    tai: int = 0


class Timex(Subsystem):
    """State of the system clock from adjtimex(2)."""

    name = "timex"

    sync_status = gauge(
        "node_timex_sync_status", "Whether the clock is synchronized (adjtimex, not TIME_ERROR)."
    )
    status = gauge("node_timex_status", "Status bits (adjtimex, status).")
    offset = gauge(
        "node_timex_offset_seconds", "Offset from the reference clock (adjtimex, offset)."
    )
    frequency = gauge(
        "node_timex_frequency_adjustment_ratio",
        "Frequency adjustment of the local clock (adjtimex, freq).",
    )
    max_error = gauge("node_timex_maxerror_seconds", "Maximum error (adjtimex, maxerror).")
    estimated_error = gauge(
        "node_timex_estimated_error_seconds", "Estimated error (adjtimex, esterror)."
    )
    constant = gauge(
        "node_timex_loop_time_constant",
        "Time constant of the phase-locked loop (adjtimex, constant).",
    )
    tick = gauge("node_timex_tick_seconds", "Time between clock ticks (adjtimex, tick).")
    pps_frequency = gauge(
        "node_timex_pps_frequency_hertz", "Frequency of the pulse per second (adjtimex, ppsfreq)."
    )
    pps_jitter = gauge(
        "node_timex_pps_jitter_seconds", "Jitter of the pulse per second (adjtimex, jitter)."
    )
    pps_shift = gauge(
        "node_timex_pps_shift_seconds", "Interval of the pulse per second (adjtimex, shift)."
    )
    pps_stability = gauge(
        "node_timex_pps_stability_hertz", "Stability of the pulse per second (adjtimex, stabil)."
    )
    pps_jitters = counter(
        "node_timex_pps_jitter_total",
        "Times that the jitter limit was exceeded (adjtimex, jitcnt).",
    )
    pps_calibrations = counter(
        "node_timex_pps_calibration_total",
        "Calibration intervals of the pulse per second (adjtimex, calcnt).",
    )
    pps_errors = counter(
        "node_timex_pps_error_total",
        "Calibration errors of the pulse per second (adjtimex, errcnt).",
    )
    pps_exceeded = counter(
        "node_timex_pps_stability_exceeded_total",
        "Times that the stability limit was exceeded (adjtimex, stbcnt).",
    )
    tai = gauge("node_timex_tai_offset_seconds", "Offset of TAI from UTC (adjtimex, tai).")

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._library = ctypes.CDLL(None, use_errno=True)

    def collect(self, scrape: Scrape) -> None:
        """Emit the state; NotPresent in a container without permission."""
        clock = read_clock(self._library)
        resolution = _NANOSECONDS if clock.status & _STA_NANO else _MICROSECONDS
        scrape.emit(self.sync_status, int(clock.state != _TIME_ERROR))
        scrape.emit(self.status, clock.status)
        scrape.emit(self.offset, clock.offset / resolution)
        scrape.emit(self.frequency, 1 + clock.freq / _PPM)
        scrape.emit(self.max_error, clock.maxerror / _MICROSECONDS)
        scrape.emit(self.estimated_error, clock.esterror / _MICROSECONDS)
        scrape.emit(self.constant, clock.constant)
        scrape.emit(self.tick, clock.tick / _MICROSECONDS)
        scrape.emit(self.pps_frequency, clock.ppsfreq / _PPM)
        scrape.emit(self.pps_jitter, clock.jitter / resolution)
        scrape.emit(self.pps_shift, clock.shift)
        scrape.emit(self.pps_stability, clock.stabil / _PPM)
        scrape.emit(self.pps_jitters, clock.jitcnt)
        scrape.emit(self.pps_calibrations, clock.calcnt)
        scrape.emit(self.pps_errors, clock.errcnt)
        scrape.emit(self.pps_exceeded, clock.stbcnt)
        scrape.emit(self.tai, clock.tai)


def read_clock(library: ctypes.CDLL) -> Clock:
    """Return the state of the clock; NotPresent without permission, or if the system is not Linux."""
    adjtimex = getattr(library, "adjtimex", None)
    if adjtimex is None:
        msg = "adjtimex(2) is absent: this system is not Linux"
        raise NotPresent(msg)
    timex = _Timex()  # modes is 0: read only
    state = adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        if number in {errno.EPERM, errno.ENOSYS}:
            msg = f"adjtimex(2): {os.strerror(number)}, as usual in containers"
            raise NotPresent(msg)
        raise OSError(number, f"adjtimex: {os.strerror(number)}")
    return Clock(state, *(getattr(timex, field) for field in Clock._fields[1:]))


COLLECTOR = Timex
