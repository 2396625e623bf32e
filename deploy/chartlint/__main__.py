"""Check everything in deploy/, and Prometheus' settings for Kubernetes: python -m chartlint [--write]."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from chartlint.helm import CHART, ROOT, HelmError, Manifest, lint, objects_in, render, render_text
from chartlint.schemas import problems_of
from chartlint.service_discovery import SETTINGS, problems_of_discovery

MANIFESTS = ROOT / "deploy" / "kubernetes" / "bts-exporter.yaml"
#: Objects that are written by hand.
HANDMADE = (
    *sorted((ROOT / "deploy" / "scaling").glob("*.yaml")),
    ROOT / "deploy" / "kubernetes" / "prometheus-rbac.yaml",
)
_MANIFESTS_VALUES = f"--values={CHART / 'ci' / 'manifests-values.yaml'}"
_HEADER = """\
# Written by `make manifests` from the chart in deploy/helm/bts-exporter. Replace the image and the brokers, then:
#   kubectl apply --namespace monitoring --filename deploy/kubernetes/bts-exporter.yaml
"""
#: The arguments of each rendering that is checked.
RENDERINGS = (
    (),
    (_MANIFESTS_VALUES,),
    *(
        (
            f"--values={CHART / 'ci' / 'everything-values.yaml'}",
            f"--set=prometheusOperator.monitor={kind}",
        )
        for kind in ("PodMonitor", "ServiceMonitor", "ScrapeConfig")
    ),
)


def plain_manifests() -> str:
    """Return the manifests for those who do not use Helm."""
    return _HEADER + render_text(_MANIFESTS_VALUES)


def handmade_objects() -> list[Manifest]:
    """Return the objects that the chart does not render."""
    return [found for path in HANDMADE for found in objects_in(path.read_text())]


def _problems() -> Iterator[str]:
    for arguments in RENDERINGS:
        lint(*arguments)
        for manifest in render(*arguments):
            yield from problems_of(manifest)
    for manifest in handmade_objects():
        yield from problems_of(manifest)
    yield from problems_of_discovery(SETTINGS.read_text())
    if MANIFESTS.read_text() != plain_manifests():
        yield f"{MANIFESTS.relative_to(ROOT)} is not what the chart renders: make manifests"


def main() -> int:
    """Print each problem; return 1 if there is one."""
    try:
        problems = sorted(set(_problems()))
    except HelmError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("chart, manifests, scaling and service discovery of Kubernetes: valid")
    return bool(problems)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        MANIFESTS.write_text(plain_manifests())
    else:
        sys.exit(main())
