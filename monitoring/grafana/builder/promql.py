"""Parts of PromQL expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: What every dashboard filters by.
INSTANCE = 'instance=~"$instance"'
#: What a dashboard of one kind of broker filters by: targets without a name have no label `target`.
TARGET = 'target=~"$target"'
#: Targets that monitor the same brokers as another one on purpose have the label `replica`.
REPLICA, NO_REPLICA = 'replica!=""', 'replica=""'


class Selection(NamedTuple):
    """The series of a dashboard: label matchers that are part of every selector."""

    matchers: tuple[str, ...]

    def __call__(self, metric: str, *more: str) -> str:
        """Return a selector of `metric`."""
        return f"{metric}{{{','.join((*self.matchers, *more))}}}"

    def once(self, metric: str) -> str:
        """Return a selector of `metric` in which two replicas of an exporter are one series, the larger of the two."""
        joined = f"max without (instance, pod, replica) ({self(metric, REPLICA)})"
        return f"({joined} or {self(metric, NO_REPLICA)})"

    def rate(self, metric: str, *more: str) -> str:
        """Return the rate per second of a counter, over the interval that suits the zoom."""
        return f"rate({self(metric, *more)}[$__rate_interval])"

    def increase(self, metric: str, period: str, *more: str) -> str:
        """Return the increase of a counter over `period`."""
        return f"increase({self(metric, *more)}[{period}])"


def by(labels: Sequence[str], expr: str, operator: str = "sum") -> str:
    """Return `expr` aggregated to `labels`."""
    return f"{operator} by ({', '.join(labels)}) ({expr})"


def largest(expr: str) -> str:
    """Return the 20 largest series of `expr` at each time: a graph of thousands of queues would show none."""
    return f"topk(20, {expr})"


def count_where(condition: str, among: str) -> str:
    """Return how many series of `among` meet `condition`: 0 if none does, no sample if there are no series."""
    return f"count({condition}) or 0 * count({among})"


def fill(labels: Sequence[str], expr: str) -> str:
    """Return `expr` with `-` in place of missing labels.

    All queries of a table need the same labels, because Grafana joins their rows by the labels that all have.
    """
    for label in labels:
        expr = f'label_replace({expr}, "{label}", "-", "{label}", "")'
    return expr
