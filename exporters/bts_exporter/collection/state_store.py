"""Stores the states of collectors in a folder, so that a restart of the exporter does not lose their history.

Nothing here runs in the path of a scrape: states are read and written in threads that nothing waits for longer
than a given time, because a file system may hang.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from bts_exporter.collection import state_file
from bts_exporter.collection.runner import Runner, StateTotals
from bts_exporter.collection.state_file import StoredDocument
from bts_exporter.collection.worker import Worker
from bts_exporter.errors import StateError
from bts_exporter.stored_state import Clocks, StoredState, not_used

log = logging.getLogger("bts_exporter.collection.state_store")

#: How often states are stored, in seconds.
SAVE_SECONDS = 60.0
#: How long the start waits for stored states, in seconds.
RESTORE_TIMEOUT = 3.0
#: How long a collection under way may delay reading the collector's state, in seconds.
_COLLECTION_TIMEOUT = 20.0
_LOCK_NAME = ".lock"
#: Digits of a process id that fit into the lock file.
_LONGEST_PID = 20
_ADVICE = "create the folder for the user that runs bts-exporter, mode 0700"
#: StateDirectory= of our units: systemd creates it when the service starts, and may not have started it yet.
_FOLDER_OF_THE_UNIT = Path("/var/lib/bts-exporter")
_LOST = "a restart would lose the history since the last save"

_T = TypeVar("_T")


def folder_problem(folder: Path) -> str:
    """Return why nothing can be stored in `folder`, or who can change what is; empty if it is fine."""
    try:
        found = folder.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and folder == _FOLDER_OF_THE_UNIT:
            return ""
        return f"nothing is saved: {folder}: {error.strerror}: {_ADVICE}"
    if not stat.S_ISDIR(found.st_mode):
        return f"nothing is saved: {folder} is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} is not writable for this user: check as the user that runs bts-exporter"
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:  # not of a group: that is how Kubernetes gives access to a volume
        return f"{folder} is writable by all users (mode {mode:04o}): use one with mode 0700"
    return ""


class Save:
    """One save of one collector's state."""

    def __init__(self) -> None:
        #: Done when the collector is not needed any more.
        self.taken: Future[None] = Future()
        #: Done when the save has ended, whatever the result.
        self.written: Future[None] = Future()

    def end(self) -> None:
        """Note that it has ended."""
        for step in (self.taken, self.written):
            if not step.done():
                step.set_result(None)


