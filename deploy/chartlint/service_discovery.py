"""Prometheus' service discovery in Kubernetes against a schema: Debian's promtool is built without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from chartlint.helm import ROOT
from chartlint.schemas import problems_with, schema_of

SETTINGS = ROOT / "monitoring" / "prometheus" / "kubernetes.yml"
#: Prometheus writes roles in lower case.
_ROLES = {"node": "Node", "pod": "Pod", "service": "Service", "endpointslice": "EndpointSlice"}


def problems_of_discovery(settings: str) -> Iterator[str]:
    """Yield what is wrong with each kubernetes_sd_configs in the text of SETTINGS.

    The schema is that of the operator's ScrapeConfig, which writes the names in another way.
    """
    schema = schema_of("monitoring.coreos.com/v1alpha1", "ScrapeConfig")
    for job in yaml.safe_load(settings)["scrape_configs"]:
        for discovery in job["kubernetes_sd_configs"]:
            spec = {"kubernetesSDConfigs": [_as_resource(discovery)]}
            resource = {"metadata": {"name": "checked"}, "spec": spec}
            for problem in problems_with(resource, schema):
                yield f"{SETTINGS.name}: job {job['job_name']}: {problem}"


def _as_resource(discovery: Any) -> Any:
    """Return the settings with the names that the operator has for them."""
    if isinstance(discovery, list):
        return [_as_resource(item) for item in discovery]
    if not isinstance(discovery, dict):
        return discovery
    return {
        re.sub("_(.)", lambda found: found[1].upper(), key): (
            _ROLES.get(value, value) if key == "role" else _as_resource(value)
        )
        for key, value in discovery.items()
    }
