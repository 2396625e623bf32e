"""Exceptions that another thread raises in this one, as plug-ins can, at every point of a call."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any


class InterruptionError(BaseException):
    """An exception that another thread raises in this one."""


def interruptions(call: Callable[[], object]) -> Iterator[int]:
    """Call a function in a thread again and again, interrupted a step later each time, until it is not; yield after each."""
    for point in count():
        was_interrupted = _interrupted(call, point)
        yield point
        if not was_interrupted:
            return


def _interrupted(call: Callable[[], object], point: int) -> bool:
    """Call a function, and interrupt it after so many calls and returns; return whether there were as many."""
    points = iter(range(point))
    reached = threading.Event()

    def interrupt(_frame: object, event: str, _argument: object) -> None:
        # Python raises such exceptions where a function begins, and after a call of one in C.
        if event != "c_call" and next(points, None) is None:
            reached.set()
            raise InterruptionError  # which ends the profiling, too

    def run() -> None:
        with suppress(InterruptionError):
            sys.setprofile(interrupt)
            call()
            sys.setprofile(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    return reached.is_set()


def is_free(lock: Any) -> bool:
    """Return whether no other thread holds a lock."""
    free: bool = lock.acquire(blocking=False)
    if free:
        lock.release()
    return free
