"""The page of metrics: collected once for all scrapes that ask for the same at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, wait
from copy import copy
from typing import Any, NamedTuple, TypeVar

from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.errors import ExporterError, text_of
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Layout, Source, compress, parts_of, render
from bts_exporter.exposition.templates import TemplateCache, with_text_labels
from bts_exporter.lag_report import CountHistory, LagReport, report_of
from bts_exporter.live.recorder import Recorder
from bts_exporter.push.totals import PushTotals
from bts_exporter.reload_state import ReloadState
from bts_exporter.scrape import Scrape
from bts_exporter.self_metrics import (
    DECLARED,
    CollectorMetrics,
    ProcessMetrics,
    PushMetrics,
    ServiceMetrics,
)
from bts_exporter.web.server import Traffic

#: By how much the timeouts of two scrapes that share a page may differ, in seconds: the page of the
#: shorter one may lack collectors that the longer one has time for.
_SAME_TIMEOUT = 1.0
#: The same as a share of its own timeout, where that is short.
_SAME_SHARE = 0.1
#: The least time for a scrape, in seconds: with less, even working collectors would be late.
_SHORTEST = 0.5
#: How long a scrape waits for a place when there are too many, in seconds, and as a share of its timeout.
_PLACE_SECONDS = 2.0
_PLACE_SHARE = 0.25
#: How long scrapes may wait for the page of another one when too many do, in seconds.
_CROWDED_SECONDS = 1.0
#: A page that is not ready so long after its deadline is stuck, in seconds.
_OVERDUE = 10.0
#: How long the shared thread may take to reach an empty job, in seconds.
_PROGRESS = 3.0
#: Names that no collector may serve. Those of processes are common: a relayed application has them, too.
_RESERVED = frozenset(m.name for m in DECLARED if m.name.startswith("bts_exporter_"))

_Made = TypeVar("_Made", bytes, LagReport)
_Used = TypeVar("_Used")


class TooManyScrapes(ExporterError):  # noqa: N818  # the wording of the HTTP response
    """Raised when the maximum of concurrent scrapes is reached."""


class _SharedPage:
    """A page that is being made, for all scrapes that ask for it."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.page: Future[Any] = Future()


class Shown(NamedTuple):
    """The last result of a collector, for the status page."""

    duration: float
    series: int
    outcome: Outcome | None = None


