"""The exporter as a service: start, reload and stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from bts_exporter import sd_notify
from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.registry import Registry
from bts_exporter.collection.runner import Runner
from bts_exporter.collection.worker import Worker
from bts_exporter.errors import ConfigError, Problem, forget_frames, listed, text_of
from bts_exporter.live.background_scrape import BackgroundScrape
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.settings.loader import Settings, find, load
from bts_exporter.settings_watch import SettingsWatch
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Server, listen

if TYPE_CHECKING:  # imported if it is used
    from bts_exporter.access.web_config import WebConfig
    from bts_exporter.collection.state_store import Save, StateStore

log = logging.getLogger("bts_exporter.service")

#: How many containers are allocated between two runs of the garbage collector. With Python's 700 it
#: interrupts a scrape of ten thousand streams 250 times, a tenth of its time, and finds no cycles.
_GARBAGE = 10_000

_T = TypeVar("_T")

#: How long scrapes under way may wait for collections when the service stops, in seconds. They are
#: then answered with what there is.
_HURRY = 1.5
#: How long requests under way may take to end when the service stops, in seconds. With the next
#: and the exit of Python it is less than 5, the unit's TimeoutStopSec.
_GRACE = 2.5
#: How long collectors may take to close their connections when the service stops, in seconds.
_STOP_TIMEOUT = 1.0
#: How long the state of collectors may take to be written after that, in seconds.
_LAST_WRITE = 0.3
#: How long a reload over HTTP waits for its turn, in seconds.
_RELOAD_TIMEOUT = 30.0
#: How long a reload may take to read the settings and build the collectors, in seconds.
_LOAD_TIMEOUT = 10.0
#: How often the main thread looks for signals, in seconds: Python does not wake a thread for a signal
#: that arrives just before the thread begins to wait.
_POLL_SECONDS = 1.0
#: How often the main thread looks for a signal to stop while settings are loaded, in seconds.
_LOAD_STEP = 0.1

_HANGS = "a plug-in or a file system hangs"
_STOPPING = "the service is stopping"


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of the command line."""

    config_file: str | None = None
    auto_reload: bool = False
    addresses: tuple[str, ...] = (":19100",)
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    own_metrics: bool = True
    lifecycle: bool = False
    web_config_file: str | None = None
    api: bool = True
    background_scrape: bool = True


