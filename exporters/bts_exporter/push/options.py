"""The flags of the command `push`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """A protocol, as --protocol names it."""

    PUSHGATEWAY = "pushgateway"
    OTLP = "otlp"
    REMOTE_WRITE = "remote-write"


@dataclass(frozen=True)
class PushOptions:
    """The settings of the command line."""

    url: str
    job: str
    #: Value of the instance label; None for the default of the protocol.
    instance: str | None = None
    #: None: as the address indicates.
    protocol: Protocol | None = None
    #: Seconds between collections; None for a single one.
    every: float | None = None
    http_config_file: str | None = None
    buffer_bytes: int = 64 * 2**20
    #: In seconds.
    buffer_age: float = 86400.0
