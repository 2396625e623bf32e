"""This repository's files, for tests that install from them elsewhere."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

from servers import need

ROOT = Path(__file__).parents[2]


def sources() -> list[str]:
    """Return the files that git has or would take, relative to the repository."""
    git = [need("git", "git"), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def commands(heading: str) -> list[str]:
    """Return the blocks of commands below a heading of the README, in their order."""
    section = (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")[2]
    return re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)


def archive() -> bytes:
    """Return these files as a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in sources():
            tar.add(ROOT / name, name)
    return stream.getvalue()
