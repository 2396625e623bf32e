"""The network thread: one connection after the other, whatever ends them, until it is stopped."""

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

#: Seconds between the end of a connection and the next attempt; doubled by each that lasts no
#: longer than the latter.
RETRY_FIRST_SECONDS = 0.5
RETRY_LAST_SECONDS = 15.0
#: Seconds after which a thread that is not at its socket again is stuck in the handling of a message.
HANGS_SECONDS = 10.0
#: Seconds after which a thread that is at its socket twice a second was away.
AWAY_SECONDS = 2.0
_LOOK_SECONDS = 0.02
#: Seconds to wait for the thread's goodbye to the broker.
STOP_SECONDS = 2.0


class NetworkThread:
    """Runs sessions in a thread of its own and keeps account of how they end."""

    def __init__(self, target: Target, receivers: Sequence[Receiver], replied: Event) -> None:
        """Set `replied` as soon as the first attempt has ended."""
        self.state = ConnectionState()
        self._target = target
        self._replied = replied
        self._stopping = Event()
        self._failure: Failure | None = None
        self._suspects = Suspects(str(target.url))
        self._watch = AddressWatch(target.url.host)
        self._session_boundary = ErrorBoundary(self._note_crash)
        self._message_boundary = ErrorBoundary(self._note_message_error)
        self.router = Router(receivers, self._message_boundary)
        self._thread = Thread(target=self._run, name="bts-mqtt-network", daemon=True)

    @property
    def alive(self) -> bool:
        """Return whether the network thread runs, and looks after its connection."""
        hangs = self.state.connected and monotonic() - self.state.heartbeat > HANGS_SECONDS
        return self._thread.is_alive() and not hangs

    def wake(self, seconds: float) -> None:
        """Wait until the thread has been at its socket where it was long away, `seconds` at most.

        After a pause of the whole process it is not late, but not there yet.
        """
        if not self.state.connected or monotonic() - self.state.heartbeat < AWAY_SECONDS:
            return
        end = monotonic() + seconds
        before = self.state.heartbeat
        # The beat after the next one: what had come by then is read.
        for _ in range(2):
            while self.state.heartbeat == before and monotonic() < end:
                self._stopping.wait(_LOOK_SECONDS)
            before = self.state.heartbeat

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the connection; a thread that is stuck in a connection attempt is left to itself."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        delay = 0.0
        while not self._stopping.wait(delay):
            began = monotonic()
            self._attempt()
            self._replied.set()
            if self._failure is None:  # the host name has moved, or we are to stop
                delay = 0.0
                continue
            # A broker that lets us in and drops us at once is not to be asked twice a second.
            lasted = monotonic() - began > RETRY_LAST_SECONDS
            delay = (
                RETRY_FIRST_SECONDS
                if lasted
                else min(max(delay * 2, RETRY_FIRST_SECONDS), RETRY_LAST_SECONDS)
            )

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
            # It may have been changed since the start.
            self._target = replace(self._target, password=self._target.password.reread())

    def _note_crash(self, error: Exception) -> None:
        self.state.restarts += 1
        message = f"the MQTT client failed: {type(error).__name__}: {error}"
        self._failure = Failure("internal", f"{self._target.url}: {message}")
        log.error("%s: network thread restarted", self._target.url, exc_info=error)

    def _note_message_error(self, error: Exception) -> None:
        self.state.message_errors += 1
        # The first one shows where the defect is; at a thousand messages a second one is enough.
        level = logging.ERROR if self.state.message_errors == 1 else logging.DEBUG
        log.log(level, "%s: a message was not handled", self._target.url, exc_info=error)
