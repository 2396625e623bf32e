"""What a training reports when it has ended: to a textfile, or to a Pushgateway through the exporter.

Use the textfile where the training runs on a machine with an exporter, and the Pushgateway where it does
not, such as in a container that ends. The last report stays there: alerts look at its timestamp.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, write_to_textfile

from bts.metrics import TrainingMetrics

FILE: Final = "bts_training.prom"
JOB: Final = "bts-training"


def metrics_of(mae: float, persistence_mae: float, duration_seconds: float) -> CollectorRegistry:
    """Return the metrics of a training that has just succeeded; errors in ampere."""
    registry = CollectorRegistry()
    metrics = TrainingMetrics(registry)
    metrics.last_success.set(time.time())
    metrics.mae.set(mae)
    metrics.persistence_mae.set(persistence_mae)
    metrics.duration.set(duration_seconds)
    return registry


def write(metrics: CollectorRegistry, directory: Path) -> None:
    """Put the metrics into a file of `directory` at once; OSError where it cannot be written."""
    write_to_textfile(str(directory / FILE), metrics)


def push(metrics: CollectorRegistry, url: str) -> None:
    """Push the metrics with `bts-exporter push`; SystemExit with its status where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        write(metrics, Path(folder))
        config = Path(folder) / "config.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({"collectors": {"host": host_settings(folder)}}))
        argv = ["push", f"--config.file={config}", f"--url={url}", f"--job={JOB}"]
        done = subprocess.run([sys.executable, "-m", "bts_exporter", *argv], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def host_settings(folder: str) -> dict[str, object]:
    """Return settings of the exporter's host collector that serve the metrics of the training only."""
    return {
        "textfile": {"directories": [folder]},
        "metrics": {"allow": ["bts_training_*"]},
    }
