from __future__ import annotations

import threading
from time import monotonic

import pytest

from bts_collectors.redis.client.bounded_call import BoundedCall


def test_a_result() -> None:
    """The caller gets the function's result."""
    assert BoundedCall("test").outcome("key", lambda: 1, monotonic() + 20) == (1, None)


def test_an_error() -> None:
    """The caller gets the function's error, without the data in its frames."""

    def fail() -> None:
        raise LookupError("missing")  # noqa: EM101

    value, error = BoundedCall("test").outcome("key", fail, monotonic() + 20)

    assert value is None
    assert repr(error) == "LookupError('missing')"
    assert error is not None
    assert error.__traceback__ is None


def test_a_late_call_is_not_started_again() -> None:
    """A late call goes on, and the next request for the same key gets its result."""
    calls = threading.Semaphore(0)
    finish = threading.Event()
    call = BoundedCall("test")

    def slow() -> int:
        calls.release()
        finish.wait(60)
        return 1

    for _ in range(2):
        with pytest.raises(TimeoutError):
            call.outcome("key", slow, 0.0)
    finish.set()

    assert call.outcome("key", slow, monotonic() + 20) == (1, None)
    assert calls.acquire(blocking=False)
    assert not calls.acquire(blocking=False)