class _ReloadRequest:
    """A request for a reload, and its result."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: ConfigError | None = None


class _Watchdog:
    """The watchdog of systemd, which restarts a process that does not notify it in time."""

    def __init__(self, stalled: Callable[[], str]) -> None:
        self._stalled = stalled
        self._interval = sd_notify.watchdog_seconds()
        self._due = 0.0
        self._problem = ""

    def feed(self) -> float:
        """Notify systemd that scrapes can make progress, if that is due and they can.

        Returns the seconds until it is due again.
        """
        if self._interval is None:
            return _POLL_SECONDS
        left = self._due - time.monotonic()
        if left > 0:
            return left
        problem = self._stalled()
        if problem and not self._problem:
            log.error(
                "scrapes cannot be answered; the watchdog will restart the exporter: %s", problem
            )
        self._problem = problem
        if problem:
            return _POLL_SECONDS
        sd_notify.notify("WATCHDOG=1")
        self._due = time.monotonic() + self._interval / 2
        return self._interval / 2


class Service:
    """One running exporter."""

    def __init__(self, options: Options) -> None:
        """Prepare the service; nothing is opened yet."""
        self.options = options
        self.reload_state = ReloadState()
        self.exporter = Exporter(
            self.reload_state, max_scrapes=options.max_requests, own_metrics=options.own_metrics
        )
        self._inbox: SimpleQueue[_ReloadRequest | None] = SimpleQueue()
        self._file: Path | None = None
        self._watch: SettingsWatch | None = None
        self._web: WebConfig | None = None
        #: Whether collectors keep their history across restarts, if the settings have `state`.
        self.keeps_states = False
        #: The folder that `state` of the settings names.
        self.state_folder: Path | None = None
        self._states: StateStore | None = None
        self._ready = False
        self._stop_requested = False
        #: The settings that are being loaded, also by a thread that nothing waits for.
        self._loading: Future[tuple[Settings, Assembly]] | None = None

    def start_collectors(self) -> None:
        """Load the settings and start the collectors; ConfigError if the settings are invalid."""
        # Reloads read the same file: if it was deleted, they fail instead of using the defaults.
        self._file = find(self.options.config_file)
        if self.options.auto_reload and self._file is not None:
            self._watch = SettingsWatch(self._file)
        settings = load(self._file, Registry)
        assembly = Assembly(settings)
        for line in listed(assembly.problems):
            log.error("collector not loaded: %s", line)
        self.state_folder = settings.state
        self._apply(assembly, settings)
        log.info(
            "settings loaded",
            extra={"file": settings.file, "collectors": len(assembly.set.runners)},
        )

    def reload(self) -> None:
        """Reload the settings; on any error nothing changes, and ConfigError is raised."""
        sd_notify.reloading()
        try:
            settings, assembly = self._assemble()
        except ConfigError as error:
            self._log_failed_reload(error)
            self.reload_state.fail(str(error))
            raise
        else:
            self._apply(assembly, settings)
            log.info("settings reloaded", extra={"file": settings.file})
            del assembly
            gc.collect()  # what was replaced is in cycles, some of it with open files
            if self._web is not None and (problems := self._web.reload()):
                raise ConfigError(problems)
        finally:
            sd_notify.notify("READY=1")

    def _log_failed_reload(self, error: ConfigError) -> None:
        """Log the problems, or only their number if the previous reload failed because of the same ones."""
        lines = listed(error.problems)
        if str(error) == self.reload_state.problem:
            lines = [f"again, with the same problems: {len(error.problems)}"]
        for line in lines:
            log.error("reload failed, the previous settings remain active: %s", line)

    def run(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Serve until a signal says stop; ConfigError or ServeError if it cannot start."""
        gc.set_threshold(_GARBAGE)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)
        if self.options.web_config_file is not None:
            from bts_exporter.access.web_config import WebConfig  # noqa: PLC0415  # few need it

            self._web = WebConfig(Path(self.options.web_config_file))
        listeners = list(sockets) or [listen(address) for address in self.options.addresses]
        if sockets and self.options.addresses != Options().addresses:
            log.warning(
                "--web.listen-address has no effect: systemd listens; set ListenStream= in the socket unit"
            )
        self.keeps_states = True
        self.start_collectors()
        # Not earlier: until here a signal ends the process at once, even if a plug-in's import hangs.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        server = self._server(listeners)
        self._ready = True  # systemd may hand over a socket with requests that wait
        server.start()
        for listener in listeners:
            log.info("listening", extra={"address": _address(listener, server.scheme)})
        sd_notify.notify("READY=1")
        self._collect_once()
        self._loop(server)
        self._ready = False
        sd_notify.notify("STOPPING=1")
        saves = self.save_states()
        hurry = threading.Timer(_HURRY, self.exporter.collectors.give_up)
        hurry.daemon = True
        with suppress(RuntimeError):  # no thread left
            hurry.start()
        server.stop(_GRACE)
        hurry.cancel()
        self.stop_collectors(saves)
        log.info("stopped")

    def tick(self) -> None:
        """Begin to save the states of collectors if that is due; does not wait."""
        if self._states is not None:
            self._states.tick(self.exporter.collectors.runners)

    def save_states(self) -> Sequence[Save]:
        """Begin to save the states of collectors; does not wait."""
        return self._states.save(self.exporter.collectors.runners) if self._states else ()

    def stop_collectors(self, saves: Sequence[Save] = ()) -> None:
        """Stop all collectors, after `saves`; what hangs is not waited for longer than `_STOP_TIMEOUT`."""
        end = time.monotonic() + _STOP_TIMEOUT
        wait([save.taken for save in saves], _STOP_TIMEOUT)
        # All at the same time, then wait for all.
        collectors = self.exporter.collectors
        for last in collectors.stop(collectors.runners):
            last.wait(end - time.monotonic())
        collectors.close()
        if self._states is not None:
            wait([save.written for save in saves], max(end - time.monotonic(), _LAST_WRITE))
            self._states.close()

    def _server(self, listeners: Sequence[socket.socket]) -> Server:
        routes = Routes(
            self.exporter,
            self.reload_state,
            telemetry_path=self.options.telemetry_path,
            reload=self._ask_for_reload if self.options.lifecycle else None,
            ready=lambda: self._ready,
            live=self.options.api,
        )
        if self._web is None:
            server = Server(listeners, routes)
        else:
            from bts_exporter.access.gate import guarded  # noqa: PLC0415  # few need it

            server = guarded(self._web, listeners, routes)
            self.exporter.web_state = self._web.state
        self.exporter.traffic = server.traffic
        self.exporter.limit_to(server.places)
        return server

    def _assemble(self) -> tuple[Settings, Assembly]:
        """Load the settings and build the collectors in a thread: plug-ins' code may hang or raise anything."""
        if self._loading is not None and not self._loading.done():
            # Another thread would hang as well.
            message = f"{_HANGS}, since an earlier reload; if it lasts, restart the exporter"
            raise _unloadable(message)
        found = self._loading = Future[tuple[Settings, Assembly]]()
        worker = Worker("bts-settings")
        try:
            worker.submit(lambda: _fulfil(found, self._load))
        except RuntimeError as error:
            self._loading = None
            message = f"cannot start a thread to load the settings: {error}"
            raise _unloadable(message) from error
        worker.stop()
        self._wait_for(found)
        self._loading = None
        return found.result()

    def _wait_for(self, found: Future[tuple[Settings, Assembly]]) -> None:
        """Wait until the settings are loaded; ConfigError if they hang, or the service is to stop."""
        end = time.monotonic() + _LOAD_TIMEOUT
        # In short steps: a signal does not wake the main thread.
        while not wait([found], _LOAD_STEP).done:
            if self._stop_requested:
                raise _unloadable(_STOPPING)
            if time.monotonic() >= end:
                message = f"not loaded within {_LOAD_TIMEOUT:g} s: {_HANGS}"
                raise _unloadable(message)

    def _load(self) -> tuple[Settings, Assembly]:
        settings = load(self._file, Registry)
        assembly = Assembly(settings, self.exporter.collectors)
        if assembly.problems:
            raise ConfigError(assembly.problems)
        return settings, assembly

    def _collect_once(self) -> None:
        """Collect once, so that log and status page show the state before the first scrape."""
        first = Worker("bts-first")
        try:
            first.submit(self.exporter.refresh)
        except RuntimeError as error:
            log.warning("no collection before the first scrape: %s", error)
        first.stop()

    def _apply(self, assembly: Assembly, settings: Settings) -> None:
        gone = assembly.adopt()
        self._restore_states(assembly, gone, settings.state)
        for runner in assembly.new:
            runner.start()
        self.exporter.collectors = assembly.set
        self.exporter.scrape_timeout = settings.scrape_timeout
        self.reload_state.succeed(time.time())
        # A scrape that has begun still uses them, and must not report their end as a failure of the target.
        assembly.set.stop(gone, self.exporter.scrape_timeout)
        self.exporter.keep_only(assembly.set.runners)

    def _restore_states(
        self, assembly: Assembly, gone: Sequence[Runner], folder: Path | None
    ) -> None:
        """Give new collectors the states in `folder`, among them those of collectors that they replace."""
        before, runners = self._states, assembly.set.runners
        if before is not None:
            before.hand_over(gone, assembly.new, _STOP_TIMEOUT)
            if folder != before.folder:
                before.release([*gone, *runners])
                self._states = None
        if self._states is None and folder is not None and self.keeps_states:
            from bts_exporter.collection.state_store import StateStore  # noqa: PLC0415  # few need it

            self._states = StateStore(folder)
        if self._states is not None:
            self._states.adopt(runners)
            self._states.restore(assembly.new)

    def _loop(self, server: Server) -> None:
        watchdog = _Watchdog(lambda: self._stalled(server))
        background = BackgroundScrape(self.exporter) if self.options.background_scrape else None
        while True:
            if background is not None:
                background.start_if_due()
            seconds = min(watchdog.feed(), _POLL_SECONDS)
            self.tick()
            requests = self._received(seconds)
            if self._watch and self._watch.due(failed=not self.reload_state.successful):
                requests.append(_ReloadRequest())
            reloads = [request for request in requests if request is not None]
            error: ConfigError | None = None
            if len(reloads) < len(requests):
                error = ConfigError([Problem("reload", None, "", _STOPPING)])
            elif reloads:
                try:
                    self.reload()  # one for all requests that came before it began
                except ConfigError as failure:
                    error = failure
            for request in reloads:
                request.error = error
                request.done.set()
            if len(reloads) < len(requests):
                return

    def _stalled(self, server: Server) -> str:
        """Return why scrapes cannot be answered; empty if they can."""
        return server.stalled() or self.exporter.stalled()

    def _received(self, seconds: float) -> list[_ReloadRequest | None]:
        """Return all pending requests, after waiting at most `seconds` for the first; None means stop."""
        requests: list[_ReloadRequest | None] = []
        try:
            requests.append(self._inbox.get(timeout=seconds))
            while True:
                requests.append(self._inbox.get_nowait())
        except Empty:
            return requests

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requested = True
        self._inbox.put(None)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(_ReloadRequest())

    def _ask_for_reload(self) -> None:
        # In the main thread, like those by signal: never two reloads at once.
        request = _ReloadRequest()
        self._inbox.put(request)
        if not request.done.wait(_RELOAD_TIMEOUT):
            message = f"not reloaded within {_RELOAD_TIMEOUT:g} s; the reload may still complete"
            raise ConfigError([Problem("reload", None, "", message)])
        if request.error:
            raise ConfigError(request.error.problems)


def _fulfil(promise: Future[_T], work: Callable[[], _T]) -> None:
    """Set `promise` to the result of `work`; any error becomes a ConfigError without its frames."""
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


def _address(listener: socket.socket, scheme: str) -> str:
    place = listener.getsockname()
    if not isinstance(place, tuple):  # systemd may hand over a unix socket
        return f"unix:{place}"
    host, port = place[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