class Exporter:
    """Makes pages of the configured collectors' metrics."""

    def __init__(
        self,
        reload_state: ReloadState | None = None,
        *,
        max_scrapes: int = 0,
        own_metrics: bool = True,
    ) -> None:
        """Take the bound of scrapes under way (0: unlimited), and whether to serve the process's metrics."""
        self._reload_state = reload_state or ReloadState()
        self.collectors = CollectorSet()
        #: The HTTP server's counts, where there is one.
        self.traffic: Traffic | None = None
        #: How the last load of --web.config.file went; None without such a file.
        self.web_state: ReloadState | None = None
        #: The counts of the command `push`; None in a process that serves.
        self.push_totals: PushTotals | None = None
        self.scrape_timeout = 9.5
        self.scrapes = 0
        self.scrapes_refused = 0
        self.last: dict[Runner, Shown] = {}
        #: Counts of messages at earlier scrapes.
        self.counts = CountHistory()
        #: What the live page shows.
        self.recorder = Recorder()
        self._max_scrapes: float = max_scrapes or float("inf")
        self._max_waiting = float("inf")
        #: Scrapes that wait for the page of another scrape.
        self._waiting = 0
        self._own_metrics = own_metrics
        self._process = ProcessMetrics()
        self._service = ServiceMetrics()
        self._outcomes = CollectorMetrics()
        self._templates = TemplateCache()
        self._layouts = {form: Layout() for form in Format}
        self._pages: dict[Hashable, _SharedPage] = {}
        self._under_way: set[_SharedPage] = set()
        self._lock = threading.Condition()
        self._rendering = threading.Lock()

    def limit_to(self, connections: int) -> None:
        """Limit scrapes so that they never use all of `connections`, the most that are answered at a time.

        Otherwise clients that wait for one target that hangs would keep all others out.
        """
        self._max_waiting = max(connections // 2, 1)
        self._max_scrapes = min(self._max_scrapes, max(connections // 3, 1))

    def page(
        self,
        runners: Sequence[Runner],
        form: Format,
        *,
        timeout: float | None = None,
        gzip: bool = False,
        with_self_metrics: bool = True,
    ) -> bytes:
        """Return the page of `runners` in the format `form`, compressed if `gzip`.

        `timeout` is the longest that the caller can wait, in seconds, raised to half a second.
        `with_self_metrics` adds the metrics of the process and the HTTP server. TooManyScrapes at the
        limit, if no place becomes free in time.
        """
        key = (tuple(runners), form, gzip, with_self_metrics)
        return self._shared(
            key,
            timeout,
            lambda timeouts: self._make(
                runners, form, timeouts, gzip=gzip, with_self_metrics=with_self_metrics
            ),
        )

    def lag_report(self, runners: Sequence[Runner], *, timeout: float | None = None) -> LagReport:
        """Return the lag of the destinations of `runners`: a scrape, with the limits of `page`."""
        key = (tuple(runners), LagReport)
        return self._shared(key, timeout, lambda timeouts: self._make_report(runners, timeouts))

    def _shared(
        self,
        key: Hashable,
        timeout: float | None,
        make: Callable[[tuple[float, float]], _Made],
    ) -> _Made:
        """Return what `make` returns for its timeouts, or what it returns for another request for `key`."""
        longest = self.scrape_timeout if timeout is None else min(timeout, self.scrape_timeout)
        # One that is raised is not what collections are measured by: they have all the time there is.
        granted = longest if longest >= _SHORTEST else self.scrape_timeout
        longest = min(max(longest, _SHORTEST), granted)
        deadline = time.monotonic() + longest
        tolerance = min(_SAME_TIMEOUT, longest * _SAME_SHARE)
        shared, first = self._join_or_start(key, deadline, tolerance)
        if not first:
            joined: _Made = self._result_of(shared)
            return joined
        if granted == longest:  # less what it waited for a place
            granted = longest = max(deadline - time.monotonic(), longest * (1 - _PLACE_SHARE))
        try:
            made = make((longest, granted))
            shared.page.set_result(made)
        except BaseException as error:
            # Theirs has no frames, which hold all samples of the scrape.
            shared.page.set_exception(_detached(error))
            raise
        finally:
            with self._lock:
                self._under_way.discard(shared)
                self._lock.notify_all()
                if self._pages.get(key) is shared:
                    del self._pages[key]
        return made

    def stalled(self) -> str:
        """Return why scrapes cannot make progress; empty if they can."""
        now = time.monotonic()
        with self._lock:
            first = min((shared.deadline for shared in self._under_way), default=now)
        if now - first > _OVERDUE:
            return f"a scrape that had to end {now - first:.0f} s ago is still under way"
        return self.collectors.stalled(_PROGRESS)

    def remember(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep the results of the last collections for the status page, and counts for rates."""
        # A scrape from before a reload must not keep collectors alive that are gone.
        here = set(self.collectors.runners)
        present = [shot for shot in snapshots if shot.runner in here]
        for shot in present:
            self.last[shot.runner] = Shown(shot.duration, shot.series, shot.outcome)
        now = time.monotonic()
        self.counts.observe(present, now)
        self.recorder.record(present, now)

    def keep_only(self, runners: Sequence[Runner]) -> None:
        """Forget what was remembered of the collectors that a reload has removed."""
        self.last = {runner: self.last[runner] for runner in runners if runner in self.last}
        self.counts.keep_only(runners)
        self.recorder.keep_only(runners)

    def refresh(self) -> None:
        """Collect for the page, where no scrape asks for it."""
        runners = self.collectors.runners
        self._with_sound_samples(
            self.collectors.collect(runners, self.scrape_timeout), self.remember, Format.TEXT
        )

    def _join_or_start(
        self, key: Hashable, deadline: float, tolerance: float
    ) -> tuple[_SharedPage, bool]:
        """Return the page to wait for, or the one to make and True; TooManyScrapes without a place."""
        now = time.monotonic()
        end = now + min(_PLACE_SECONDS, (deadline - now) * _PLACE_SHARE)
        with self._lock:
            while True:
                shared = self._pages.get(key)
                if shared is not None and 0 <= deadline - shared.deadline <= tolerance:
                    self.scrapes += 1
                    self._waiting += 1
                    return shared, False
                if len(self._under_way) < self._max_scrapes:
                    self.scrapes += 1
                    shared = self._pages[key] = _SharedPage(deadline)
                    self._under_way.add(shared)
                    return shared, True
                if time.monotonic() >= end:
                    self.scrapes_refused += 1
                    msg = f"too many concurrent scrapes: {self._max_scrapes} (--web.max-requests)"
                    raise TooManyScrapes(msg)
                self._lock.wait(end - time.monotonic())

    def _result_of(self, shared: _SharedPage) -> Any:
        """Return the page of another scrape, which `_join_or_start` has counted as waited for.

        TooManyScrapes if it takes long and others need the place.
        """
        wait([shared.page], _CROWDED_SECONDS)
        with self._lock:
            if not shared.page.done() and self._waiting > self._max_waiting:
                self._waiting -= 1
                self.scrapes_refused += 1
                msg = "too many scrapes wait for a target that is slow"
                raise TooManyScrapes(msg)
        try:
            return shared.page.result()
        finally:
            with self._lock:
                self._waiting -= 1

    def _make(
        self,
        runners: Sequence[Runner],
        form: Format,
        timeouts: tuple[float, float],
        *,
        gzip: bool,
        with_self_metrics: bool,
    ) -> bytes:
        def render(snapshots: Sequence[Snapshot]) -> bytes:
            self.remember(snapshots)
            return self._render(snapshots, form, gzip=gzip, with_self_metrics=with_self_metrics)

        return self._with_sound_samples(self.collectors.collect(runners, *timeouts), render, form)

    def _make_report(self, runners: Sequence[Runner], timeouts: tuple[float, float]) -> LagReport:
        def report(snapshots: Sequence[Snapshot]) -> LagReport:
            self.remember(snapshots)
            now = time.monotonic()
            return report_of(snapshots, self.counts, now=now, time=time.time())

        return self._with_sound_samples(
            self.collectors.collect(runners, *timeouts), report, Format.TEXT
        )

    def _with_sound_samples(
        self,
        snapshots: Sequence[Snapshot],
        use: Callable[[Sequence[Snapshot]], _Used],
        form: Format,
    ) -> _Used:
        """Return what `use` makes of `snapshots`; if it cannot, of those samples that can be rendered."""
        try:
            return use(snapshots)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  # labels and metrics are a plug-in's objects
            with self._rendering:
                sound = [sound_part(snapshot, form) for snapshot in snapshots]
            return use(sound)

    def _render(
        self, snapshots: Sequence[Snapshot], form: Format, *, gzip: bool, with_self_metrics: bool
    ) -> bytes:
        scrape = Scrape(float("inf"))
        self._outcomes.emit(scrape, snapshots)
        if self.push_totals is not None:
            PushMetrics().emit(scrape, self.push_totals)
        if with_self_metrics:
            self._emit_own(scrape)
        # Declared metrics first: a text file must not replace the redis_up of the Redis collector.
        snapshots = sorted(snapshots, key=lambda snapshot: snapshot.runner.open_ended)
        sources = [Source(s.samples, s.runner.templates, s.runner.identity) for s in snapshots]
        # The cached templates are not for use by two threads.
        with self._rendering:
            # Our metrics first, so that no collector can replace those about it.
            own_source = Source(scrape.samples, self._templates, "the exporter itself", _RESERVED)
            parts = parts_of([own_source, *sources], form, self._layouts[form])
            page = compress(parts) if gzip else b"".join(parts)
        for snapshot, source in zip(snapshots, sources, strict=True):
            if source.conflict:
                snapshot.runner.conflict(source.conflict)
        return page

    def _emit_own(self, scrape: Scrape) -> None:
        self._service.emit_service(scrape, self._reload_state, self.web_state)
        if self._own_metrics:
            self._process.emit(scrape)
            scrape.emit(self._service.scrapes, self.scrapes)
            scrape.emit(self._service.scrapes_refused, self.scrapes_refused)
            if self.traffic is not None:
                self._service.emit_traffic(scrape, self.traffic)


def sound_part(shot: Snapshot, form: Format = Format.TEXT) -> Snapshot:
    """Return `shot` without samples that cannot be rendered: others' can. Its outcome says which."""
    try:
        sound, problem = with_text_labels(shot.samples)
        # With the collector's own templates, since comparing keys may raise.
        render([Source(sound, shot.runner.templates)], form)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # labels and metrics are a plug-in's objects
        problem = f"cannot be served: {type(error).__name__}: {text_of(error)}"
        return shot.runner.with_invalid_samples(shot, {}, problem)
    return shot.runner.with_invalid_samples(shot, sound, problem) if problem else shot


def _detached(error: BaseException) -> BaseException:
    """Return a copy of `error` without the frames that it was raised in."""
    try:
        return copy(error)
    except Exception:  # noqa: BLE001  # a plug-in's class
        return RuntimeError(f"{type(error).__name__}: {text_of(error)}")
