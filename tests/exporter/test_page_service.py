from __future__ import annotations

import gzip
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_exporter import Collector, Metric, Scrape, counter, gauge
from bts_exporter.collection.collection import Collection
from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import Exporter, TooManyScrapes
from bts_exporter.reload_state import ReloadState
from bts_exporter.web.server import Traffic
from servers import wait_until
from stubs import Hang, LocalStub, Stub, collectors

Found = dict[tuple[str, tuple[str, ...]], float]


@contextmanager
def exporting(
    *members: tuple[str, Collector] | tuple[str, Collector, dict[str, Any]], **options: Any
) -> Iterator[Exporter]:
    """Run an exporter of these collectors."""
    exporter = Exporter(**options)
    with collectors(*members) as (together, _):
        exporter.collectors = together
        yield exporter


def page(exporter: Exporter, **options: Any) -> str:
    """Return the page of all collectors as text."""
    return exporter.page(exporter.collectors.runners, Format.TEXT, **options).decode()


def samples(text: str) -> Found:
    """Return the values on a page by name and label values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at_once(count: int, call: Callable[[], bytes]) -> tuple[list[threading.Thread], list[bytes]]:
    """Begin `count` calls in as many threads; returns the threads and where the results go."""
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


# Content of the page


def test_page() -> None:
    """A page has the samples and the state of every collector, and the exporter's own metrics."""
    with exporting(
        ("one", Stub()), ("two", LocalStub(lambda s: s.emit(Stub.series, 5, "a")))
    ) as exporter:
        found = samples(page(exporter))

    assert found["stub_value", ()] == 1
    assert found["stub_series", ("a",)] == 5
    for name in ("one", "two"):
        assert found["bts_exporter_collector_success", (name, "")] == 1
        assert found["bts_exporter_collector_series", (name, "")] == 1
    assert found["bts_exporter_config_last_reload_successful", ()] == 0
    assert found["process_threads", ()] >= 1
    assert found["bts_exporter_scrapes_total", ()] == 1


def test_page_without_own_metrics_of_the_process() -> None:
    """The flag leaves out metrics of the process and the server, and keeps those that alerts use."""
    with exporting(("one", Stub()), own_metrics=False) as exporter:
        exporter.traffic = Traffic()
        names = {name for name, _ in samples(page(exporter))}

    assert not {
        name
        for name in names
        if name.startswith(("process_", "bts_exporter_http", "bts_exporter_scrapes"))
    }
    assert {"bts_exporter_build_info", "bts_exporter_collector_success", "stub_value"} <= names


def test_page_of_a_part() -> None:
    """A page of one target has its state, and no metrics of the exporter."""
    with exporting(("one", Stub()), ("two", LocalStub())) as exporter:
        found = samples(
            exporter.page(
                exporter.collectors.runners[:1], Format.TEXT, with_self_metrics=False
            ).decode()
        )

    assert {name for name, _ in found if not name.startswith("bts_exporter_collector_")} == {
        "stub_value"
    }
    assert ("bts_exporter_collector_success", ("one", "")) in found
    assert ("bts_exporter_collector_success", ("two", "")) not in found


def test_page_has_the_servers_traffic() -> None:
    """The counts of the HTTP server are on the page."""
    with exporting() as exporter:
        without = samples(page(exporter))
        exporter.traffic = Traffic(open=2, accepted=7)
        found = samples(page(exporter))

    assert ("bts_exporter_http_open_connections", ()) not in without
    assert found["bts_exporter_http_open_connections", ()] == 2
    assert found["bts_exporter_http_connections_total", ()] == 7
    assert found["bts_exporter_http_connections_refused_total", ("threads",)] == 0


