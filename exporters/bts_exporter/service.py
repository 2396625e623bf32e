"""The exporter as a service: start, reload that cannot kill, stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

from bts_exporter import sd_notify
from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.registry import Registry
from bts_exporter.collection.worker import Worker
from bts_exporter.errors import ConfigError, Problem, forget_frames, text_of
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.settings.loader import Settings, find, load
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Server, listen

log = logging.getLogger("bts_exporter.service")

#: How many more containers there may be before circles among them are looked for. With Python's 700
#: a scrape of ten thousand streams is held up 250 times, a tenth of its time, though it makes none.
_GARBAGE = 10_000

_T = TypeVar("_T")

#: How long requests under way may take to end when the service stops, in seconds.
_GRACE = 10.0
#: How long collectors may take to part with their targets when the service stops, in seconds.
_STOP_TIMEOUT = 2.0
#: How long a reload over HTTP waits for its turn, in seconds.
_RELOAD_TIMEOUT = 30.0
#: How long a reload may take to read the settings and build the collectors, in seconds.
_LOAD_TIMEOUT = 10.0
#: How long a signal may lie that came just before the main thread began to wait, in seconds:
#: Python notes such a one, and wakes nobody.
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    config_file: str | None = None
    addresses: tuple[str, ...] = (":19100",)
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    own_metrics: bool = True
    lifecycle: bool = False


class _ReloadRequest:
    """A request for a reload, and how it went for who waits for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: ConfigError | None = None


class _Watchdog:
    """The service manager's, which restarts a process that it does not hear from in time."""

    def __init__(self, stalled: Callable[[], str]) -> None:
        self._stalled = stalled
        self._interval = sd_notify.watchdog_seconds()
        self._due = 0.0
        self._problem = ""

    def feed(self) -> float:
        """Tell the manager that scrapes can make progress, if it is time and they can.

        Returns the seconds until it is time again.
        """
        if self._interval is None:
            return _POLL_SECONDS
        left = self._due - time.monotonic()
        if left > 0:
            return left
        problem = self._stalled()
        if problem and not self._problem:
            log.error("no scrape can be answered, the watchdog will restart us: %s", problem)
        self._problem = problem
        if problem:
            return _POLL_SECONDS
        sd_notify.notify("WATCHDOG=1")
        self._due = time.monotonic() + self._interval / 2
        return self._interval / 2


