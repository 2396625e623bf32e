"""Whether only root and our user can write a file, or replace it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: Symbolic links that are followed, as many as the kernel does.
_MAX_LINKS = 40
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def problem_with(path: Path) -> str:
    """Return why another user can change the file `path`; empty if none can."""
    if not hasattr(os, "geteuid"):  # not a system with these permissions
        return ""
    try:
        return next(filter(None, _problems(path.absolute())), "")
    except OSError as error:
        return f"its permissions cannot be read: {error}"


def writer_problem(path: Path, found: os.stat_result, *, sticky: bool = False) -> str:
    """Return why another user can write the file or folder `path`; empty if none can.

    With `sticky` a folder such as /tmp is accepted, where all users create files and rename only
    their own.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & _WRITABLE_BY_OTHERS and not (sticky and mode & stat.S_ISVTX):
        return f"{path} is writable by other users (mode {mode:04o}): chmod go-w {path}"
    return owner_problem(path, found)


def owner_problem(path: Path, found: os.stat_result) -> str:
    """Return which other user `path` belongs to; empty if it is root or our user."""
    if found.st_uid in {0, os.geteuid()}:
        return ""
    return f"{path} belongs to user {found.st_uid}: chown it to root or to the user that runs bts-exporter"


def _problems(path: Path) -> Iterator[str]:
    for _ in range(_MAX_LINKS):
        folder = path.parent.resolve()
        yield writer_problem(folder, folder.stat())
        for above in folder.parents:
            yield writer_problem(above, above.stat(), sticky=True)
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode):
            yield writer_problem(path, found)
            return
        yield owner_problem(path, found)
        path = folder / path.readlink()
    yield f"{path} is a symbolic link that leads nowhere"
