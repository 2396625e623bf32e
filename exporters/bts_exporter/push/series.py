"""What an encoder receives: the metrics of one collection, with the labels of the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from bts_exporter import prometheus_text
from bts_exporter.prometheus_text import Family

#: The labels of a series, sorted by name.
Labels = tuple[tuple[str, str], ...]

#: Samples of one request: receivers limit its size.
MAX_SAMPLES = 10_000


class Source(NamedTuple):
    """Where the metrics come from."""

    job: str
    instance: str


class Encoder(Protocol):
    """Makes the bodies of requests in one protocol; it knows the series of the collection before."""

    #: Method and headers of the requests.
    method: str
    headers: Mapping[str, str]

    def encode(self, page: bytes, timestamp: float) -> list[bytes]:
        """Return the bodies for a page in text format, collected at `timestamp` (Unix time)."""

    def end(self, timestamp: float) -> list[bytes]:
        """Return the bodies that mark all series as ended."""

    def rejected(self, response: bytes) -> tuple[int, str]:
        """Return how many samples a receiver refused in a batch that it took, and its reason."""


def families(page: bytes) -> list[Family]:
    """Return the families of a page in text format."""
    return prometheus_text.parse(page.decode(), strict=False)


def renamed(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield labels with `job` and `instance` renamed, as a Prometheus that scrapes does.

    Labels with an empty value are left out: they mean the same as no label.
    """
    for name, value in labels.items():
        if value:
            yield (f"exported_{name}" if name in Source._fields else name), value
