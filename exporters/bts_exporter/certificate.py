"""The expiry of a certificate, also of one that was not verified: `ssl` parses only verified ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

_EXPLICIT_VERSION = 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
#: Fields of a certificate in front of its validity: serial number, signature algorithm, issuer.
_BEFORE_VALIDITY = 3
#: From this first byte on, a length has its own length in front.
_LONG_LENGTH = 0x80


def expiry_of(der: bytes) -> float | None:
    """Return the Unix time of `notAfter` of a certificate in DER; None if it has an unknown form."""
    try:
        [(_, certificate)] = _fields(der)
        _, signed = next(_fields(certificate))
        fields = [field for field in _fields(signed) if field[0] != _EXPLICIT_VERSION]
        _, (tag, text) = _fields(fields[_BEFORE_VALIDITY][1])
        return _time(tag, text.decode("ascii"))
    except (IndexError, StopIteration, ValueError):
        return None


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each field; ValueError if one is longer than the rest."""
    start = 0
    while start < len(content):
        tag, length = content[start], content[start + 1]
        start += 2
        if length >= _LONG_LENGTH:
            size = length - _LONG_LENGTH
            length = int.from_bytes(content[start : start + size])
            start += size
        if start + length > len(content):
            msg = "a field is longer than the certificate"
            raise ValueError(msg)
        yield tag, content[start : start + length]
        start += length


def _time(tag: int, text: str) -> float:
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag, "")
    moment = datetime.strptime(text, form).replace(tzinfo=UTC)
    # Of two digits, X.509 means 1950 to 2049; strptime means 1969 to 2068.
    if tag == _UTC_TIME and moment.year >= 2050:  # noqa: PLR2004  # see above
        moment = moment.replace(year=moment.year - 100)
    return moment.timestamp()