class Service:
    """One running exporter."""

    def __init__(self, options: Options) -> None:
        """Prepare; nothing is opened yet."""
        self.options = options
        self.reload_state = ReloadState()
        self.exporter = Exporter(
            self.reload_state, max_scrapes=options.max_requests, own_metrics=options.own_metrics
        )
        self._inbox: SimpleQueue[_ReloadRequest | None] = SimpleQueue()
        self._file: Path | None = None
        self._ready = False

    def start_collectors(self) -> None:
        """Load the settings and start the collectors; ConfigError when the settings are unusable."""
        # The same file for all reloads: one that vanishes is an error, not the built-in settings.
        self._file = find(self.options.config_file)
        settings = load(self._file, Registry)
        assembly = Assembly(settings)
        for problem in assembly.problems:
            log.error("a collector is left out: %s", problem)
        self._put_in_force(assembly, settings.scrape_timeout)
        log.info(
            "settings loaded",
            extra={"file": settings.file, "collectors": len(assembly.set.runners)},
        )

    def reload(self) -> None:
        """Put the settings as they are now in force; ConfigError, with nothing changed, on any error."""
        sd_notify.reloading()
        try:
            settings, assembly = self._assemble_anew()
        except ConfigError as error:
            self.reload_state.fail(str(error))
            for problem in error.problems:
                log.error("reload failed, the settings before stay in force: %s", problem)  # noqa: TRY400  # the user's error, not ours
            raise
        else:
            self._put_in_force(assembly, settings.scrape_timeout)
            log.info("settings reloaded", extra={"file": settings.file})
        finally:
            sd_notify.notify("READY=1")

    def run(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Serve until a signal says stop; ConfigError or ServeError when it cannot begin."""
        gc.set_threshold(_GARBAGE)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)
        listeners = list(sockets) or [listen(address) for address in self.options.addresses]
        self.start_collectors()
        # Not before: until here a signal ends us at once, also while a plug-in's import hangs.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        server = self._server(listeners)
        server.start()
        for listener in listeners:
            log.info("listening", extra={"address": _address(listener)})
        self._ready = True
        sd_notify.notify("READY=1")
        self._collect_once()
        self._loop(server)
        self._ready = False
        sd_notify.notify("STOPPING=1")
        server.stop(_GRACE)
        self.stop_collectors()
        log.info("stopped")

    def stop_collectors(self) -> None:
        """End every collector, without waiting long for one that hangs."""
        end = time.monotonic() + _STOP_TIMEOUT
        # All told first, so that they end at the same time.
        collectors = self.exporter.collectors
        for last in collectors.stop(collectors.runners):
            last.wait(end - time.monotonic())
        collectors.close()

    def _server(self, listeners: Sequence[socket.socket]) -> Server:
        routes = Routes(
            self.exporter,
            self.reload_state,
            telemetry_path=self.options.telemetry_path,
            reload=self._ask_for_reload if self.options.lifecycle else None,
            ready=lambda: self._ready,
        )
        server = Server(listeners, routes)
        self.exporter.traffic = server.traffic
        return server

    def _assemble_anew(self) -> tuple[Settings, Assembly]:
        """Do so in a thread, since it runs plug-ins' code: that may hang, and raise anything."""
        found: Future[tuple[Settings, Assembly]] = Future()
        worker = Worker("bts-settings")
        try:
            worker.submit(lambda: _fulfil(found, self._load_anew))
            worker.stop()
            return found.result(_LOAD_TIMEOUT)
        except TimeoutError as error:
            message = f"not loaded within {_LOAD_TIMEOUT:g} s: a plug-in or a file hangs"
            raise _unloadable(message) from error
        except RuntimeError as error:
            message = f"no thread to load the settings in: {error}"
            raise _unloadable(message) from error

    def _load_anew(self) -> tuple[Settings, Assembly]:
        settings = load(self._file, Registry)
        assembly = Assembly(settings, self.exporter.collectors)
        if assembly.problems:
            raise ConfigError(assembly.problems)
        return settings, assembly

    def _collect_once(self) -> None:
        """Have the log and the status page say what there is before anybody scrapes."""
        collectors = self.exporter.collectors
        first = Worker("bts-first")
        try:
            first.submit(
                lambda: self.exporter.remember(
                    collectors.collect(collectors.runners, self.exporter.scrape_timeout)
                )
            )
        except RuntimeError as error:
            log.warning("the collectors are not asked before the first scrape: %s", error)
        first.stop()

    def _put_in_force(self, assembly: Assembly, scrape_timeout: float) -> None:
        gone = assembly.adopt()
        for runner in assembly.new:
            runner.start()
        self.exporter.collectors = assembly.set
        self.exporter.scrape_timeout = scrape_timeout
        self.reload_state.succeed(time.time())
        # A scrape that has begun goes on with them, and must not take their end for the target's.
        assembly.set.stop(gone, self.exporter.scrape_timeout)
        last = self.exporter.last
        self.exporter.last = {
            runner: last[runner] for runner in assembly.set.runners if runner in last
        }

    def _loop(self, server: Server) -> None:
        watchdog = _Watchdog(lambda: self._stalled(server))
        while True:
            seconds = min(watchdog.feed(), _POLL_SECONDS)
            requests = self._received(seconds)
            reloads = [request for request in requests if request is not None]
            error: ConfigError | None = None
            if len(reloads) < len(requests):
                error = ConfigError([Problem("reload", None, "", "the service is stopping")])
            elif reloads:
                try:
                    self.reload()  # one for all that asked before it began
                except ConfigError as failure:
                    error = failure
            for request in reloads:
                request.error = error
                request.done.set()
            if len(reloads) < len(requests):
                return

    def _stalled(self, server: Server) -> str:
        """Return why no scrape can be answered any more; empty if they can."""
        if not server.accepts:
            return "the thread that accepts connections has died"
        return self.exporter.stalled()

    def _received(self, seconds: float) -> list[_ReloadRequest | None]:
        """Return all requests there are, after waiting `seconds` at most for the first."""
        requests: list[_ReloadRequest | None] = []
        try:
            requests.append(self._inbox.get(timeout=seconds))
            while True:
                requests.append(self._inbox.get_nowait())
        except Empty:
            return requests

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(None)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(_ReloadRequest())

    def _ask_for_reload(self) -> None:
        # In the main thread's turn, as a signal's is: never two reloads at once.
        request = _ReloadRequest()
        self._inbox.put(request)
        if not request.done.wait(_RELOAD_TIMEOUT):
            message = f"no answer within {_RELOAD_TIMEOUT:g} s; it may still happen"
            raise ConfigError([Problem("reload", None, "", message)])
        if request.error:
            raise ConfigError(request.error.problems)


def _fulfil(promise: Future[_T], work: Callable[[], _T]) -> None:
    """Do `work`; whatever goes wrong becomes a ConfigError, which keeps nothing of it alive."""
    try:
        promise.set_result(work())
    except ConfigError as error:
        promise.set_exception(ConfigError(error.problems))
    except BaseException as error:
        log.exception("the settings could not be loaded")
        promise.set_exception(_unloadable(f"{type(error).__name__}: {text_of(error)}"))
        forget_frames(error)


def _unloadable(message: str) -> ConfigError:
    return ConfigError([Problem("settings", None, "", message)])


def _address(listener: socket.socket) -> str:
    place = listener.getsockname()
    if not isinstance(place, tuple):  # systemd may hand over a unix socket
        return f"unix:{place}"
    host, port = place[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
