"""Hostile plug-ins do not affect the metrics of others or the process."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import bts_exporter.service
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import ConfigError, PluginError, TargetError
from bts_exporter.exposition.formats import Format
from bts_exporter.metric import gauge
from bts_exporter.page_service import Exporter
from bts_exporter.plugin import Collector
from bts_exporter.scrape import Scrape
from bts_exporter.service import Options, Service
from bts_exporter.settings.loader import Settings
from servers import wait_until
from stubs import Hang, Stub, collect, collectors, drop_in, runner_of

NO_SUPER = """\
from bts_exporter import Collector, gauge

class Rude(Collector):
    value = gauge("rude", "A value.")
    def __init__(self, config):
        pass
    def collect(self, scrape):
        scrape.emit(self.value, 1)
"""
HANGS = """\
import threading
threading.Event().wait(60)
"""
YIELDS = """\
from bts_exporter import Collector, gauge

class Lazy(Collector):
    value = gauge("lazy", "A value.")
    def collect(self, scrape):
        yield 1
"""
UNRESOLVED = """\
from __future__ import annotations
from bts_exporter import Collector, CollectorConfig

class Typed(Collector):
    class Config(CollectorConfig):
        path: Missing
    def collect(self, scrape):
        pass
"""


class Mute:
    """A label value without a text."""

    def __str__(self) -> str:
        raise RuntimeError


def page(exporter: Exporter) -> str:
    """Return the page of all collectors."""
    return exporter.page(exporter.collectors.runners, Format.TEXT).decode()


def test_samples_that_cannot_be_rendered_cost_nobody_else() -> None:
    """A label whose conversion raises is a failure of its collector, and the page is served."""

    def spoil(scrape: Scrape) -> None:
        scrape.emit(Stub.series, 1, Mute())  # type: ignore[arg-type]

    exporter = Exporter()
    with collectors(("bad", Stub(spoil)), ("good", Stub())) as (together, runners):
        exporter.collectors = together
        text = page(exporter)

        assert "stub_value 1\n" in text
        assert 'bts_exporter_collector_success{collector="bad",target=""} 0\n' in text
        assert 'bts_exporter_collector_success{collector="good",target=""} 1\n' in text
        assert runners[0].totals.errors == {"invalid_sample": 1}


def test_label_that_is_not_a_text() -> None:
    """A label that is an object of a plug-in's class is its collector's failure, and is not converted."""
    converted: list[str] = []

    class Slow:
        def __str__(self) -> str:
            converted.append("converted")
            return "slow"

    exporter = Exporter()
    bad = Stub(lambda scrape: scrape.emit(Stub.series, 1, Slow()))  # type: ignore[arg-type]
    with collectors(("bad", bad), ("good", Stub())) as (together, _):
        exporter.collectors = together
        text = page(exporter)

    assert "stub_value 1\n" in text
    assert 'bts_exporter_collector_success{collector="bad",target=""} 0\n' in text
    assert converted == []


def test_thread_that_emits_after_the_collection() -> None:
    """After a collection has returned, its threads cannot emit."""
    kept: list[Scrape] = []

    def keep(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        kept.append(scrape)

    with runner_of(Stub(keep)) as runner:
        shot = collect(runner)
        with pytest.raises(Exception, match="the scrape ended"):
            kept[0].emit(Stub.series, 2, "late")

        assert shot.samples == {Stub.value: {(): 1}}


def test_reason_that_is_none() -> None:
    """An unknown reason does not become a label value."""

    def fail(_: Scrape) -> None:
        raise TargetError(404, "x")  # type: ignore[arg-type]

    with runner_of(Stub(fail)) as runner:
        assert collect(runner).outcome.reason == "internal"


def test_error_that_skips_its_base() -> None:
    """A TargetError whose subclass does not call our constructor is an ordinary failure."""

    class Forgetful(TargetError):  # noqa: N818  # a name as any
        def __init__(self) -> None:
            pass

    def fail(_: Scrape) -> None:
        raise Forgetful

    with runner_of(Stub(fail)) as runner:
        assert [collect(runner).outcome.reason for _ in range(2)] == ["internal", "internal"]


def test_patient_scrape_is_not_cut_short_by_one_in_a_hurry() -> None:
    """A scrape with a longer timeout that joins a collection extends it."""
    hang = Hang(after=Stub().emit_value)
    with runner_of(Stub(hang)) as runner:
        now = time.monotonic()
        hurried = runner.begin(now + 0.05)
        assert hang.begun.wait(60)
        patient = runner.begin(now + 60)
        hurried.wait(now + 0.05)
        hang.end()
        patient.wait(now + 60)

        assert patient is hurried
        assert runner.snapshot(patient).outcome.success
        assert runner.snapshot(patient).series == 1


def test_help_that_is_no_text() -> None:
    """A metric without a help is refused where it is declared, not when it is served."""
    with pytest.raises(ValueError, match="the help must be a text"):
        gauge("x", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (YIELDS, "Lazy.collect is a generator or coroutine"),
        (UNRESOLVED, "name 'Missing' is not defined"),
    ],
)
def test_type_that_could_not_work(source: str, message: str, tmp_path: Path) -> None:
    """A type that could never collect or be configured is refused when it is loaded."""
    drop_in(tmp_path / "plugins", "odd", source)

    with pytest.raises(PluginError, match=message):
        Registry(tmp_path / "plugins").load("odd")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """Return a service with one collector of its own kind; its folder is that of the test."""
    write(tmp_path, "")
    drop_in(tmp_path / "plugins", "rude", NO_SUPER)
    service = Service(Options(config_file=str(tmp_path / "config.yaml")))
    service.start_collectors()
    return service


def write(folder: Path, collectors: str) -> None:
    """Write the settings."""
    (folder / "config.yaml").write_text(f"plugins: plugins\ncollectors: {{{collectors}}}\n")


def test_constructor_without_super(service: Service, tmp_path: Path) -> None:
    """A collector without `config` is refused with the fix, at a reload as well."""
    write(tmp_path, "rude: ")

    with pytest.raises(ConfigError, match=r"__init__ must call super\(\).__init__\(config\)"):
        service.reload()


def test_import_that_hangs(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload does not wait forever for a plug-in's import, and the previous settings stay active."""
    monkeypatch.setattr("bts_exporter.service._LOAD_TIMEOUT", 0.1)
    drop_in(tmp_path / "plugins", "hangs", HANGS)
    write(tmp_path, "hangs: ")

    with pytest.raises(ConfigError, match="a plug-in or a file system hangs"):
        service.reload()
    assert service.exporter.collectors.runners == []


