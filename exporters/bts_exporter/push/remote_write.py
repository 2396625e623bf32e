"""Prometheus remote write 1.0: protobuf in a snappy block."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

import cramjam

import bts_exporter
from bts_exporter.push.remote_write_messages import WriteRequest
from bts_exporter.push.series import MAX_SAMPLES, Labels, Source, families, renamed

#: A NaN with the bits that mean: this series has ended.
STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


class RemoteWrite:
    """The encoder of remote write."""

    method = "POST"
    headers: Mapping[str, str] = MappingProxyType(
        {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
            "User-Agent": f"bts-exporter/{bts_exporter.__version__}",
        }
    )

    def __init__(self, source: Source) -> None:
        """Take the labels that every series has."""
        self._source = dict(source._asdict())
        self._before: set[Labels] = set()

    def encode(self, page: bytes, timestamp: float) -> list[bytes]:
        """Return the bodies for a page; series that are gone since the page before get a stale marker."""
        found = self._series(page)
        gone = dict.fromkeys(sorted(self._before - found.keys()), STALE)
        self._before = set(found)
        return _bodies(found | gone, timestamp)

    def end(self, timestamp: float) -> list[bytes]:
        """Return the bodies with a stale marker for each series."""
        gone = dict.fromkeys(sorted(self._before), STALE)
        self._before = set()
        return _bodies(gone, timestamp)

    def rejected(self, _response: bytes) -> tuple[int, str]:
        """Return nothing: version 1.0 takes a batch as a whole."""
        return 0, ""

    def _series(self, page: bytes) -> dict[Labels, float]:
        found: dict[Labels, float] = {}
        for family in families(page):
            for sample in family.samples:
                labels = {"__name__": family.name + sample.suffix, **self._source}
                labels.update(renamed(sample.labels))
                found.setdefault(tuple(sorted(labels.items())), sample.value)
        return found


def _bodies(series: Mapping[Labels, float], timestamp: float) -> list[bytes]:
    milliseconds = round(timestamp * 1000)
    left = iter(series.items())
    bodies = []
    while part := list(islice(left, MAX_SAMPLES)):
        request = WriteRequest()
        for labels, value in part:
            _add(request, labels, value, milliseconds)
        bodies.append(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))
    return bodies


def _add(request: Any, labels: Labels, value: float, milliseconds: int) -> None:
    series = request.timeseries.add()
    for name, text in labels:
        series.labels.add(name=name, value=text)
    series.samples.add(value=value, timestamp=milliseconds)
