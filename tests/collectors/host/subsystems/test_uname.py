from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bts_collectors.host.subsystems.uname import Uname
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]


def test_names(machine: Machine) -> None:
    """The labels are the fields of uname(2), and the NIS domain."""
    paths = machine({"proc/sys/kernel/domainname": "example.org\n"})

    names = os.uname()
    assert collect(Uname(Uname.Config(**paths))) == {
        "node_uname_info": {
            (
                names.sysname,
                names.release,
                names.version,
                names.machine,
                names.nodename,
                "example.org",
            ): 1
        }
    }


def test_unknown_domain(machine: Machine) -> None:
    """If the domain cannot be read its label is empty, and the others are served."""
    ((labels, value),) = collect(Uname(Uname.Config(**machine({}))))["node_uname_info"].items()

    assert (labels[0], labels[-1], value) == (os.uname().sysname, "", 1)
