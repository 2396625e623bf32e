from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bts_exporter.web.descriptors import Reserve, connections_for

#: What a process needs besides its connections and cached kernel files: for its standard streams, the
#: listener, its reserve, and the connections to targets.
OTHERS = 38


@pytest.mark.parametrize("limit", [64, 96, 128, 200, 256])
def test_connections_fit_beside_the_kernel_files(limit: int) -> None:
    """At a low limit the connections leave room for targets; kernel files take all but 64."""
    assert 12 < connections_for(limit) <= 64 - OTHERS


@pytest.mark.parametrize(("limit", "most"), [(1024, 341), (4096, 640), (1 << 20, 640), (-1, 640)])
def test_connections_are_bounded_where_files_are_not(limit: int, most: int) -> None:
    """A high limit of open files does not mean as many connections."""
    assert connections_for(limit) == most


def test_reserve_takes_the_place_of_a_closed_connection() -> None:
    """A descriptor that was released comes back with the next connection that is closed."""
    reserve = Reserve()
    while reserve.release():
        pass
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    reserve.close_socket(ours)

    assert theirs.recv(1) == b""
    assert os.path.samestat(os.fstat(number), Path(os.devnull).stat())
    assert reserve.release()
    assert not reserve.release()
    reserve.close()
    theirs.close()


def test_reserve_that_was_closed_closes() -> None:
    """A connection that outlives the reserve is closed as any other."""
    reserve = Reserve()
    reserve.close()
    ours, theirs = socket.socketpair()
    reserve.close_socket(ours)

    assert theirs.recv(1) == b""
    theirs.close()
