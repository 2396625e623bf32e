"""The command `hash-password`: a password to its hash for basic_auth_users."""

from __future__ import annotations

import getpass
import sys

import bcrypt

from bts_exporter.access.passwords import MAX_BYTES
from bts_exporter.errors import ExporterError


def hash_password(cost: int) -> int:
    """Print the bcrypt hash of a password, from the terminal or the first line of standard input."""
    password = _ask() if sys.stdin.isatty() else sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not 0 < len(password) <= MAX_BYTES:
        message = f"a password must have from 1 to {MAX_BYTES} bytes, got {len(password)}"
        raise ExporterError(message)
    print(bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode())
    return 0


def _ask() -> bytes:
    try:
        password = getpass.getpass("Password: ")
        repeated = getpass.getpass("The same again: ")
    except EOFError:
        message = "no password was entered"
        raise ExporterError(message) from None
    if password != repeated:
        message = "the two passwords differ"
        raise ExporterError(message)
    return password.encode("utf-8", "surrogateescape")
