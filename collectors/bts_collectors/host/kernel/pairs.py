"""Files with lines `name number`. Names rarely change, so their metrics are looked up only when they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bts_collectors.host.kernel.files import DIGITS, MAX_COUNT, is_number, lines, unexpected_content
from bts_exporter import Metric, Scrape


class Pairs:
    """Emits the selected numbers of such a file."""

    def __init__(self, metric_of: Callable[[bytes], Metric | None]) -> None:
        """Take a function that returns the metric for a name; None for a name that is not selected."""
        self._metric_of = metric_of
        self._names: list[bytes] = []
        #: Position of each selected number among all words, and its metric.
        self._selected: list[tuple[int, Metric]] = []

    def emit(self, scrape: Scrape, content: bytes) -> None:
        """Emit the selected numbers, without negative ones that are printed as unsigned.

        Raises ValueError at the end, for the first line of another format.
        """
        words = content.split()
        numbers = words[1::2]
        if (
            self._names
            and words[::2] == self._names
            and len(numbers) == len(self._names) == content.count(b"\n")
            and content.endswith(b"\n")
            and b"".join(numbers).isdigit()
            and max(map(len, numbers)) <= DIGITS
        ):
            for position, metric in self._selected:
                number = int(words[position])
                if number < MAX_COUNT:
                    scrape.emit(metric, number)
            return
        self._names, self._selected = [], []
        self._learn(scrape, content)
        if content.endswith(b"\n"):
            self._names = words[::2]

    def _learn(self, scrape: Scrape, content: bytes) -> None:
        for line, (name, value) in enumerate(parse(content)):
            metric = self._metric_of(name)
            if metric is not None:
                self._selected.append((2 * line + 1, metric))
                if value < MAX_COUNT:
                    scrape.emit(metric, value)


def parse(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield `(name, number)` of each line; ValueError at the end, for the first line of another format."""
    rows = lines(content)
    bad = None if rows else content
    for line in rows:
        words = line.split()
        if len(words) == 2 and is_number(words[1]):  # noqa: PLR2004  # name and number
            yield words[0], int(words[1])
        else:
            bad = bad or line
    if bad is not None:
        raise unexpected_content(bad)
