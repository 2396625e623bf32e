"""The command `hash-password`: a password to its hash for basic_auth_users."""

from __future__ import annotations

import getpass
import sys

import bcrypt

from bts_exporter.access.passwords import MAX_BYTES
from bts_exporter.errors import ExporterError


def hash_password(cost: int) -> int:
    """Print the bcrypt hash of a password, from the terminal or the first line of standard input."""
    password = _read().encode("utf-8", "surrogateescape")
    if not 0 < len(password) <= MAX_BYTES:
        message = f"a password must have from 1 to {MAX_BYTES} bytes, got {len(password)}"
        raise ExporterError(message)
    print(bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode())
    return 0


def _read() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        message = "the passwords are not the same"
        raise ExporterError(message)
    return password
