"""The image of the container: its Dockerfile, and, where buildah is installed, the image itself as it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from servers import Process
from servers.machine import samples_of
from servers.sources import ROOT, sources

DOCKERFILE = (ROOT / "Dockerfile").read_text()
#: The certificate authorities that this machine trusts.
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
#: Packages of Debian for a stand-in of the base image, which no registry is needed for.
BASE = "ca-certificates,python-is-python3,python3,python3-pip,python3-venv"


def test_base_is_pinned() -> None:
    """Both stages begin with one image, that of a digest."""
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_requirements_are_pinned() -> None:
    """Whatever pip installs from elsewhere has a hash."""
    installs = re.findall(r"pip --python \S+ install (.*)", DOCKERFILE)

    assert len(installs) == 3
    assert all(
        options.startswith(("--require-hashes", "--no-build-isolation --no-deps"))
        for options in installs
    )


def test_user_is_not_root() -> None:
    """The user is given as numbers, which Kubernetes' runAsNonRoot asks for."""
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["65534:65534"]
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")


def test_context_holds_what_is_built_from() -> None:
    """Each file that the Dockerfile names is sent to the build, and each folder that is sent exists."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}

    assert sent >= {"packages", "setup.py", "pyproject.toml", "exporters", "collectors"}
    assert all((ROOT / name).exists() for name in sent)


class Builder:
    """Buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, command: str, *arguments: str, cwd: Path | None = None) -> str:
        """Return the output of a command of buildah."""
        storage = [f"--root={self._folder}/root", f"--runroot={self._folder}/run"]
        done = subprocess.run(
            ["buildah", *storage, "--storage-driver=vfs", command, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Return a builder that has a stand-in for the base image, named base."""
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        pytest.skip("not everywhere: `make test-long` installs what builds an image")
    folder = tmp_path_factory.mktemp("images")
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={BASE}", "bookworm", "base"]
    subprocess.run(bootstrap, cwd=folder, stdout=subprocess.DEVNULL, timeout=600, check=True)
    builder = Builder(folder)
    working = builder.run("from", "scratch")
    builder.run("add", working, str(folder / "base"), "/")
    builder.run("commit", "--rm", working, "base")
    yield builder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a container of the image that is built from a copy of the sources."""
    context = tmp_path_factory.mktemp("context")
    for name in sources():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    # Where a proxy has a certificate of its own, only this machine trusts it.
    trusted = f"--volume={TRUSTED}:{TRUSTED}:ro"
    options = ["--isolation=chroot", "--network=host", "--format=docker", trusted]
    builder.run(
        "bud", *options, "--build-arg=BASE=localhost/base", "--tag=bts-exporter", ".", cwd=context
    )
    return builder.run("from", "bts-exporter")


class Container(Process):
    """The image's entry point as its user, in namespaces of its own with a root that is read-only."""

    def __init__(self, folder: Path, root: str, config: dict[str, Sequence[str]]) -> None:
        self._health = config["Healthcheck"]["Test"][1:]  # type: ignore[call-overload]
        self._root = root
        self._as = f"chroot --userspec={config['User']} {root}"
        entry = " ".join(config["Entrypoint"])
        mounts = f"mount --bind -o ro {root} {root}; mount -t proc proc {root}/proc"
        script = f"{mounts}; ip link set lo up; exec {self._as} {entry}"
        super().__init__(
            ["unshare", "--mount", "--net", "--propagation=private", "sh", "-ec", script],
            folder,
            {"PATH": os.environ["PATH"]},
        )

    def ask(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image there, as its user."""
        enter = ["nsenter", f"--target={self.popen.pid}", "--mount", "--net"]
        return subprocess.run(
            [*enter, "sh", "-c", f"exec {self._as} {script}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def healthy(self) -> bool:
        """Return whether the image's health check succeeds."""
        quoted = " ".join(f"'{word}'" for word in self._shell_words())
        return self.ask(quoted).returncode == 0

    def _shell_words(self) -> list[str]:
        return [word.replace("'", "'\\''") for word in self._health]


@pytest.mark.live
@pytest.mark.timeout(900)  # a base system and its packages are downloaded
def test_image_runs(builder: Builder, image: str, tmp_path: Path) -> None:
    """It serves the machine's metrics as nobody, without writing, and its health check says so."""
    config = json.loads(builder.run("inspect", image))["Docker"]["config"]
    root = builder.run("mount", image)
    container = Container(tmp_path, root, config)
    try:
        container.ready(container.healthy)
        page = container.ask(
            'python -c "from urllib.request import urlopen;'
            " print(urlopen('http://127.0.0.1:19100/metrics').read().decode())\""
        )
        status = Path(f"/proc/{container.popen.pid}/status").read_text()
    finally:
        container.kill()

    assert samples_of(page.stdout)["node_load1"], page.stderr
    assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
    assert not container.healthy()
    bill = json.loads(Path(root, "usr/share/doc/bts-exporter/bts-exporter.cdx.json").read_text())
    assert {part["name"] for part in bill["components"]} >= {"redis", "msgspec", "pyyaml"}
