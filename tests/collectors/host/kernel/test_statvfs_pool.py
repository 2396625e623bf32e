from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from bts_collectors.host.kernel import statvfs_pool
from bts_collectors.host.kernel.statvfs_pool import StatvfsPool
from servers import wait_until

FIGURES = os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, 0, 255))

#: Keys and paths of mounts.
Paths = dict[object, bytes]


class Mounts:
    """Mounts that respond, except for those that hang until they are released."""

    def __init__(self, *hanging: bytes) -> None:
        self.released = {path: threading.Event() for path in hanging}
        self.calls: list[bytes] = []
        self.threads: set[int] = set()

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """Return a result, or hang."""
        self.calls.append(path)
        self.threads.add(threading.get_ident())
        if path in self.released:
            self.released[path].wait()
        return FIGURES


def alive() -> int:
    """Return the number of threads of the pool."""
    return sum(thread.name == "bts-statvfs" for thread in threading.enumerate())


def query(
    pool: StatvfsPool, *paths: bytes, timeout: float = 0.3, seconds: float = 30.0
) -> set[object]:
    """Query `paths` and return the keys with a result."""
    return set(pool.query({path: path for path in paths}, timeout, monotonic() + seconds))


@pytest.fixture
def make_pool() -> Iterator[Callable[[Mounts], StatvfsPool]]:
    """Give a function that makes a pool for mounts; all mounts respond in the end."""
    made: list[tuple[Mounts, StatvfsPool]] = []

    def make(mounts: Mounts) -> StatvfsPool:
        made.append((mounts, StatvfsPool(mounts.statvfs)))
        return made[-1][1]

    yield make
    for mounts, pool in made:
        for released in mounts.released.values():
            released.set()
        pool.stop()
    wait_until(lambda: alive() == 0, "no thread is left")


def test_one_thread(
    make_pool: Callable[[Mounts], StatvfsPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all mounts respond, one thread queries them, scrape after scrape."""
    monkeypatch.setattr(
        statvfs_pool, "_TAKEOVER_SECONDS", 30
    )  # a busy host must not look like a mount that hangs
    mounts = Mounts()
    pool = make_pool(mounts)

    for _ in range(5):
        assert query(pool, b"/a", b"/b") == {b"/a", b"/b"}
    assert mounts.calls == [b"/a", b"/b"] * 5
    assert len(mounts.threads) == 1


def test_no_mounts(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """Without mounts there is no thread and no waiting."""
    assert query(make_pool(Mounts())) == set()
    assert alive() == 0


def test_errors_are_results(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """An error of a mount is its result, and the thread continues."""
    mounts = Mounts()
    error = PermissionError(13, "no")

    def refuse(path: bytes) -> os.statvfs_result:
        if path == b"/a":
            raise error
        return FIGURES

    mounts.statvfs = refuse  # type: ignore[method-assign]

    answers = make_pool(mounts).query({1: b"/a", 2: b"/b"}, 1, monotonic() + 30)
    assert answers == {1: error, 2: FIGURES}


def test_mounts_after_one_that_hangs(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """The mounts after one that hangs are queried by a second thread."""
    mounts = Mounts(b"/b")
    pool = make_pool(mounts)

    assert query(pool, b"/a", b"/b", b"/c") == {b"/a", b"/c"}
    wait_until(lambda: alive() == 2, "no other threads")


def test_hanging_mount_occupies_one_thread(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """A mount that hangs occupies one thread, however often it is queried."""
    mounts = Mounts(b"/a")
    pool = make_pool(mounts)

    for _ in range(5):
        assert query(pool, b"/a", b"/b") == {b"/b"}
    assert mounts.calls.count(b"/a") == 1
    wait_until(lambda: alive() == 2, "no other threads")


def test_recovery(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """A mount that responds again is queried again, and the thread that hung ends."""
    mounts = Mounts(b"/a")
    pool = make_pool(mounts)
    query(pool, b"/a", b"/b")

    mounts.released[b"/a"].set()
    wait_until(lambda: query(pool, b"/a", b"/b") == {b"/a", b"/b"}, "the mount is back")
    wait_until(lambda: alive() == 1, "one thread is left")


def test_slow_mount(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """A mount that is slow but within its timeout has a result."""
    mounts = Mounts(b"/a")
    pool = make_pool(mounts)

    def answer(path: bytes) -> os.statvfs_result:
        # Another thread has queried the others by then, which releases the slow one.
        if path == b"/b":
            mounts.released[b"/a"].set()
        return Mounts.statvfs(mounts, path)

    pool._statvfs = answer
    assert query(pool, b"/a", b"/b", timeout=30) == {b"/a", b"/b"}


def test_last_mount_hangs(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """If the last mount hangs, the next scrape starts another thread."""
    mounts = Mounts(b"/b")
    pool = make_pool(mounts)

    assert query(pool, b"/a", b"/b") == {b"/a"}
    wait_until(lambda: alive() == 1, "no other threads")
    assert query(pool, b"/a", b"/b") == {b"/a"}
    wait_until(lambda: alive() == 2, "no other threads")


def test_all_hang(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """If all mounts hang, each occupies one thread, and the query ends in time without a result."""
    paths = [b"/%d" % n for n in range(5)]
    mounts = Mounts(*paths)
    pool = make_pool(mounts)

    for _ in range(3):
        assert query(pool, *paths) == set()
    assert sorted(mounts.calls) == paths
    wait_until(lambda: alive() == 5, "no other threads")


def test_deadline(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """The deadline ends the waiting, even if the mounts' timeouts are longer."""
    mounts = Mounts(b"/a")
    pool = make_pool(mounts)

    assert query(pool, b"/b", b"/a", timeout=3600, seconds=0.5) == {b"/b"}


def test_threads_are_bounded(
    make_pool: Callable[[Mounts], StatvfsPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounts beyond the limit of hanging mounts are skipped, without a thread each."""
    monkeypatch.setattr(statvfs_pool, "_MAX_STUCK", 2)
    mounts = Mounts(b"/a", b"/b", b"/c")
    pool = make_pool(mounts)

    for _ in range(2):
        assert query(pool, b"/a", b"/b", b"/c", b"/d") == set()
    assert mounts.calls == [b"/a", b"/b"]
    wait_until(lambda: alive() == 2, "no other threads")


def test_another_mount_on_the_same_path(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """A new mount in place of one that hangs is queried."""
    mounts = Mounts(b"/a")
    pool = make_pool(mounts)
    assert pool.query({1: b"/a"}, 0.3, monotonic() + 30) == {}

    hanging = mounts.released.pop(b"/a")
    assert pool.query({2: b"/a"}, 30, monotonic() + 30) == {2: FIGURES}
    hanging.set()


def test_stop(make_pool: Callable[[Mounts], StatvfsPool]) -> None:
    """Stopping ends the thread; the next query starts another."""
    pool = make_pool(Mounts())
    query(pool, b"/a")
    pool.stop()
    wait_until(lambda: alive() == 0, "the thread has ended")

    assert query(pool, b"/a") == {b"/a"}
