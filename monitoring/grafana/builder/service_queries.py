"""Queries and limits of the BTS service that several of its panels have."""

from __future__ import annotations

from grafana.builder.panels import GREEN, ORANGE, RED, Limits
from grafana.builder.promql import Selection, by

JOB = ("job",)

# The limits are those of the alerts in monitoring/prometheus/rules.
LAG: Limits = ((None, GREEN), (60, ORANGE), (300, RED))
PSI: Limits = ((None, GREEN), (0.1, ORANGE), (0.25, RED))
SHARE_OF_STATIONS: Limits = ((None, GREEN), (0.05, ORANGE), (0.1, RED))
SHARE_OF_READINGS: Limits = ((None, GREEN), (0.01, ORANGE), (0.05, RED))
AGAINST_NO_CHANGE: Limits = ((None, GREEN), (1, ORANGE), (1.05, RED))

#: The service's processes, whatever their job is called.
one = Selection(('job=~"$service"',))


def total(metric: str, *more: str) -> str:
    """Return the rate of a counter, by service."""
    return by(JOB, one.rate(metric, *more))


def mean(summary: str) -> str:
    """Return the mean of what a summary counts, by service."""
    return f"{total(f'{summary}_sum')} / {total(f'{summary}_count')}"


def quantile(share: float, histogram: str, *labels: str) -> str:
    """Return a quantile of a histogram, by service and `labels`."""
    buckets = by((*JOB, *labels, "le"), one.rate(f"{histogram}_bucket"))
    return f"histogram_quantile({share}, {buckets})"


STATIONS = f"({by(JOB, one('bts_stations_reporting'))} + {by(JOB, one('bts_stations_stale'))})"
ERROR_RATIO = f"{total('bts_prediction_abs_error_sum')} / {total('bts_persistence_abs_error_sum')}"
BAD = total("bts_readings_total", 'quality!="valid"')
READINGS = total("bts_readings_total")
#: A quality that no reading has had yet has no series.
BAD_SHARE = f"({BAD} or 0 * {READINGS}) / {READINGS}"
