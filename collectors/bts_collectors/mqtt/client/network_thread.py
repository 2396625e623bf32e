"""The network thread: keeps a connection to the broker and reconnects until it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from threading import Event, Thread
from time import monotonic

from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.router import Receiver, Router
from bts_collectors.mqtt.client.session import Session, Target
from bts_collectors.mqtt.client.state import ConnectionState, Failure
from bts_collectors.mqtt.client.subscriptions import Suspects
from bts_exporter import AddressWatch, TargetError

log = logging.getLogger(__name__)

#: Seconds between the end of a connection and the next attempt. The delay doubles, up to the second
#: value, after each connection that was shorter than the second value.
RETRY_FIRST_SECONDS = 0.5
RETRY_LAST_SECONDS = 15.0
#: Seconds after the end of an attempt or a connection in which a collection does not begin another one.
RETRY_BY_COLLECTION_SECONDS = 2.0
#: Seconds without a loop after which the thread counts as stuck in a message handler.
STUCK_SECONDS = 10.0
#: Seconds without a loop after which the process was paused: the thread loops twice a second.
PAUSE_SECONDS = 2.0
_POLL_SECONDS = 0.02
#: Seconds to wait for the thread to disconnect from the broker.
STOP_SECONDS = 2.0


class NetworkThread:
    """Runs one session after another in a thread, and records how they end."""

    def __init__(self, target: Target, receivers: Sequence[Receiver], replied: Event) -> None:
        """Take the event to set when the first attempt has ended."""
        self.state = ConnectionState()
        self._target = target
        self._replied = replied
        self._stopping = Event()
        #: Ends the delay before the next attempt.
        self._hurry = Event()
        self._attempts = 0
        self._ended_at = float("inf")
        self._failure: Failure | None = None
        self._suspects = Suspects(str(target.url))
        self._watch = AddressWatch(target.url.host)
        self._session_boundary = ErrorBoundary(self._note_crash)
        self._message_boundary = ErrorBoundary(self._note_message_error)
        self.router = Router(receivers, self._message_boundary)
        self._thread = Thread(target=self._run, name="bts-mqtt-network", daemon=True)

    @property
    def alive(self) -> bool:
        """Return whether the network thread runs and is not stuck."""
        stuck = self.state.connected and monotonic() - self.state.heartbeat > STUCK_SECONDS
        return self._thread.is_alive() and not stuck

    def wake(self, timeout_seconds: float) -> None:
        """After a pause of the whole process, wait until the thread has read what came meanwhile.

        Return at once if there was no pause, and after `timeout_seconds` at the latest.
        """
        if not self.state.connected or monotonic() - self.state.heartbeat < PAUSE_SECONDS:
            return
        end = monotonic() + timeout_seconds
        before = self.state.heartbeat
        # Two loops: the second one begins after the first has read everything.
        for _ in range(2):
            while self.state.heartbeat == before and monotonic() < end:
                self._stopping.wait(_POLL_SECONDS)
            before = self.state.heartbeat

    def reconnect(self, timeout_seconds: float) -> bool:
        """Without a connection, begin the next attempt now and wait for its end; return whether it connected.

        Return False at once during an attempt, and within RETRY_BY_COLLECTION_SECONDS after the last one.
        """
        waited = monotonic() - self._ended_at
        if self.state.connected or waited < RETRY_BY_COLLECTION_SECONDS:
            return False
        before, end = self._attempts, monotonic() + timeout_seconds
        self._replied.clear()
        self._hurry.set()
        while self._attempts == before and not self.state.connected and monotonic() < end:
            self._stopping.wait(_POLL_SECONDS)
        return self.state.connected

    def start(self) -> None:
        """Start to connect, and return at once."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect; do not wait for a thread that is stuck in a connection attempt."""
        self._stopping.set()
        self._hurry.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        delay = 0.0
        while not self._is_stopped_after(delay):
            began = monotonic()
            self._ended_at = float("inf")
            self._attempt()
            self._attempts += 1
            self._ended_at = monotonic()
            self._replied.set()
            if self._failure is None:  # the host's address has changed, or stop() was called
                delay = 0.0
                continue
            # A broker that accepts and closes connections at once must not see two attempts a second.
            lasted = monotonic() - began > RETRY_LAST_SECONDS
            delay = (
                RETRY_FIRST_SECONDS
                if lasted
                else min(max(delay * 2, RETRY_FIRST_SECONDS), RETRY_LAST_SECONDS)
            )

    def _is_stopped_after(self, delay: float) -> bool:
        self._hurry.wait(delay)
        self._hurry.clear()
        return self._stopping.is_set()

    def _attempt(self) -> None:
        self._failure = None
        with self._session_boundary:
            try:
                session = Session(
                    self._target,
                    self.router,
                    self.state,
                    self._message_boundary,
                    suspects=self._suspects,
                    watch=self._watch,
                )
                session.run(self._stopping)
            except TargetError as error:
                self._failure = Failure(error.reason, str(error))
        if self._failure and self._failure.reason == "refused":
            self._suspects.forget()
        self.state.end(self._failure)
        if self._failure and self._failure.reason == "auth" and self._target.password:
            # The file may have changed since the last read.
            self._target = replace(self._target, password=self._target.password.reread())

    def _note_crash(self, error: Exception) -> None:
        self.state.restarts += 1
        message = f"unexpected error in the MQTT client: {type(error).__name__}: {error}"
        self._failure = Failure("internal", f"{self._target.url}: {message}")
        log.error(
            "%s: MQTT session restarted after an unexpected error", self._target.url, exc_info=error
        )

    def _note_message_error(self, error: Exception) -> None:
        self.state.message_errors += 1
        # One traceback shows the defect; at a thousand messages a second, more would flood the log.
        level = logging.ERROR if self.state.message_errors == 1 else logging.DEBUG
        log.log(level, "%s: message handler failed", self._target.url, exc_info=error)
