from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.entropy import Entropy
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

AVAILABLE, POOL = "proc/sys/kernel/random/entropy_avail", "proc/sys/kernel/random/poolsize"


def test_bits(machine: Machine) -> None:
    """Available entropy and pool size are served in bits."""
    paths = machine({AVAILABLE: "255\n", POOL: "256\n"})

    assert collect(Entropy(Entropy.Config(**paths))) == {
        "node_entropy_available_bits": {(): 255},
        "node_entropy_pool_size_bits": {(): 256},
    }


@pytest.mark.parametrize("file", [AVAILABLE, POOL])
def test_error_names_the_file(machine: Machine, file: str) -> None:
    """The error for an unreadable file has its path."""
    paths = machine({AVAILABLE: "255\n", POOL: "256\n"} | {file: "lots\n"})

    with pytest.raises(TargetError, match=f"{file}: unexpected content: 'lots"):
        collect(Entropy(Entropy.Config(**paths)))


def test_absent(machine: Machine) -> None:
    """Without the files there is nothing to read."""
    with pytest.raises(NotPresent, match="entropy_avail is absent"):
        collect(Entropy(Entropy.Config(**machine({}))))
