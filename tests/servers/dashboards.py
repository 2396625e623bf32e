"""The queries of a dashboard, asked of a real Prometheus."""

from __future__ import annotations

import math
from typing import Any

from grafana.queries import Query, queries
from servers import wait_until
from servers.prometheus import Prometheus


def wait_for_data(prometheus: Prometheus, board: dict[str, Any], seconds: float = 90.0) -> None:
    """Return when each panel and variable has data; AssertionError naming dashboard, panel and expression."""
    asked = list(queries(board))

    def all_answered() -> bool:
        asked[:] = [query for query in asked if not _has_data(prometheus, query)]
        return not asked

    try:
        wait_until(all_answered, "every query returns data", seconds)
    except AssertionError as error:
        for query in asked:
            error.add_note(f"no data: {query}")
        raise


def _has_data(prometheus: Prometheus, query: Query) -> bool:
    """Return whether a query has a value that is not NaN, such as a quantile of nothing."""
    return any(not math.isnan(value) for _, value in prometheus.query(query.expr))