class StateStore:
    """The folder of states; one process uses it at a time."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is opened yet."""
        self.folder = folder
        self._io = Worker("bts-state")
        self._lock: int | None = None
        self._due = time.monotonic() + SAVE_SECONDS
        #: Saves that have not ended, by collector.
        self._saves: dict[Runner, Save] = {}
        #: The last problem that was logged, by what it is about.
        self._logged: dict[str, str] = {}

    def adopt(self, runners: Iterable[Runner]) -> None:
        """Store the states of these collectors from now on, of those that have one."""
        for runner in runners:
            if runner.collector.State is not None and runner.totals.state is None:
                runner.totals.state = StateTotals()

    def release(self, runners: Iterable[Runner]) -> None:
        """Store nothing of these collectors any more, and let another process use the folder."""
        self.close()
        for runner in runners:
            runner.totals.state = None

    def restore(self, runners: Iterable[Runner], timeout: float = RESTORE_TIMEOUT) -> None:
        """Give the collectors their stored states; returns after `timeout` seconds at the latest, never raises."""
        found: dict[Runner, Future[StoredState | None]] = {}
        for runner in runners:
            if runner.totals.state is not None:
                found[runner] = self._submit(partial(self._read, runner))
        wait(found.values(), timeout)
        for runner, future in found.items():
            if not future.done():
                future.cancel()
                self._refuse(runner, f"not read within {timeout:g} s: does the file system hang?")
            elif future.exception() is not None:
                self._refuse(runner, str(future.exception()))
            elif (stored := future.result()) is not None:
                runner.collector.keep_for_restore(stored)

    def tick(self, runners: Sequence[Runner]) -> None:
        """Begin to save the states if that is due; does not wait, and never raises."""
        if time.monotonic() >= self._due:
            self.save(runners)

    def save(self, runners: Iterable[Runner], timeout: float = _COLLECTION_TIMEOUT) -> list[Save]:
        """Begin to save the states; does not wait, and never raises.

        A collector whose collection does not end within `timeout` seconds is left out.
        """
        self._due = time.monotonic() + SAVE_SECONDS
        begun = []
        for runner in runners:
            if runner.totals.state is None:
                continue
            before = self._saves.get(runner)
            if before is not None and not before.written.done():
                self._fail(runner, "the save before has not ended: does the file system hang?")
                continue
            begun.append(self._begin(runner, timeout))
        return begun

    def hand_over(self, gone: Sequence[Runner], new: Sequence[Runner], timeout: float) -> None:
        """Store the states of collectors that a reload replaces, for those that replace them."""
        heirs = {old: runner for runner in new if (old := _predecessor(runner, gone)) is not None}
        saves = self.save(heirs, timeout)
        wait([save.written for save in saves], timeout)
        for old, runner in heirs.items():
            if old.target != runner.target:
                self._submit(partial(self._rename, old, runner))
        for old in gone:
            self._saves.pop(old, None)

    def close(self) -> None:
        """Let another process use the folder, after what is under way; does not wait."""
        self._submit(self._unlock)
        self._io.stop()

    def _begin(self, runner: Runner, timeout: float) -> Save:
        save = self._saves[runner] = Save()
        reader = Worker(f"bts-state-{runner.identity}")  # a plug-in's code may hang
        try:
            reader.submit(partial(self._take, runner, save, timeout))
        except RuntimeError as error:
            save.end()
            self._fail(runner, f"no thread: {error}")
        reader.stop()
        return save

    def _take(self, runner: Runner, save: Save, timeout: float) -> None:
        """Read a collector's state and have it written."""
        try:
            found = runner.read_state(timeout)
            save.taken.set_result(None)
            content = None if found is None else _encode(runner, *found)
            if content is not None:
                self._io.submit(partial(self._write, runner, content, save))
                return
        except (StateError, RuntimeError) as error:
            self._fail(runner, str(error))
        save.end()

    def _write(self, runner: Runner, content: bytes, save: Save) -> None:
        try:
            if problem := self._lock_problem():
                self._report(runner, "save", str(self.folder), f"nothing is saved: {problem}")
                return
            state_file.write(self._path(runner), content)
        except StateError as error:
            self._fail(runner, f"{self._path(runner)}: {error}")
        else:
            self._succeed(runner)
        finally:
            save.end()

    def _read(self, runner: Runner) -> StoredState | None:
        path, state_type = self._path(runner), runner.collector.State
        if problem := self._lock_problem():
            message = f"nothing is restored or saved: {problem}"
            self._report(runner, "restore", str(self.folder), message)
            return None
        try:
            content = state_file.read(path)
            if content is None or state_type is None:
                return None
            document = state_file.decode(content, runner.name, runner.collector.state_version)
            state = msgspec.json.decode(document.state, type=state_type)
        except (StateError, msgspec.MsgspecError, ValueError) as error:
            self._refuse(runner, str(error))
            return None
        count = partial(_count, runner, "restore")
        return StoredState(str(path), document.identity, document.saved, state, count)

    def _rename(self, old: Runner, new: Runner) -> None:
        try:
            self._path(old).replace(self._path(new))
        except OSError as error:
            log.warning("state %s is not renamed: %s", self._path(old), error.strerror)

    def _lock_problem(self) -> str:
        """Lock the folder for this process; return why that is impossible, empty if it is done."""
        if self._lock is not None:
            return ""
        path = self.folder / _LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return f"{path}: {error.strerror}: {_ADVICE}"
        try:
            # Not flock: a child that a plug-in forks would keep that one.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            found = os.pread(descriptor, _LONGEST_PID, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                return f"{self.folder} is used by another exporter (process {found}): give each its own folder"
            return f"{path}: {error.strerror}"
        with suppress(OSError):  # a full disk does not prevent reading
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._lock = descriptor
        return ""

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _path(self, runner: Runner) -> Path:
        return self.folder / state_file.file_name(runner.name, runner.target)

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have `work` done in the thread for files."""
        promise: Future[_T] = Future()
        try:
            self._io.submit(partial(_fulfil, promise, work))
        except RuntimeError as error:
            promise.set_exception(StateError(f"no thread: {error}"))
        return promise

    def _succeed(self, runner: Runner) -> None:
        if runner.totals.state is not None:
            runner.totals.state.last_save = time.time()
        was_wrong = self._logged.pop(str(self.folder), "") or self._logged.pop(runner.identity, "")
        if was_wrong:
            log.info("states are saved again", extra={"collector": runner.identity})

    def _refuse(self, runner: Runner, problem: str) -> None:
        """Count and log that a collector begins without its state."""
        message = not_used(str(self._path(runner)), problem)
        self._report(runner, "restore", runner.identity, message)

    def _fail(self, runner: Runner, problem: str) -> None:
        """Count and log that a state is not saved."""
        message = f"state not saved: {problem}; {_LOST}"
        self._report(runner, "save", runner.identity, message)

    def _report(self, runner: Runner, operation: str, about: str, message: str) -> None:
        """Count a failure, and log it unless it is the one that was logged last `about` the same."""
        _count(runner, operation)
        if self._logged.get(about) != message:
            self._logged[about] = message
            log.warning("%s", message, extra={"collector": runner.identity})


def _encode(runner: Runner, identity: str, state: msgspec.Struct) -> bytes:
    """Return the content of a collector's file; StateError if it cannot be encoded."""
    try:
        raw = msgspec.Raw(msgspec.json.encode(state))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        message = f"its save_state returned what JSON cannot express: {error}"
        raise StateError(message) from None
    version = runner.collector.state_version
    return state_file.encode(
        StoredDocument(state_file.FORMAT, runner.name, version, identity, Clocks.now(), raw)
    )


def _count(runner: Runner, operation: str) -> None:
    if runner.totals.state is not None:
        runner.totals.state.errors[operation] += 1


def _predecessor(runner: Runner, gone: Iterable[Runner]) -> Runner | None:
    """Return the collector that `runner` replaces after a reload: of the same name, or only renamed."""
    same_type = [old for old in gone if (old.kind, old.name) == (runner.kind, runner.name)]
    for old in same_type:
        if old.target == runner.target:
            return old
    config = runner.collector.config
    return next((old for old in same_type if old.collector.config == config), None)


def _fulfil(promise: Future[_T], work: Callable[[], _T]) -> None:
    if promise.set_running_or_notify_cancel():
        try:
            promise.set_result(work())
        except (OSError, StateError) as error:
            promise.set_exception(error)
