"""Whether a file is ours: nobody but us and root can write it, or put another in its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: Symbolic links that are followed, as many as the kernel does.
_MAX_LINKS = 40
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def doubt_about(path: Path) -> str:
    """Return why another user can decide what is in the file `path`; empty if none can."""
    if not hasattr(os, "geteuid"):  # not a system with these permissions
        return ""
    try:
        return next(filter(None, _doubts(path.absolute())), "")
    except OSError as error:
        return f"its permissions cannot be read: {error}"


def _doubts(path: Path) -> Iterator[str]:
    for _ in range(_MAX_LINKS):
        folder = path.parent.resolve()
        yield _doubt(folder, folder.stat(), shared=False)
        for above in folder.parents:
            # In a folder such as /tmp all may create files, and rename only their own.
            yield _doubt(above, above.stat(), shared=True)
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode):
            yield _doubt(path, found, shared=False)
            return
        yield _doubt_of_owner(path, found)
        path = folder / path.readlink()
    yield f"{path} is a symbolic link that leads nowhere"


def _doubt(path: Path, found: os.stat_result, *, shared: bool) -> str:
    mode = stat.S_IMODE(found.st_mode)
    if mode & _WRITABLE_BY_OTHERS and not (shared and mode & stat.S_ISVTX):
        return f"{path} is writable by other users (mode {mode:04o}); chmod go-w {path}"
    return _doubt_of_owner(path, found)


def _doubt_of_owner(path: Path, found: os.stat_result) -> str:
    if found.st_uid in {0, os.geteuid()}:
        return ""
    return f"{path} belongs to user {found.st_uid}, who is neither root nor the one that runs this"
