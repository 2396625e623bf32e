"""Which mounts a path can lead to: one mounted over another, or over a folder above it, hides it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class Placed(Protocol):
    """A mount: its number, that of the mount that it is on, and its point."""

    @property
    def number(self) -> bytes:
        """Return the number of the mount."""

    @property
    def parent(self) -> bytes:
        """Return the number of the mount that its point is in."""

    @property
    def point(self) -> bytes:
        """Return its mount point."""


AnyMount = TypeVar("AnyMount", bound=Placed)


def visible(mounts: Sequence[AnyMount]) -> list[AnyMount]:
    """Return the mounts that are not hidden by others."""
    numbers = {mount.number: mount for mount in mounts}
    taken = {(mount.parent, mount.point) for mount in mounts if mount.parent != mount.number}

    def is_bypassed(mount: AnyMount) -> bool:
        # What was mounted on a folder above it later has the same parent; of an unknown one nothing is known.
        return mount.parent in numbers and any(
            (mount.parent, folder) in taken for folder in way(mount.point) if folder != mount.point
        )

    unreachable: dict[bytes, bool] = {}

    def is_unreachable(mount: AnyMount | None) -> bool:
        verdict = False
        path = []
        while mount is not None and not verdict:
            if mount.number in unreachable:
                verdict = unreachable[mount.number]
                break
            unreachable[mount.number] = False  # ends a circle, which a damaged file may have
            path.append(mount.number)
            verdict = is_bypassed(mount)
            mount = numbers.get(mount.parent)
        unreachable.update(dict.fromkeys(path, verdict))
        return verdict

    return [
        mount
        for mount in mounts
        if (mount.number, mount.point) not in taken and not is_unreachable(mount)
    ]


def way(point: bytes) -> Iterator[bytes]:
    """Yield the folders on the way to a mount point, itself included: `/`, `/a` and `/a/b`."""
    yield b"/"
    place = point.find(b"/", 1)
    while place > 0:
        yield point[:place]
        place = point.find(b"/", place + 1)
    yield point
