"""Names from the server as label values."""

from __future__ import annotations

from zlib import crc32

#: Bytes of a name in a label. Any client of the server can choose names, of up to 512 MB.
LONGEST_NAME = 256


def text(raw: bytes) -> str:
    r"""Return bytes from the server as text; bytes that are not UTF-8 are escaped, such as `\xff`."""
    return raw.decode("utf-8", "backslashreplace")


def label(raw: bytes) -> str:
    """Return a name as a label value: a long name as its first 256 bytes and a checksum."""
    if len(raw) > LONGEST_NAME:
        raw = raw[:LONGEST_NAME] + b"~%08x" % crc32(raw)
    return text(raw)
