"""Many exporters in one process: pages of a real exporter, whose values go on as they did between two scrapes.

python benchmarks/fleet_exporters.py FIRST.txt SECOND.txt SECONDS PORT ADDRESS...
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from isal import igzip

_LOWEST_LEVEL = 0  # as the exporter compresses


class Series:
    """A sample of the page: the text before its value, the value, and its change per second."""

    __slots__ = ("is_counter", "rate", "start", "text")

    def __init__(self, text: str, start: float, rate: float, *, is_counter: bool) -> None:
        self.text = text
        self.start = start
        self.rate = rate
        self.is_counter = is_counter

    def at(self, seconds: float, factor: float) -> float:
        """Return the value after some time; gauges that changed go up and down."""
        if self.is_counter:
            return self.start + round(self.rate * factor * seconds, 3)
        return self.start + self.rate * random.random() if self.rate else self.start


def series_of(first: str, second: str, seconds: float) -> Iterator[str | Series]:
    """Yield the lines of a page: those that stay as text, those that change as Series."""
    later = dict(line.rsplit(" ", 1) for line in second.splitlines() if not line.startswith("#"))
    kind = ""
    for line in first.splitlines():
        if line.startswith("# TYPE"):
            kind = line.rsplit(" ", 1)[1]
        name, _, value = line.rpartition(" ")
        before, after = float("nan"), float("nan")
        if not line.startswith("#") and name in later:
            before, after = float(value), float(later[name])
        if before == after or before != before or after != after:  # noqa: PLR0124  # NaN
            yield f"{line}\n"
        else:
            is_counter = kind in {"counter", "histogram", "summary"}
            yield Series(f"{name} ", before, (after - before) / seconds, is_counter=is_counter)


class Exporters:
    """Answers scrapes of all addresses; each machine has its own speed."""

    def __init__(self, lines: list[str | Series]) -> None:
        self._lines = lines
        self._start = time.monotonic()

    def page(self, machine: int) -> bytes:
        """Return the page of a machine now."""
        seconds, factor = time.monotonic() - self._start, 0.5 + machine % 97 / 97
        return "".join(
            line if isinstance(line, str) else f"{line.text}{line.at(seconds, factor):.12g}\n"
            for line in self._lines
        ).encode()

    async def answer(
        self, machine: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one connection."""
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                body = igzip.compress(self.page(machine), _LOWEST_LEVEL)
                head = (
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                    f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def serve(exporters: Exporters, addresses: list[str], port: int) -> None:
    """Serve until the process ends."""
    for number, address in enumerate(addresses):

        async def connected(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: int = number
        ) -> None:
            await exporters.answer(machine, reader, writer)

        await asyncio.start_server(connected, address, port)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve the pages that the command line names."""
    first, second, seconds, port, *addresses = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lines = list(series_of(Path(first).read_text(), Path(second).read_text(), float(seconds)))
    asyncio.run(serve(Exporters(lines), addresses, int(port)))


if __name__ == "__main__":
    main()
