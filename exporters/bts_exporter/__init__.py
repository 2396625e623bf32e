"""The API for authors of collectors; everything else in this package is private to it."""

from bts_exporter import backlog, prometheus_text
from bts_exporter.address_watch import AddressWatch
from bts_exporter.connection_errors import Product, connection_error
from bts_exporter.errors import NothingToRead, NotPresent, Reason, TargetError
from bts_exporter.histogram_accumulator import HistogramAccumulator
from bts_exporter.http_client import HttpClient
from bts_exporter.http_response import ByteBudget, HttpRequest, HttpResponse
from bts_exporter.matches import Match
from bts_exporter.metric import Kind, Metric, Template, counter, gauge, histogram, summary, untyped
from bts_exporter.name_filter import NameFilter
from bts_exporter.plugin import Collector, CollectorConfig, Command
from bts_exporter.sample_check import check_samples
from bts_exporter.scrape import Scrape
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Duration, Secret, Url
from bts_exporter.stored_state import Restored

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
    "HttpRequest",
    "HttpResponse",
    "Kind",
    "Match",
    "Metric",
    "NameFilter",
    "NotPresent",
    "NothingToRead",
    "Product",
    "Reason",
    "Restored",
    "Scrape",
    "Secret",
    "TLSConfig",
    "TargetError",
    "Template",
    "Url",
    "__version__",
    "backlog",
    "check_samples",
    "connection_error",
    "counter",
    "gauge",
    "histogram",
    "prometheus_text",
    "summary",
    "untyped",
]
