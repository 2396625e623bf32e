"""The Debian package, built from a copy of the sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servers.sources import ROOT, sources

#: What is generated from the command line's parser, and where the package has it.
GENERATED = {
    "docs/man/bts-exporter.1": "usr/share/man/man1/bts-exporter.1.gz",
    "docs/completion/bts-exporter.bash": "usr/share/bash-completion/completions/bts-exporter",
    "docs/completion/_bts-exporter": "usr/share/zsh/vendor-completions/_bts-exporter",
    "docs/completion/bts-exporter.fish": "usr/share/fish/vendor_completions.d/bts-exporter.fish",
}


def build(copy: Path) -> Path:
    """Return the package that `make deb` builds from a copy of the sources in an empty folder."""
    if not Path("/etc/debian_version").exists():
        pytest.skip("not everywhere: Debian packages are built on Debian")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
        (copy / name).chmod((ROOT / name).stat().st_mode)
    for name in GENERATED:  # as far as they are not there yet
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).touch()
    pip = Path(sys.executable).with_name("pip")
    done = subprocess.run(
        [copy / "packages" / "build-deb", pip],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / done.stdout.strip()
