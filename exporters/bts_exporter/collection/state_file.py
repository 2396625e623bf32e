"""The file that holds the state of one collector: its format, reading it with suspicion, writing it atomically."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from urllib.parse import quote

import msgspec

from bts_exporter.errors import StateError
from bts_exporter.settings.ownership import writer_problem
from bts_exporter.stored_state import Clocks, age_problem

#: The version of the file's format.
FORMAT = 1
#: Larger states are neither written nor read, in bytes.
MAX_BYTES = 32 * 2**20
_CHECKSUM_BYTES = 9
_LONGEST_NAME = 150
#: Another user may have put a named pipe or a link there.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class StoredDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a state file."""

    format: int
    #: The name of the collector, such as `rabbitmq`; not its target, which may be renamed.
    collector: str
    #: Its `state_version`.
    version: int
    #: What the state belongs to, such as the name of a cluster.
    identity: str
    saved: Clocks
    state: msgspec.Raw


def file_name(name: str, target: str) -> str:
    """Return the name of the file of a collector."""
    found = quote(name, safe="") + (f"@{quote(target, safe='')}" if target else "")
    if len(found) > _LONGEST_NAME:
        found = f"{found[:_LONGEST_NAME]}-{zlib.crc32(found.encode()):08x}"
    return f"{found}.state"


def encode(document: StoredDocument) -> bytes:
    """Return the content of a file: JSON in one line, and its checksum in another; StateError if it is too large."""
    body = msgspec.json.encode(document) + b"\n"
    content = body + _checksum(body)
    if len(content) > MAX_BYTES:
        message = f"it has {len(content) / 2**20:.0f} MiB (limit: {MAX_BYTES / 2**20:.0f} MiB)"
        raise StateError(message)
    return content


def decode(content: bytes, collector: str, version: int) -> StoredDocument:
    """Return the document in the content of a file; StateError if it is not one of this collector and version."""
    body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body):
        message = "it is damaged: the checksum is wrong"
        raise StateError(message)
    try:
        document = msgspec.json.decode(body, type=StoredDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = f"it has another format: {error}"
        raise StateError(message) from None
    found = (document.format, document.version)
    if found != (FORMAT, version):
        message = "it is of another version: format {}, state {} (expected format {}, state {})"
        raise StateError(message.format(*found, FORMAT, version))
    if document.collector != collector:
        message = f"it is of the collector {document.collector}"
        raise StateError(message)
    if problem := age_problem(Clocks.now().since(document.saved)):
        raise StateError(problem)
    return document


def read(path: Path) -> bytes | None:
    """Return the content of a file that only root and our user can have written; None if there is no file.

    StateError with the reason otherwise.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            message = "it is a symbolic link"
            raise StateError(message) from None
        raise StateError(_text(error)) from None
    try:
        return _read(descriptor, path)
    except OSError as error:
        raise StateError(_text(error)) from None
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        message = "it is not a regular file"
        raise StateError(message)
    if problem := writer_problem(path, found):
        raise StateError(problem)
    if found.st_size > MAX_BYTES:
        message = f"it has {found.st_size / 2**20:.0f} MiB (limit: {MAX_BYTES / 2**20:.0f} MiB)"
        raise StateError(message)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(MAX_BYTES + 1)


def write(path: Path, content: bytes) -> None:
    """Replace the file at once, readable by our user only; StateError with the reason.

    After a failure or a crash the file is the earlier one, complete.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed
        descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            _write(descriptor, content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StateError(_text(error)) from None


def _write(descriptor: int, content: bytes) -> None:
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(body: bytes) -> bytes:
    return b"%08x\n" % zlib.crc32(body)


def _text(error: OSError) -> str:
    return error.strerror or str(error)
