"""Files of lines `name number`, whose names stay from scrape to scrape: what they mean is decided once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bts_collectors.host.kernel.files import DIGITS, MOST, is_number, lines, unreadable
from bts_exporter import Metric, Scrape


class Pairs:
    """Emits the numbers of such a file that are wanted."""

    def __init__(self, metric_of: Callable[[bytes], Metric | None]) -> None:
        """Take what gives the metric of a name; None where it is not wanted."""
        self._metric_of = metric_of
        self._names: list[bytes] = []
        #: Where the wanted numbers are, among all words.
        self._wanted: list[tuple[int, Metric]] = []

    def emit(self, scrape: Scrape, content: bytes) -> None:
        """Emit the numbers, but for those too large to be one: below 0 without their sign.

        ValueError at the end, for the first line that is no such pair.
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
            for place, metric in self._wanted:
                number = int(words[place])
                if number < MOST:
                    scrape.emit(metric, number)
            return
        self._names, self._wanted = [], []
        self._learn(scrape, content)
        if content.endswith(b"\n"):
            self._names = words[::2]

    def _learn(self, scrape: Scrape, content: bytes) -> None:
        for place, (name, value) in enumerate(parse(content)):
            metric = self._metric_of(name)
            if metric is not None:
                self._wanted.append((2 * place + 1, metric))
                if value < MOST:
                    scrape.emit(metric, value)


def parse(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield `(name, number)`; ValueError at the end, for the first line that is no such pair."""
    rows = lines(content)
    bad = None if rows else content
    for line in rows:
        words = line.split()
        if len(words) == 2 and is_number(words[1]):  # noqa: PLR2004  # name and number
            yield words[0], int(words[1])
        else:
            bad = bad or line
    if bad is not None:
        raise unreadable(bad)
