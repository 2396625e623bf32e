"""Counts of what was pushed, for the exporter's own metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

#: Why a batch is dropped, as the value of the `reason` label.
DropReason = Literal[
    "damaged",  # its file cannot be used
    "full",  # the buffer has no room for it
    "old",  # it waited longer than --buffer-age
    "refused",  # the receiver refuses its content
]
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)


@dataclass(slots=True)
class PushTotals:
    """The counts of a process that pushes; a batch is one request's content."""

    #: Unix time of the last acknowledged batch; 0 if there is none.
    last_success: float = 0.0
    batches: int = 0
    #: Failed requests by reason.
    failures: Counter[str] = field(default_factory=Counter)
    #: Dropped batches by reason.
    dropped: Counter[str] = field(default_factory=Counter)
    #: Samples that the receiver refused in a batch that it took.
    rejected_samples: int = 0
    buffered_batches: int = 0
    buffered_bytes: int = 0
