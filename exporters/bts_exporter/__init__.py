"""The API for authors of collectors; everything else in this package is private to it."""

from bts_exporter import backlog
from bts_exporter.address_watch import AddressWatch
from bts_exporter.connection_errors import Product, connection_error
from bts_exporter.errors import NothingToRead, Reason, TargetError
from bts_exporter.histogram_accumulator import HistogramAccumulator
from bts_exporter.http_client import HttpClient
from bts_exporter.http_response import ByteBudget, HttpResponse
from bts_exporter.matches import Match
from bts_exporter.plugin import (
    Collector,
    CollectorConfig,
    Command,
    Kind,
    Metric,
    Scrape,
    Template,
    counter,
    gauge,
    histogram,
    summary,
    untyped,
)
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Duration, Secret, Url

__version__ = "0.1.0"

__all__ = [
    "AddressWatch",
    "ByteBudget",
    "Collector",
    "CollectorConfig",
    "Command",
    "Duration",
    "HistogramAccumulator",
    "HttpClient",
    "HttpResponse",
    "Kind",
    "Match",
    "Metric",
    "NothingToRead",
    "Product",
    "Reason",
    "Scrape",
    "Secret",
    "TLSConfig",
    "TargetError",
    "Template",
    "Url",
    "__version__",
    "backlog",
    "connection_error",
    "counter",
    "gauge",
    "histogram",
    "summary",
    "untyped",
]
