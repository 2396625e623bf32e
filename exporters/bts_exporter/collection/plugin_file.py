"""Reads the files of a plug-in, provided that only root and our own user could have written them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bts_exporter.errors import PluginError
from bts_exporter.settings.ownership import owner_problem, writer_problem

#: O_PATH needs no permission to list a folder; other systems than Linux lack it.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: the opening of a named pipe would wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: As many links as Linux follows in one path.
_MOST_LINKS = 40


def sources(path: Path) -> dict[Path, bytes]:
    """Return the source of every module of the plug-in `path`: a file, or the folder of a package.

    PluginError if another user could have written or replaced one of its files. Other files than
    Python's are checked too; they are in the result with their size and time in place of their content.
    Each file is opened once, from its folder's descriptor, and the checked file is the one that is read: a
    path that is checked first and opened afterwards can lead elsewhere in between.
    """
    folder = _open_folder(path.absolute().parent)
    try:
        # In a folder with the sticky bit others can still add files, such as hard links to ours.
        _check(os.fstat(folder), path.parent)
        if path.suffix == ".py":
            return {path: _content(path, folder)}
        return dict(_package(path, folder))
    finally:
        os.close(folder)


def read(path: Path) -> bytes:
    """Return the content of the file `path`; PluginError as with `sources`."""
    return sources(path)[path]


def is_safe(path: Path) -> bool:
    """Return whether `sources` would return something."""
    try:
        sources(path)
    except (OSError, PluginError):
        return False
    return True


def is_part(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a package: no caches, nothing hidden."""
    return name != "__pycache__" and not name.startswith(".")


def state(found: os.stat_result) -> bytes:
    """Return what stands for the content of a file that is not Python's: it shows that the file changed."""
    return f"{found.st_size} {found.st_mtime_ns}".encode()


def _package(path: Path, above: int) -> Iterator[tuple[Path, bytes]]:
    """Yield the files in the folder `path`, which is opened from the folder `above` it."""
    try:
        folder = os.open(path.name, _LISTED, dir_fd=above)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
        raise _link(path) from error
    try:
        _check(os.fstat(folder), path)
        for name in filter(is_part, sorted(os.listdir(folder))):  # noqa: PTH208  # by descriptor
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                yield from _package(path / name, folder)
            elif name.endswith(".py"):
                yield path / name, _content(path / name, folder)
            else:
                if stat.S_ISLNK(found.st_mode):
                    raise _link(path / name)
                _check(found, path / name)
                yield path / name, state(found)
    finally:
        os.close(folder)


def _link(path: Path) -> PluginError:
    return PluginError(
        f"{path} is a symbolic link: copy the file, or let `plugins` name the folder it is in"
    )


def _content(path: Path, folder: int) -> bytes:
    try:
        descriptor = os.open(path.name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _link(path) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            msg = f"{path} is not a regular file"
            raise PluginError(msg)
        _check(found, path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int:
    """Return a descriptor of `folder`, each folder above it and each link to it checked.

    Each step is opened from the one before. Links are followed here rather than by the kernel:
    one in a folder that only root and we can write is as good as the folder.
    """
    steps = list(reversed(folder.parts))
    where, opened = Path("/"), [os.open("/", _FOLDER)]
    links = 0
    try:
        while steps:
            step = steps.pop()
            found = os.stat(step, dir_fd=opened[-1], follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                _check_link(found, where / step, links)
                steps += reversed(Path(os.readlink(step, dir_fd=opened[-1])).parts)
                continue
            opened.append(os.open(step, _FOLDER, dir_fd=opened[-1]))
            where /= step
            _check(os.fstat(opened[-1]), where, sticky=True)
        return opened.pop()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _check_link(found: os.stat_result, path: Path, links: int) -> None:
    _refuse(owner_problem(path, found))
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _check(found: os.stat_result, path: Path, *, sticky: bool = False) -> None:
    _refuse(writer_problem(path, found, sticky=sticky))


def _refuse(problem: str) -> None:
    if problem:
        raise PluginError(problem)
