"""The alerting rules that come with the exporter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from servers import need

RULES = Path(__file__).parents[1] / "monitoring/rules"


@pytest.mark.live
def test_rules_fire_when_they_should() -> None:
    """`promtool test rules` has every alert of the rules' own tests fire, and not before its time."""
    done = subprocess.run(
        [need("promtool", "prometheus"), "test", "rules", RULES / "bts-exporter_test.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
