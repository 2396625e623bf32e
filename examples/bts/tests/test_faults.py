"""Faults are injected into the running demo, with rules that are sixty times faster than shipped.

All of them take six minutes: `make test` runs one of each kind, and `make test-long` all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from running_demo import AlertWatch, RunningDemo

from bts import faults
from servers import fast_monitoring, wait_until

pytestmark = pytest.mark.live

#: Those that `make test` runs.
SOME = (
    "consumer-frozen",
    "redis-down",
    "bad-data",
    "silent-stations",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Return a demo that scrapes each second; with fewer stations, each of them sends more."""
    folder = tmp_path_factory.mktemp("faults")
    result = RunningDemo(
        folder,
        f"--monitoring={fast_monitoring.write(folder / 'monitoring')}",
        "--interval=1",
        "--stations=20",
        "--stale-seconds=8",
        "--mqtt-queue=400",
    )
    result.wait_until_ready()
    yield result
    assert result.stop() == 0


@pytest.fixture(scope="module")
def watch(demo: RunningDemo) -> Iterator[AlertWatch]:
    """Return a watch over the alerts of a demo that has run long enough to know what is usual."""
    result = AlertWatch(demo)
    wait_until(lambda: demo.query("bts_input_drift_psi offset 5s"), "drift of 1,000 readings")
    yield result
    result.stop()


@pytest.mark.parametrize("name", faults.FAULTS if os.environ.get("BTS_ALL_FAULTS") else SOME)
def test_fault_fires_its_alerts_and_no_others(
    demo: RunningDemo, watch: AlertWatch, name: str
) -> None:
    """All alerts that the fault lists fire, only those that may follow besides, and all clear afterwards."""
    fault = faults.FAULTS[name]
    watch.wait_until_clear(120)
    watch.forget()

    injected = demo.inject(name)
    try:
        wait_until(lambda: set(fault.alerts) <= set(watch.seen), f"{fault.alerts}", 120)
    except AssertionError as error:
        error.add_note(f"seen: {sorted(watch.seen)}")
        raise
    finally:
        demo.revert(injected)
    watch.wait_until_clear(120)

    # Some faults stop all readings, about which no alert fires so soon.
    wait_until(lambda: has_predictions(demo), "predictions after the fault", 60)
    wrong = set(watch.seen) - set(fault.alerts) - set(fault.may_follow)
    assert not wrong, [watch.summaries[name] for name in wrong]


def has_predictions(demo: RunningDemo) -> bool:
    """Return whether the worker has predicted something in the last seconds."""
    return bool(demo.query('rate(bts_predictions_total{source="amqp",outcome="ok"}[4s]) > 0'))
