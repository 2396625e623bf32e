"""A machine with systemd as its first process, in namespaces of its own, for tests of the service.

Its root is an overlay of this machine's root, its network has only the loopback device, and it is in
a control group of its own: what is installed, mounted, started and killed there is not seen here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts.programs import ends_with_this_process
from servers import need, wait_until

#: Samples of a page: name -> labels, sorted -> value.
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

#: Makes the machine's root, and runs systemd in it; $1 is an empty folder.
_BOOT = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p run/host
pivot_root . run/host
umount -l /run/host
mount --make-rshared /
export container=test
exec /lib/systemd/systemd --system --unit=basic.target --show-status=0
"""
_NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
#: What programs find on the machine, whatever is in our own environment.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Prints status and text of the answer to a request to the URL.
_GET = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


class Machine:
    """A machine that has been booted; `shut_down` ends everything on it, as does the end of the test run."""

    def __init__(self, folder: Path, cgroups: Path) -> None:
        self._cgroup = cgroups / f"bts-exporter-test-{os.getpid()}-{folder.name}"
        self._cgroup.mkdir()
        root, self._log = folder / "root", folder / "boot.log"
        root.mkdir()
        enter = f"echo $$ > {self._cgroup}/cgroup.procs; exec unshare --kill-child --propagation private "
        script = f'{enter} {" ".join(_NAMESPACES)} sh -ec "$0" sh {root}'
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [*ends_with_this_process(), "sh", "-c", script, _BOOT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
        self._pid = 0
        try:
            wait_until(self._has_booted, "systemd has booted", 60)
        except AssertionError as error:
            self.shut_down()
            error.add_note(self._log.read_text(errors="replace"))
            raise

    def _has_booted(self) -> bool:
        assert self._unshare.poll() is None, self._log.read_text(errors="replace")
        pid = self._unshare.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return False
        self._pid = int(children[0])
        state = self.try_("systemctl is-system-running")
        # Degraded: a unit of this machine's own failed there, which does not concern ours.
        return state.stdout.strip() in {"running", "degraded"}

    def command(self, script: str, *, online: bool = False) -> list[str]:
        """Return the command line that runs a shell script there as root, `online` with our network."""
        flags = [name for name in _NAMESPACES if not (online and name == "--net")]
        return ["nsenter", f"--target={self._pid}", *flags, "bash", "-euc", script]

    def try_(
        self, script: str, *, online: bool = False, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script there as root, and return how it ended."""
        done = subprocess.run(
            self.command(script, online=online),
            input=stdin,
            capture_output=True,
            timeout=240,
            env=_environment(),
            check=False,
        )
        out, err = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(script, done.returncode, out, err)

    def run(self, script: str, *, online: bool = False, stdin: bytes | None = None) -> str:
        """Return the output of a shell script that has to succeed there."""
        done = self.try_(script, online=online, stdin=stdin)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file, and its folder."""
        self.run(f"mkdir -p {Path(path).parent}; cat > {path}", stdin=text.encode())

    def networked(self, argv: Sequence[str]) -> list[str]:
        """Return the command line of a program of ours in the machine's network."""
        return ["nsenter", f"--target={self._pid}", "--net", *argv]

    def get(self, path: str, port: int = 19100) -> tuple[int, str]:
        """Return status and text of the answer to a request; 0 if the connection is refused."""
        argv = [sys.executable, "-Ic", _GET, f"http://127.0.0.1:{port}{path}"]
        done = subprocess.run(
            self.networked(argv), capture_output=True, text=True, timeout=60, check=False
        )
        if "Connection refused" in done.stderr:
            return 0, ""
        assert done.returncode == 0, done.stderr
        status, text = json.loads(done.stdout)
        return int(status), str(text)

    def metrics(self, port: int = 19100) -> Samples:
        """Return what the exporter there serves."""
        status, text = self.get("/metrics", port)
        assert status == 200, text
        return samples_of(text)

    def shut_down(self) -> None:
        """End everything on the machine; nothing of it is left."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # the first process ends, and with it all others
        else:
            self._unshare.kill()
        self._unshare.wait(60)
        wait_until(self._remove_cgroups, "the control groups are empty")

    def _remove_cgroups(self) -> bool:
        folders = [*self._cgroup.rglob("*/"), self._cgroup]
        try:
            for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                folder.rmdir()
        except OSError:  # processes that end
            return False
        return True


def _environment() -> dict[str, str]:
    """Return our environment without our Python; settings of pip and of a proxy stay."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"}


def samples_of(text: str) -> Samples:
    """Return the samples of a page in the text format."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def boot(folder: Path) -> Machine:
    """Boot a machine; the test is skipped where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("not everywhere: a machine of its own takes root")
    need("systemctl", "systemd")
    cgroups = _cgroups()
    possible = ["unshare", "--fork", *_NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"]
    if cgroups is None or subprocess.run(possible, capture_output=True, check=False).returncode:
        pytest.skip("not everywhere: a machine of its own takes namespaces and control groups")
    return Machine(folder, cgroups)


def _cgroups() -> Path | None:
    """Return where the second version of control groups is mounted and can be written to."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        path = Path(fields.split()[4])
        if kind.startswith("cgroup2 ") and os.access(path, os.W_OK):
            return path
    return None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine for the tests of one module."""
    if shutil.which("nsenter") is None:
        pytest.skip("not everywhere: a machine of its own takes util-linux")
    machine = boot(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.shut_down()
