"""Names that patterns match, found with SCAN apart from the scrapes: a key space can be huge."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.connection import Command, Connection
from bts_collectors.redis.failures import refusal
from bts_collectors.redis.visit import Ask
from bts_exporter import TargetError

#: Seconds from the beginning of one walk through the key space to the next.
INTERVAL = 60.0
#: Seconds that one walk may take; what is left is for the next one.
BUDGET = 5.0
#: Names of one setting; those found beyond it are left out.
MOST_NAMES = 10_000
#: Keys the server looks at in one SCAN: 0.3 ms of its time.
_COUNT = 500
_GLOB = re.compile(r"[*?\[\\]")


class Names:
    """The names that one setting asks for: those it spells, and those its patterns matched."""

    def __init__(self, setting: Sequence[str], type_: str = "") -> None:
        """Take plain names and glob patterns; `type_` leaves out keys of any other type."""
        self._plain = tuple(dict.fromkeys(n.encode() for n in setting if not _GLOB.search(n)))
        self._globs = tuple(n for n in setting if _GLOB.search(n))
        self._filter = ("TYPE", type_) if type_ else ()
        self._found: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._glob = 0  # which of them is being walked for
        self._cursor: bytes = b"0"
        self._walked = not self._globs
        self._overfull = False

    @property
    def patterns(self) -> bool:
        """Return whether there is anything to find."""
        return bool(self._globs)

    @property
    def truncated(self) -> bool:
        """Return whether names may be missing: not all looked at yet, or too many."""
        return self._overfull or not self._walked

    def all(self) -> list[bytes]:
        """Return every name known, each once."""
        with self._lock:
            return list(dict.fromkeys((*self._plain, *self._found)))

    def forget(self, name: bytes) -> bool:
        """Drop a name that was found and is gone; return False for one that the setting spells."""
        with self._lock:
            self._found.pop(name, None)
        return name not in self._plain

    def walk(self, ask: Ask, is_over: Callable[[], bool]) -> bool:
        """Go on finding names; return whether all patterns are through before `is_over`.

        ReplyError when the server refuses SCAN.
        """
        while self._glob < len(self._globs):
            if is_over():
                return False
            self._step(ask)
        self._glob = 0
        self._walked = True
        return True

    def _step(self, ask: Ask) -> None:
        pattern = self._globs[self._glob]
        match: Command = ("SCAN", self._cursor, "MATCH", pattern, "COUNT", _COUNT, *self._filter)
        reply = ask([match])[0]
        if isinstance(reply, ReplyError):
            raise reply
        self._cursor, names = reply
        with self._lock:
            self._found.update(dict.fromkeys(names))
            self._overfull = len(self._found) > MOST_NAMES
            while len(self._found) > MOST_NAMES:
                self._found.popitem()
        if self._cursor == b"0":
            self._glob += 1


class Discovery:
    """Walks for all settings: bounded in the first scrape, then in a thread that ends by itself."""

    def __init__(self, settings: Sequence[Names], connection: Connection) -> None:
        """Take what to find, and a connection of the thread's own."""
        self._settings = [names for names in settings if names.patterns]
        self._connection = connection
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._due = 0.0  # monotonic
        self._first = True
        #: Why the walk before this one failed.
        self.error: TargetError | None = None

    def first(self, ask: Ask, seconds: float) -> None:
        """Walk in the caller's thread, once in a life, so that a small server is complete at once."""
        if self._first and self._settings:
            self._first = False
            self._walk(ask, seconds)

    def refresh(self) -> None:
        """Begin a walk in the background if it is time for one; does not wait."""
        alive = self._thread is not None and self._thread.is_alive()
        if alive or not self._settings or self._stopped.is_set() or monotonic() < self._due:
            return
        self._thread = threading.Thread(target=self._run, name="bts-redis-scan", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the walk under way."""
        self._stopped.set()
        self._connection.abort()
        if self._thread is not None:
            self._thread.join(BUDGET)

    def _run(self) -> None:
        deadline = monotonic() + 2 * BUDGET

        def ask(commands: Sequence[Command]) -> list[object]:
            began = monotonic()
            replies = self._connection.ask(commands, deadline)
            # At most half of the time, so that the server's own clients hardly notice.
            self._stopped.wait(monotonic() - began)
            return replies

        self._walk(ask, BUDGET)
        self._connection.close()

    def _walk(self, ask: Ask, seconds: float) -> None:
        began = monotonic()
        try:
            done = [
                names.walk(ask, lambda: self._stopped.is_set() or monotonic() > began + seconds)
                for names in self._settings
            ]
        except ReplyError as reply:
            self.error = refusal(self._connection.url, "SCAN", reply)
            self._due = began + INTERVAL
        except TargetError as error:
            self.error = error
        else:
            self.error = None
            self._due = began + INTERVAL if all(done) else 0.0
