"""How a training reports that it has succeeded."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts import training_report
from servers import Process, free_port, listens, need

NAMES = {
    "bts_training_last_success_timestamp_seconds",
    "bts_training_mae",
    "bts_training_persistence_mae",
    "bts_training_duration_seconds",
}


def values(text: str) -> dict[str, float]:
    """Return the samples of the training in a page, by name."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in NAMES
    }


def test_textfile_holds_the_report(tmp_path: Path) -> None:
    """The exporter's textfile collector finds one file with all metrics, and no half-written one."""
    training_report.write(training_report.metrics_of(0.53, 0.59, 6.0), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["bts_training.prom"]
    written = values((tmp_path / "bts_training.prom").read_text())
    assert set(written) == NAMES
    assert written["bts_training_mae"] == 0.53


@pytest.mark.live
def test_pushgateway_gets_the_report_and_nothing_else(tmp_path: Path) -> None:
    """Debian's Pushgateway holds the metrics of the training under their job, and none of the machine."""
    port = free_port()
    argv = [
        need("prometheus-pushgateway", "prometheus-pushgateway"),
        f"--web.listen-address=127.0.0.1:{port}",
        "--persistence.file=",  # Debian's default is the system's own
    ]
    gateway = Process(argv, tmp_path)
    try:
        gateway.ready(lambda: listens(port))
        training_report.push(
            training_report.metrics_of(0.53, 0.59, 6.0), f"http://127.0.0.1:{port}"
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            page = response.read().decode()
    finally:
        gateway.kill()

    assert set(values(page)) == NAMES
    assert 'bts_training_mae{instance="",job="bts-training"} 0.53' in page
    assert "node_cpu" not in page


def test_push_that_fails_ends_with_a_status(tmp_path: Path) -> None:
    """Where nothing answers, the training's exit status says so; the model is written already."""
    with pytest.raises(SystemExit) as failure:
        training_report.push(training_report.metrics_of(1, 1, 1), f"http://127.0.0.1:{free_port()}")

    assert failure.value.code != 0