def test_reloads_that_hang_share_a_thread(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one reload hangs the next fails at once, without a thread of its own; later ones succeed."""
    monkeypatch.setattr("bts_exporter.service._LOAD_TIMEOUT", 0.1)
    release = threading.Event()
    load = bts_exporter.service.load

    def hang(*arguments: Any) -> Settings:
        release.wait(60)
        return load(*arguments)

    monkeypatch.setattr("bts_exporter.service.load", hang)
    write(tmp_path, "host: ")
    with pytest.raises(ConfigError, match="not loaded within"):
        service.reload()
    threads = threading.active_count()
    for _ in range(3):
        with pytest.raises(ConfigError, match="since an earlier reload"):
            service.reload()
    assert threading.active_count() == threads

    release.set()
    wait_until(lambda: threading.active_count() < threads, "the thread ends")
    service.reload()
    assert service.exporter.collectors.runners


def test_reload_with_a_defect_of_ours(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error in a reload is a failed reload, and the process continues."""

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bts_exporter.service.load", defect)

    with pytest.raises(ConfigError, match="settings: ZeroDivisionError"):
        service.reload()


def test_adapted_collector_is_not_made_to_be_compared(tmp_path: Path) -> None:
    """Reloads do not run the constructor of a prometheus_client collector that stays."""
    counter = tmp_path / "made"
    source = f"""\
class Foreign:
    def __init__(self):
        with open({str(counter)!r}, "a") as file:
            file.write("x")
    def collect(self):
        return []
"""
    drop_in(tmp_path / "plugins", "foreign", source)
    write(tmp_path, "foreign: ")
    service = Service(Options(config_file=str(tmp_path / "config.yaml")))
    service.start_collectors()
    for _ in range(3):
        page(service.exporter)
        service.reload()
    service.stop_collectors()

    assert counter.read_text() == "x"


def test_late_threads_of_a_collector_do_not_keep_it_busy() -> None:
    """A collection that raised has ended, even if its threads still run."""
    release = threading.Event()

    def leave_a_thread(_: Scrape) -> None:
        threading.Thread(target=release.wait, args=(60,)).start()
        raise ValueError

    class Restless(Collector):
        def collect(self, scrape: Scrape) -> None:
            leave_a_thread(scrape)

    with runner_of(Restless(Restless.Config())) as runner:
        outcomes = [collect(runner).outcome.reason for _ in range(2)]
        release.set()
        wait_until(lambda: threading.active_count() < 50, "threads end")

        assert outcomes == ["internal", "internal"]