@pytest.mark.parametrize("form", Format)
def test_packed_page(form: Format) -> None:
    """A compressed page is the page in gzip."""
    with exporting(("one", Stub()), own_metrics=False) as exporter:
        runners = exporter.collectors.runners
        packed = gzip.decompress(exporter.page(runners, form, gzip=True)).decode()
        plain = exporter.page(runners, form).decode()

    def names(text: str) -> list[str]:
        return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]

    assert names(packed) == names(plain)
    assert packed.endswith("# EOF\n") == (form is Format.OPENMETRICS)


def test_state_of_the_settings() -> None:
    """The result of the last reload is on the page."""
    with exporting(reload_state=ReloadState(successful=True, loaded_at=1.7e9)) as exporter:
        found = samples(page(exporter))

    assert found["bts_exporter_config_last_reload_successful", ()] == 1
    assert found["bts_exporter_config_last_reload_success_timestamp_seconds", ()] == 1.7e9


# Conflicts


def test_series_that_two_collectors_serve(caplog: pytest.LogCaptureFixture) -> None:
    """The page stays valid; the second collector's failure is counted, and logged once."""
    caplog.set_level(logging.INFO, "bts_exporter")
    with exporting(("one", Stub()), ("two", Stub(lambda s: s.emit(Stub.value, 2)))) as exporter:
        texts = [page(exporter) for _ in range(3)]

        assert [text.count("\nstub_value ") for text in texts] == [1] * 3
        assert samples(texts[0])["stub_value", ()] == 1
        assert (
            samples(texts[2])["bts_exporter_collector_errors_total", ("two", "", "conflict")] == 2
        )
        assert ("bts_exporter_collector_errors_total", ("one", "", "conflict")) not in samples(
            texts[2]
        )
    messages = [(record.getMessage(), vars(record)["collector"]) for record in caplog.records]
    assert messages == [
        (
            "samples left out: stub_value of two: served by one already: rename one, or leave one out by metrics: {deny: [NAME]}",
            "two",
        )
    ]


def test_targets_of_one_type_are_no_conflict() -> None:
    """Targets with different names have different series."""
    with exporting(("one", Stub(), {"name": "a"}), ("one", Stub(), {"name": "b"})) as exporter:
        found = samples(page(exporter))

    assert (found["stub_value", ("a",)], found["stub_value", ("b",)]) == (1, 1)
    assert not [name for name, _ in found if name == "bts_exporter_collector_errors_total"]


def test_collector_cannot_speak_for_the_exporter() -> None:
    """A collector cannot serve a metric with a name of the exporter itself."""
    lie = gauge("bts_exporter_collector_success", "A lie.", ("collector", "target"))
    unfit = counter("process_threads", "Of another kind.")

    def behave(scrape: Scrape) -> None:
        scrape.emit(lie, 1, "broken", "")
        scrape.emit(unfit, 99)

    def fail(_: Scrape) -> None:
        raise ZeroDivisionError

    with exporting(("liar", Stub(behave)), ("broken", Stub(fail))) as exporter:
        found = samples(page(exporter))
        later = samples(page(exporter))

    assert found["bts_exporter_collector_success", ("broken", "")] == 0
    assert found["process_threads", ()] < 99
    assert later["bts_exporter_collector_errors_total", ("liar", "", "conflict")] == 1


# Overlapping scrapes


def test_fifty_scrapes_at_once_are_one() -> None:
    """Simultaneous scrapes of the same page share one collection and one page."""
    hang = Hang()
    stub = Stub(hang)
    with exporting(("slow", stub)) as exporter:
        first, results = at_once(1, lambda: page(exporter).encode())
        assert hang.begun.wait(60)
        threads, more = at_once(50, lambda: page(exporter).encode())
        wait_until(lambda: exporter.scrapes == 51, "all are on board")
        hang.go_on.set()
        for thread in first + threads:
            thread.join(60)

        assert stub.collections == 1
        assert (len(results), len(more)) == (1, 50)
        assert set(more) == set(results)


