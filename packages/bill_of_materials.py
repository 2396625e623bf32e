"""Prints a bill of materials, in CycloneDX's JSON, of the Python packages in a folder."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def main() -> None:
    """Print the packages in the folder that the command line names."""
    folder = sys.argv[1]
    found = {name_of(each): each for each in distributions(path=[folder])}
    if "bts-exporter" not in found:
        sys.exit(f"bts-exporter is not installed in {folder}")
    ours = found.pop("bts-exporter")
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", **described(ours)}},
        "components": [{"type": "library", **described(found[name])} for name in sorted(found)],
    }
    print(json.dumps(bill, indent=1))


def name_of(package: Distribution) -> str:
    """Return the normalized name of a package."""
    return re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()


def described(package: Distribution) -> dict[str, Any]:
    """Return what the bill says about a package."""
    name, purl = name_of(package), f"pkg:pypi/{name_of(package)}@{package.version}"
    about = {"bom-ref": purl, "name": name, "version": package.version, "purl": purl}
    if text := license_of(package):
        about["licenses"] = [{"license": {"name": text}}]
    return about


def license_of(package: Distribution) -> str:
    """Return the license of a package: its expression, its name, or its classifiers; empty if it has none."""
    metadata = package.metadata
    short = metadata["License-Expression"] or metadata["License"] or ""
    if short and "\n" not in short:
        return str(short)
    classifiers = metadata.get_all("Classifier") or []
    names = [text.split(" :: ")[-1] for text in classifiers if text.startswith("License :: ")]
    return ", ".join(names)


main()
