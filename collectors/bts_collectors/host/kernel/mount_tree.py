"""Finds the mounts that a path can reach: a later mount on the same point, or above it, hides a mount."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class MountNode(Protocol):
    """A mount in the tree: its number, its parent's number, and its mount point."""

    @property
    def number(self) -> bytes:
        """Return the number of the mount."""

    @property
    def parent(self) -> bytes:
        """Return the number of the mount that contains the mount point."""

    @property
    def point(self) -> bytes:
        """Return the mount point."""


AnyMount = TypeVar("AnyMount", bound=MountNode)


def visible(mounts: Sequence[AnyMount]) -> list[AnyMount]:
    """Return the mounts that are not hidden by others."""
    numbers = {mount.number: mount for mount in mounts}
    taken = {(mount.parent, mount.point) for mount in mounts if mount.parent != mount.number}

    def is_bypassed(mount: AnyMount) -> bool:
        # A later mount on a directory above has the same parent. Without a known parent nothing is known.
        return mount.parent in numbers and any(
            (mount.parent, folder) in taken
            for folder in ancestors(mount.point)
            if folder != mount.point
        )

    unreachable: dict[bytes, bool] = {}

    def is_unreachable(mount: AnyMount | None) -> bool:
        verdict = False
        path = []
        while mount is not None and not verdict:
            if mount.number in unreachable:
                verdict = unreachable[mount.number]
                break
            unreachable[mount.number] = False  # breaks a cycle, which a damaged file may have
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


def ancestors(point: bytes) -> Iterator[bytes]:
    """Yield the directories from the root to a mount point, itself included: `/`, `/a` and `/a/b`."""
    yield b"/"
    end = point.find(b"/", 1)
    while end > 0:
        yield point[:end]
        end = point.find(b"/", end + 1)
    yield point
