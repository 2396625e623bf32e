"""Alerts of two replicas of an exporter: the labels that Prometheus sends to Alertmanager."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from servers.sources import ROOT

SETTINGS = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())


def relabelled(labels: dict[str, str], configs: list[dict[str, Any]]) -> dict[str, str]:
    """Return what relabelling with the action `replace` and constant replacements makes of labels."""
    labels = dict(labels)
    for config in configs:
        joined = ";".join(labels.get(name, "") for name in config["source_labels"])
        if re.fullmatch(config["regex"], joined):
            labels[config["target_label"]] = config["replacement"]
    return {name: value for name, value in labels.items() if value}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"broker": "redis", "replica": "a", "pod": "p", "target": "x"}, ["broker", "target"]),
        ({"broker": "redis", "target": "x"}, ["broker", "instance", "target"]),
        ({"replica": "a"}, ["instance", "replica"]),
    ],
)
def test_alerts_of_replicas_about_a_broker_are_equal(
    labels: dict[str, str], expected: list[str]
) -> None:
    """Only alerts about a broker from a target with the label `replica` lose the labels in which replicas differ."""
    configs = SETTINGS["alerting"]["alert_relabel_configs"]

    found = relabelled({"instance": "one", **labels}, configs)

    assert sorted(found) == expected