def test_scrapes_for_different_pages_share_the_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of other formats, compressions and selections share the collections."""
    hang = Hang()
    stub = Stub(hang)
    with exporting(("slow", stub), ("other", Stub())) as exporter:
        runners = exporter.collectors.runners
        calls: list[Callable[[], bytes]] = [
            lambda: exporter.page(runners, Format.TEXT),
            lambda: exporter.page(runners, Format.OPENMETRICS),
            lambda: exporter.page(runners, Format.TEXT, gzip=True),
            lambda: exporter.page(runners, Format.TEXT, with_self_metrics=False),
            lambda: exporter.page(runners[:1], Format.TEXT),
        ]
        joined: list[Collection] = []
        begin = runners[0].begin
        monkeypatch.setattr(runners[0], "begin", lambda *a: joined.append(begin(*a)) or joined[-1])
        begun = [at_once(1, call) for call in calls]
        wait_until(lambda: len(joined) == 5, "all are under way")
        hang.go_on.set()
        for [thread], _ in begun:
            thread.join(60)

        assert len({results[0] for _, results in begun}) == 5
        assert stub.collections == 1


def test_scrape_with_less_time_does_not_wait_for_the_others() -> None:
    """A scrape with a short timeout gets the samples until then; the others get all."""
    hang = Hang(before=lambda scrape: scrape.emit(Stub.value, 7))
    stub = Stub(hang)
    with exporting(("slow", stub)) as exporter:
        exporter.scrape_timeout = 3600
        [thread], results = at_once(1, lambda: page(exporter).encode())
        assert hang.begun.wait(60)
        hasty = samples(page(exporter, timeout=0.01))
        hang.go_on.set()
        thread.join(60)

        patient = samples(results[0].decode())
        name = "bts_exporter_collector_success", ("slow", "")
        assert (hasty[name], hasty["stub_value", ()]) == (0, 7)
        assert (patient[name], patient["stub_value", ()]) == (1, 7)
        assert stub.collections == 1


def test_scrape_with_more_time_is_not_served_with_a_hasty_page() -> None:
    """A scrape with a longer timeout gets complete samples, although a shorter one began the collection."""
    hang = Hang(after=lambda scrape: scrape.emit(Stub.value, 7))
    stub = Stub(hang)
    with exporting(("slow", stub)) as exporter:
        exporter.scrape_timeout = 3600
        [hasty], hasty_pages = at_once(1, lambda: page(exporter, timeout=2).encode())
        assert hang.begun.wait(60)
        [patient], patient_pages = at_once(1, lambda: page(exporter).encode())
        hasty.join(60)
        hang.end()
        patient.join(60)

        name = "bts_exporter_collector_success", ("slow", "")
        assert samples(hasty_pages[0].decode())[name] == 0
        found = samples(patient_pages[0].decode())
        assert (found[name], found["stub_value", ()]) == (1, 7)
        assert stub.collections == 1


def test_scrape_is_never_longer_than_the_settings_say() -> None:
    """A scrape never takes longer than `scrape_timeout`."""
    hang = Hang()
    with exporting(("hangs", Stub(hang))) as exporter:
        exporter.scrape_timeout = 0.05
        found = samples(page(exporter, timeout=3600))

        assert found["bts_exporter_collector_timeouts_total", ("hangs", "")] == 1
        assert not hang.go_on.is_set()


def test_bound_of_scrapes_under_way() -> None:
    """Further scrapes are refused and counted; those that share a page are one."""
    hang = Hang()
    with exporting(("slow", Stub(hang)), max_scrapes=1) as exporter:
        runners = exporter.collectors.runners
        [first], results = at_once(1, lambda: page(exporter).encode())
        assert hang.begun.wait(60)
        [joined], more = at_once(1, lambda: page(exporter).encode())
        wait_until(lambda: exporter.scrapes == 2, "the second is on board")
        with pytest.raises(
            TooManyScrapes, match=r"^too many concurrent scrapes: 1 \(--web\.max-requests\)$"
        ):
            exporter.page(runners, Format.OPENMETRICS)
        # With a shorter timeout it cannot share the running page.
        with pytest.raises(TooManyScrapes):
            exporter.page(runners, Format.TEXT, timeout=0.01)
        hang.go_on.set()
        first.join(60)
        joined.join(60)

        assert (len(results), len(more)) == (1, 1)
        found = samples(page(exporter))
        assert found["bts_exporter_scrapes_refused_total", ()] == 2
        assert found["bts_exporter_scrapes_total", ()] == 3


def test_bound_holds_for_ever_hastier_scrapes() -> None:
    """Scrapes with ever shorter timeouts count towards the limit."""
    hang = Hang()
    with exporting(("slow", Stub(hang)), max_scrapes=3) as exporter:
        exporter.scrape_timeout = 3600
        begun = []
        for number in range(3):
            begun += at_once(
                1, lambda number=number: page(exporter, timeout=3000 - number).encode()
            )[0]  # type: ignore[misc]
            wait_until(lambda number=number: exporter.scrapes == number + 1, "it is under way")  # type: ignore[misc]
        with pytest.raises(TooManyScrapes):
            page(exporter, timeout=2000)
        hang.go_on.set()
        for thread in begun:
            thread.join(60)

        assert exporter.scrapes_refused == 1


def test_error_of_one_page_is_everybodys_and_nobodys_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An internal error fails the scrapes that share the page, and the next page is rendered again."""
    hang = Hang()
    with exporting(("slow", Stub(hang)), max_scrapes=1) as exporter:
        failures: list[BaseException] = []

        def call() -> None:
            try:
                page(exporter)
            except ZeroDivisionError as error:
                failures.append(error)

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr("bts_exporter.page_service.parts_of", broken)
            threads = [threading.Thread(target=call) for _ in range(2)]
            for thread in threads:
                thread.start()
            wait_until(lambda: exporter.scrapes == 2, "both are on board")
            hang.go_on.set()
            for thread in threads:
                thread.join(60)

        assert len(failures) == 2
        assert "bts_exporter_scrapes_total 3" in page(exporter)


