"""The checks of Prometheus' and Alertmanager's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = "monitoring/prometheus"
#: The Debian package of each tool.
PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def check_with_tools(root: Path) -> Iterator[str]:
    """Yield what promtool and amtool refuse; without a tool, its checks are left out, except in CI."""
    commands = [
        ("promtool", "check", "rules", "rules/*.yml"),
        ("promtool", "check", "config", "prometheus.yml"),
        ("promtool", "test", "rules", "rule-tests/*.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ]
    for tool, package in PACKAGES.items():
        if shutil.which(tool) is None:
            message = f"{tool} is missing: apt-get install {package}"
            if os.environ.get("CI"):
                yield message
            else:
                print(f"{message}. Its checks are left out.", file=sys.stderr)
            commands = [command for command in commands if command[0] != tool]
    for *command, pattern in commands:
        for path in sorted((root / FOLDER).glob(pattern)):
            yield from _run(root, [*command, str(path.relative_to(root))])


def _run(root: Path, argv: list[str]) -> Iterator[str]:
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        yield f"{argv[-1]}: `{' '.join(argv)}` fails:\n{done.stdout}{done.stderr}".rstrip()
