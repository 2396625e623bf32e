"""`make chart` refuses objects with wrong types and unknown keys. It has installed the schemas, or the tests are skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(sys.prefix) / "kubernetes"
KEDA = yaml.safe_load((ROOT / "deploy" / "scaling" / "keda.yaml").read_text())
RBAC = list(
    yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "prometheus-rbac.yaml").read_text())
)
DISCOVERY = (ROOT / "monitoring" / "prometheus" / "kubernetes.yml").read_text()

#: In a process of its own: what these packages bring must not be in that of the tests.
PROGRAM = """\
import json, sys
from chartlint.schemas import problems_of
from chartlint.service_discovery import problems_of_discovery
given = json.load(sys.stdin)
print(json.dumps([problems_of(it) if isinstance(it, dict) else [*problems_of_discovery(it)] for it in given]))
"""

pytestmark = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="there are no schemas: make chart")


def changed(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy with another value at a path such as spec.triggers.0.type."""
    copy = deepcopy(manifest)
    *parents, last = path.split(".")
    place: Any = copy
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return copy


#: What is checked, and a word of what is reported; nothing is wrong where it is empty.
CASES: dict[str, tuple[dict[str, Any] | str, str]] = {
    "as shipped": (KEDA, ""),
    "built-in, as shipped": (RBAC[1], ""),
    "discovery, as shipped": (DISCOVERY, ""),
    "misspelt key": (changed(KEDA, "spec.maxReplicas", 3), "maxReplicas"),
    "misspelt key inside": (changed(KEDA, "spec.triggers.0.metrictype", "Value"), "metrictype"),
    "wrong type": (changed(KEDA, "spec.maxReplicaCount", "many"), "many"),
    "number for a text": (changed(KEDA, "spec.triggers.0.metadata.threshold", 120), "120"),
    "unknown kind": (changed(KEDA, "kind", "ScaledThing"), "no such kind"),
    "built-in, misspelt key": (changed(RBAC[1], "rule", []), "rule"),
    "built-in, unknown kind": (changed(RBAC[1], "kind", "ClusterRules"), "no such kind"),
    "discovery, misspelt key": (DISCOVERY.replace("selectors:", "selector:"), "selector"),
    "discovery, wrong role": (DISCOVERY.replace("role: node", "role: nodes"), "nodes"),
}


@pytest.fixture(scope="module")
def reported() -> dict[str, list[str]]:
    """Return the problems of each case."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([given for given, _ in CASES.values()]),
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'deploy'}:{SCHEMAS}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_problems_are_reported(reported: dict[str, list[str]], case: str) -> None:
    """What is right passes, and what is wrong is named."""
    word = CASES[case][1]

    assert bool(reported[case]) == bool(word), reported[case]
    assert word in "".join(reported[case])