# For the status page


def test_last_collections_are_remembered() -> None:
    """The last result of each collector is kept for the status page."""
    with exporting(("one", Stub()), ("two", LocalStub())) as exporter:
        assert exporter.last == {}
        page(exporter)

        assert {runner.name: shown.series for runner, shown in exporter.last.items()} == {
            "one": 1,
            "two": 1,
        }


def test_samples_are_not_kept() -> None:
    """Samples are not kept in memory between scrapes."""
    scrapes: list[weakref.ref[Scrape]] = []
    with exporting(("one", Stub(lambda scrape: scrapes.append(weakref.ref(scrape))))) as exporter:
        page(exporter)

        wait_until(lambda: scrapes[0]() is None, "it is freed")


def test_collectors_that_are_gone_are_not_remembered() -> None:
    """A scrape that began before a reload does not keep removed collectors alive."""
    with exporting(("one", Stub())) as exporter, exporting(("gone", Stub())) as before:
        exporter.remember(before.collectors.collect(before.collectors.runners, 60))

        assert exporter.last == {}


def test_outcome_under_the_names_of_the_anchor() -> None:
    """Host subsystems have success and duration under node_exporter's names."""
    metrics: tuple[Metric, Metric] = (
        gauge("anchor_success", "Success.", ("collector",)),
        gauge("anchor_duration_seconds", "Duration.", ("collector",)),
    )

    class Anchored(Stub):
        outcome_metrics = metrics

    with exporting(
        ("cpu", Anchored()), ("named", Anchored(lambda _: None), {"name": "x"})
    ) as exporter:
        found = samples(page(exporter))

    assert found["anchor_success", ("cpu",)] == 1
    assert found["anchor_duration_seconds", ("cpu",)] > 0
    assert ("anchor_success", ("named",)) not in found
