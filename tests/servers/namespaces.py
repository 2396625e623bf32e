"""Mount namespaces of our own, whose mounts are not seen outside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import Process

#: Makes a mount namespace; the argument is a script that prepares it.
MakeNamespace = Callable[[str], "Namespace"]


class Namespace(Process):
    """A process in a mount namespace that was made from another one's, or from ours."""

    def __init__(self, folder: Path, script: str) -> None:
        unshared = ["unshare", "--mount", "--propagation", "private"]
        super().__init__([*unshared, "sh", "-ec", f"{script}\necho ready\nexec sleep 600"], folder)
        self.ready(lambda: "ready" in self.log.read_text())

    @property
    def enter(self) -> tuple[str, ...]:
        """Return what a command line begins with that is to be run there."""
        return ("nsenter", f"--mount=/proc/{self.popen.pid}/ns/mnt")

    def run(self, script: str) -> None:
        """Run a script there."""
        subprocess.run([*self.enter, "sh", "-ec", script], check=True)


@pytest.fixture
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNamespace]:
    """Give a function that makes namespaces; skipped where we may not."""
    if os.geteuid() != 0:
        pytest.skip("not everywhere: mount namespaces are for root")
    made: list[Namespace] = []

    def make(script: str) -> Namespace:
        made.append(Namespace(tmp_path_factory.mktemp("namespace"), script))
        return made[-1]

    yield make
    for each in made:
        each.kill()
