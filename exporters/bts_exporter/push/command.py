"""The command `push`: collects once or at an interval, and sends what it collected."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from bts_exporter import sd_notify
from bts_exporter.errors import ConfigError, PushError
from bts_exporter.exposition.formats import Format
from bts_exporter.push import http_config
from bts_exporter.push.buffer import Buffer
from bts_exporter.push.options import Protocol, PushOptions
from bts_exporter.push.protocol import PRODUCTS, address_of, encoder_of, protocol_of
from bts_exporter.push.receiver import Receiver
from bts_exporter.push.sender import Sender
from bts_exporter.push.series import Source
from bts_exporter.push.totals import PushTotals
from bts_exporter.service import Service
from bts_exporter.settings.value_types import Url

log = logging.getLogger("bts_exporter.push.command")

#: How long the end of the process waits for the receiver, in seconds.
_FLUSH_TIMEOUT = 10.0


class Pusher:
    """Collects with a service, and sends to one receiver."""

    def __init__(self, service: Service, options: PushOptions) -> None:
        """Check the options; ConfigError or PushError with what is wrong."""
        url = _url(options.url)
        self.protocol = options.protocol or protocol_of(url)
        default = "" if self.protocol is Protocol.PUSHGATEWAY else socket.gethostname()
        self.source = Source(options.job, default if options.instance is None else options.instance)
        self.totals = PushTotals()
        self._service = service
        self._options = options
        self._url = address_of(self.protocol, url, self.source)
        self._encoder = encoder_of(self.protocol, self.source)
        settings = http_config.load(options.http_config_file)
        self._reload_requested = False
        self._receiver = Receiver(PRODUCTS[self.protocol], self._url, settings, self._encoder)

    def once(self) -> list[str]:
        """Collect and push once; returns a line for each collector that failed.

        PushError, with these lines, if the receiver did not take all that waited.
        """
        self._service.start_collectors()
        try:
            buffer = self._buffer()
            sender = Sender(self._receiver, buffer, self.totals)
            self._collect(buffer, own_metrics=False)
            failures = self._failures()
            problem = sender.drain()
            buffer.close()
        finally:
            self._service.stop_collectors()
        if problem:
            msg = f"push to {self._url} failed: {problem}"
            raise PushError("\n".join([msg, *failures]))
        return failures

    def repeat(self, every: float) -> None:
        """Collect and push every `every` seconds until a signal says stop; SIGHUP reloads the settings."""
        stop = threading.Event()
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)
        self._service.keeps_states = True
        self._service.start_collectors()
        # Not earlier: until here a signal ends the process at once, even if a plug-in's import hangs.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        buffer = self._buffer()
        sender = Sender(self._receiver, buffer, self.totals)
        sender.start()
        log.info("pushing", extra={"protocol": str(self.protocol), "address": self._url})
        sd_notify.notify("READY=1")
        _at_interval(every, stop, lambda: self._cycle(buffer, sender, every))
        sd_notify.notify("STOPPING=1")
        self._end(buffer, sender)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_requested = True

    def _cycle(self, buffer: Buffer, sender: Sender, every: float) -> None:
        if self._reload_requested:
            self._reload_requested = False
            with suppress(ConfigError):  # logged, and the previous settings remain active
                self._service.reload()
        self._collect(buffer, own_metrics=True, timeout=every)
        sender.wake()
        self._service.tick()

    def _end(self, buffer: Buffer, sender: Sender) -> None:
        saves = self._service.save_states()
        now = time.time()
        for body in self._encoder.end(now):
            buffer.add(body, now)
        sender.stop(_FLUSH_TIMEOUT)
        self._service.stop_collectors(saves)
        buffer.close()
        if len(buffer):
            kept = "the next start sends them" if self._folder() else "they are lost"
            log.warning("batches were not sent: %s", kept, extra={"batches": len(buffer)})
        log.info("stopped")

    def _collect(self, buffer: Buffer, *, own_metrics: bool, timeout: float | None = None) -> None:
        exporter = self._service.exporter
        exporter.push_totals = self.totals
        started = time.time()
        page = exporter.page(
            exporter.collectors.runners,
            Format.TEXT,
            timeout=timeout,
            with_self_metrics=own_metrics,
        )
        for body in self._encoder.encode(page, started):
            buffer.add(body, started)

    def _buffer(self) -> Buffer:
        return Buffer(
            self.totals,
            max_bytes=self._options.buffer_bytes,
            max_age=self._options.buffer_age,
            folder=self._folder(),
            only_latest=self.protocol is Protocol.PUSHGATEWAY,
        )

    def _folder(self) -> Path | None:
        """Return the folder of batches for this receiver; None if they are kept in memory."""
        state = self._service.state_folder
        if state is None or self.protocol is Protocol.PUSHGATEWAY:
            return None
        address = f"{self._url}?{self._url.query}"
        return state / "push" / f"{self.protocol}-{zlib.crc32(address.encode()):08x}"

    def _failures(self) -> list[str]:
        return [
            f"{runner.identity}: FAILS ({shown.outcome.reason}): {shown.outcome.message}"
            for runner, shown in self._service.exporter.last.items()
            if shown.outcome is not None and not shown.outcome.success
        ]


def _at_interval(every: float, stop: threading.Event, work: Callable[[], None]) -> None:
    """Call `work` every `every` seconds, from now on; a call that takes longer skips the next ones."""
    due = time.monotonic()
    while not stop.is_set():
        work()
        due += every
        late = time.monotonic() - due
        if late > 0:
            due += every * (late // every + 1)
        stop.wait(max(due - time.monotonic(), 0))


def _url(raw: str) -> Url:
    try:
        url = Url.from_setting(raw if "://" in raw else f"http://{raw}")
        url.require_scheme("http", "https", key="address")
    except ValueError as error:
        msg = f"--url: {error}"
        raise PushError(msg) from error
    return url
