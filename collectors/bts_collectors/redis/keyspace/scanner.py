"""Finds the names that patterns match, with SCAN in the background: a key space can be huge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Connection, Reply
from bts_collectors.redis.client.errors import (
    command_error,
    is_unsupported,
    unexpected,
    without_traceback,
)
from bts_collectors.redis.keyspace import globs
from bts_exporter import TargetError

#: Seconds between the starts of two walks through the key space.
INTERVAL_SECONDS = 60.0
#: Seconds and keys after which a walk is interrupted. It continues after the next scrape.
BUDGET_SECONDS = 5.0
KEYS_BUDGET = 2_000_000
#: Names of one setting; more are left out.
MOST_NAMES = 10_000
#: Bytes of a name; longer names are left out, since all names are kept in memory.
LONGEST_NAME = 1024
#: Seconds for which the name of a deleted key is kept: Redis deletes lists that become empty.
KEPT_SECONDS = 3600.0
#: Keys that one SCAN looks at: 0.3 ms of the server's time.
COUNT = 500
_BEGIN = b"0"


class Names:
    """The names of one setting: plain names, and names that its patterns matched."""

    def __init__(self, setting: Sequence[str], type_: str = "") -> None:
        """Take plain names and glob patterns; with `type_` keys of other types are left out."""
        self.type = type_.encode()
        self.globs = tuple(n.encode() for n in setting if globs.is_glob(n))
        #: Whether names may be missing: the first walk is not finished, or there are too many names.
        self.truncated = bool(self.globs)
        self._plain = dict.fromkeys(n.encode() for n in setting if not globs.is_glob(n))
        self._matches = globs.compiled(self.globs).fullmatch
        self._matched: dict[bytes, float] = {}  # when a walk last found each, monotonic
        self._lock = threading.Lock()
        self._overfull = False

    @property
    def patterns(self) -> bool:
        """Return whether there are patterns."""
        return bool(self.globs)

    def all(self) -> list[bytes]:
        """Return every known name once."""
        with self._lock:
            return list(dict.fromkeys((*self._plain, *self._matched)))

    def counts(self) -> dict[str, int]:
        """Return how many known names each pattern matches."""
        names = self.all()
        return {
            glob.decode(): sum(map(bool, map(globs.compiled([glob]).fullmatch, names)))
            for glob in self.globs
        }

    def is_listed(self, name: bytes) -> bool:
        """Return whether `name` is a plain name, which is wanted even while its key does not exist."""
        return name in self._plain

    def forget(self, name: bytes) -> bool:
        """Drop the name of a deleted key; return False if it is a plain name, which stays."""
        with self._lock:
            self._matched.pop(name, None)
        return not self.is_listed(name)

    def matching(self, page: Iterable[bytes]) -> list[bytes]:
        """Return the names of `page` that the patterns match."""
        return [name for name in page if self._matches(name)]

    def add(self, names: Iterable[bytes]) -> None:
        """Keep `names`, which a walk has just found, up to MOST_NAMES."""
        now = monotonic()
        with self._lock:
            for name in names:
                if name in self._matched or (
                    len(self._matched) < MOST_NAMES and len(name) <= LONGEST_NAME
                ):
                    self._matched[name] = now
                else:
                    self._overfull = self.truncated = True

    def end(self) -> None:
        """Note the end of a walk, and drop names that no walk has found for KEPT_SECONDS."""
        self.truncated, self._overfull = self._overfull, False
        oldest = monotonic() - KEPT_SECONDS
        with self._lock:
            self._matched = {name: when for name, when in self._matched.items() if when >= oldest}


class KeyspaceScanner:
    """Walks through the keys for all settings at once, in a thread that ends after each walk."""

    def __init__(
        self, settings: Sequence[Names], servers: Callable[[], Sequence[Connection]]
    ) -> None:
        """Take the names to find, and a function that returns the connections to walk through.

        `servers` is called in the thread, for every walk and after every interruption. A cursor belongs
        to the address of its connection.
        """
        self._settings = [names for names in settings if names.patterns]
        self._match = globs.covering([glob for names in self._settings for glob in names.globs])
        types = {names.type for names in self._settings}
        #: The type that all settings want, so that the server can filter by it; else empty.
        self._type = types.pop() if len(types) == 1 else b""
        self._connections = servers
        self._cursors: dict[str, bytes] = {}  # by address; finished ones are removed
        self._current: Connection | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._due = 0.0  # monotonic
        #: Whether the server supports SCAN. Without it only plain names are known.
        self.is_supported = True
        #: Why the latest walk failed.
        self.error: TargetError | None = None

    def refresh(self) -> None:
        """Start a walk in the background if one is due; does not wait."""
        alive = self._thread is not None and self._thread.is_alive()
        if alive or not self._settings or self._stopped.is_set() or monotonic() < self._due:
            return
        self._thread = threading.Thread(target=self._run, name="bts-redis-scan", daemon=True)
        self._thread.start()

    def wait_for_first_walk(self, seconds: float) -> None:
        """Start the first walk if there was none, and wait for it at most `seconds`.

        A small server is complete in the first scrape then.
        """
        if self._thread is None:
            self.refresh()
            if self._thread is not None:
                self._thread.join(seconds)

    def stop(self) -> None:
        """End the walk."""
        self._stopped.set()
        if (connection := self._current) is not None:
            connection.abort()
        if self._thread is not None:
            self._thread.join(BUDGET_SECONDS)

    def _run(self) -> None:
        began = monotonic()
        self._due = began + INTERVAL_SECONDS
        try:
            done = self._walk(began + BUDGET_SECONDS)
        except TargetError as error:
            self.error = without_traceback(error) if self.is_supported else None
            self._cursors.clear()  # another server may be there next time
            if error.reason != "noperm" and self.is_supported:
                self._due = 0.0
        else:
            self.error = None
            if not done:
                self._due = 0.0

    def _walk(self, end: float) -> bool:
        """Continue the walk through all connections until `end`; return whether it is finished."""
        servers = {str(connection.url): connection for connection in self._connections()}
        unfinished = self._cursors or dict.fromkeys(servers, _BEGIN)
        self._cursors = {
            address: cursor for address, cursor in unfinished.items() if address in servers
        }
        room = KEYS_BUDGET
        for address in list(self._cursors):
            with closing(servers[address]) as connection:
                self._current = connection
                while address in self._cursors:
                    if self._stopped.is_set() or monotonic() > end or room <= 0:
                        return False
                    self._step(connection, address)
                    room -= COUNT
        for names in self._settings:
            names.end()
        return True

    def _step(self, connection: Connection, address: str) -> None:
        type_ = ("TYPE", self._type) if self._type else ()
        words = ("MATCH", self._match, "COUNT", COUNT, *type_)
        reply = self._execute(connection, [("SCAN", self._cursors[address], *words)])[0]
        if isinstance(reply, ReplyError):
            self.is_supported = not is_unsupported(reply)
            raise command_error(connection.url, "SCAN", reply)
        self.is_supported = True
        match reply:
            case [bytes(cursor), list(page)] if all(type(name) is bytes for name in page):
                pass
            case _:
                raise unexpected(connection.url, "sent an unexpected reply to SCAN")
        self._take(connection, page)
        if cursor == _BEGIN:
            del self._cursors[address]
        else:
            self._cursors[address] = cursor

    def _take(self, connection: Connection, page: Sequence[bytes]) -> None:
        """Add the names of a page to the settings that want them."""
        matching = [(names, names.matching(page)) for names in self._settings]
        types: dict[bytes, Reply] = {}
        if not self._type:
            typed = dict.fromkeys(n for names, matches in matching if names.type for n in matches)
            types = dict(
                zip(typed, self._execute(connection, [("TYPE", n) for n in typed]), strict=True)
            )
        for names, matches in matching:
            # Without permission for TYPE the name is added: reading the key reports the type.
            other = {n for n, t in types.items() if type(t) is bytes and t != names.type}
            names.add(n for n in matches if not names.type or n not in other)

    def _execute(self, connection: Connection, commands: Sequence[Command]) -> list[Reply]:
        began = monotonic()
        replies = connection.execute(commands, began + BUDGET_SECONDS) if commands else []
        # Pause as long as the server worked, so that its clients hardly notice.
        self._stopped.wait(monotonic() - began)
        return replies
