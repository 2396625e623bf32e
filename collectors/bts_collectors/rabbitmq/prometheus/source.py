"""RabbitMQ's own Prometheus endpoint (rabbitmq_prometheus), as the only source or an additional one.

It has more metrics of its node than the management API, and none of the other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus

from bts_collectors.rabbitmq.api.client import EXPORTER
from bts_collectors.rabbitmq.api.models import Overview, Queue, depth
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.metrics import backlog, exchanges, nodes, overview, queues, streams
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_collectors.rabbitmq.prometheus.queues import (
    DETAILED_PATH,
    may_be_stream,
    queues_of,
    stream_lags,
)
from bts_exporter import (
    HttpClient,
    HttpResponse,
    Kind,
    Metric,
    Reason,
    Scrape,
    TargetError,
    prometheus_text,
)

Family = prometheus_text.Family
Sample = prometheus_text.Sample

PATH = "/metrics"
#: Value of the label `rabbitmq_endpoint` if the page does not have it (before RabbitMQ 4.0).
ENDPOINT = "aggregated"
IDENTITY = "rabbitmq_identity_info"
BUILD = "rabbitmq_build_info"
#: Labels of IDENTITY: of the cluster, and of the node, which counts its own queues.
_NAMES = ("rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_node")

#: Families that our other sources have, too: they are emitted as the same metrics, with the label node.
_OWN_METRICS: dict[str, Metric] = {
    metric.name: metric
    for table in (overview.OBJECTS, overview.IN, overview.OUT, nodes.FIELDS, nodes.ALARMS)
    for metric in table.values()
} | {
    metric.name: metric
    for metric in (
        overview.CONSUMERS,
        overview.CHANNEL_CONSUMERS,
        overview.CHANNEL_UNACKED,
        nodes.UPTIME,
        nodes.FD_ALARM,
        nodes.LINK,
        exchanges.PUBLISHED,
        streams.MAX_OFFSET_LAG,
    )
}
#: Families of the Erlang process and of the endpoint: our exporter has metrics of these names.
_OF_THE_PROCESS = ("process_", "telemetry_")
#: Sums over open connections and channels: as counters they fall when a client disconnects.
_SHORT_LIVED = ("rabbitmq_channel_", "rabbitmq_connection_")
#: Sums over queues, which are also available by queue; those of the index belong to the node.
_QUEUES, _INDEX = "rabbitmq_queue_", "rabbitmq_queue_index_"
#: Families of a page: RabbitMQ has a few hundred; parsed, they take more memory than their text.
MAX_FAMILIES = 10_000
#: Bytes of an invalid page that are quoted.
_MAX_QUOTED = 40
_REASONS: dict[int, Reason] = {HTTPStatus.UNAUTHORIZED: "auth", HTTPStatus.FORBIDDEN: "noperm"}
_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}

#: Returns whether a queue is emitted.
QueueFilter = Callable[[Queue], bool]


class PrometheusSource:
    """The endpoint of one node; families that we do not know are passed on unchanged."""

    def __init__(
        self, client: HttpClient, clock: Callable[[], float], is_selected: QueueFilter | None = None
    ) -> None:
        """Send requests through `client`; `clock` returns Unix time.

        Without `is_selected`, no queues are emitted: they come from another source.
        """
        self._client = client
        self._clock = clock
        self._is_selected = is_selected
        self.lags = Lags()
        #: Metrics of the previous scrape: reusing them lets the engine reuse their rendered series.
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of the node; TargetError with all failures."""
        batch, page = self.request_page(scrape)
        self.collect_rest(scrape, batch, page)

    def request_page(self, scrape: Scrape) -> tuple[RequestBatch, list[Family] | None]:
        """Request the metrics of the node; the page is None if that failed."""
        batch = RequestBatch(self._client, scrape.remaining())
        return batch, batch.get_with(PATH, read_page)

    def collect_rest(self, scrape: Scrape, batch: RequestBatch, page: list[Family] | None) -> None:
        """Request the queues and emit everything; TargetError with all failures."""
        if self._is_selected is not None:
            scrape.emit(overview.UP, page is not None)
            if page is not None:
                self._identify(page)
                self._collect_queues(scrape, batch, self._is_selected)
        if page is not None:
            self._emit_page(scrape, page)
        batch.failures.raise_all()

    def close(self) -> None:
        """Close the connection and interrupt a running collection; called from another thread."""
        self._client.close()

    def _identify(self, page: Iterable[Family]) -> None:
        """Restore the histories of the node's queues."""
        labels = first_labels(next((family for family in page if family.name == IDENTITY), None))
        if names := " ".join(labels[name] for name in _NAMES if name in labels):
            self.lags.identify(f"cluster {names} ({EXPORTER.product.name})")

    def _collect_queues(
        self, scrape: Scrape, batch: RequestBatch, is_selected: QueueFilter
    ) -> None:
        page = batch.get_with(DETAILED_PATH, read_page) or []
        found = [queue for queue in queues_of(page) if is_selected(queue)]
        now = self._clock()
        # The length of a stream's log is not a backlog.
        lags = self.lags.observe([queue for queue in found if not may_be_stream(queue)], now)
        # `max_series` drops the last samples: the deepest queues come first.
        found.sort(key=depth, reverse=True)
        with_lag = [queue for queue in found if (queue.vhost, queue.name) in lags]
        backlog.emit_backlogs(scrape, with_lag, lags)
        backlog.emit_flows(scrape, with_lag, lags)
        for queue in found:
            queues.emit_queue(scrape, queue, now)
        queues.emit_detailed(scrape, found)
        for vhost, name, lag_of_stream in stream_lags(page):
            if is_selected(Queue(name=name, vhost=vhost)):
                scrape.emit(streams.MAX_OFFSET_LAG, lag_of_stream, vhost, name)

    def _emit_page(self, scrape: Scrape, page: Iterable[Family]) -> None:
        """Emit the families that another source has not emitted: its values cover the whole cluster."""
        named = {family.name: family for family in page}
        identity, build = (first_labels(named.pop(name, None)) for name in (IDENTITY, BUILD))
        is_only_source = not scrape.has(overview.IDENTITY)
        if is_only_source:
            emit_names(scrape, identity, build)
        emit_unroutable(scrape, named)
        own = {
            "node": identity.get("rabbitmq_node", ""),
            "rabbitmq_cluster": identity.get("rabbitmq_cluster", ""),
        }
        known, self._metrics = self._metrics, {}
        for family in filter(is_useful, named.values()):
            ours = _OWN_METRICS.get(family.name)
            if ours is None:
                self._pass_on(scrape, family, known)
            elif is_only_source or not scrape.has(ours):
                emit_as(scrape, ours, family, own)
            elif "protocol" in ours.labels:
                emit_other_protocols(scrape, ours, family, own)

    def _pass_on(
        self, scrape: Scrape, family: Family, known: dict[tuple[str, ...], Metric]
    ) -> None:
        # Some versions write the same series twice (rabbitmq-server#9664).
        unique = {
            (sample.suffix, *sorted(sample.labels.items())): sample
            for sample in family.samples
            if "channel" not in sample.labels
        }
        found = list(unique.values())
        bound = _BOUNDS.get(family.kind, "")
        names = sorted({name for sample in found for name in sample.labels} - {bound})
        key = (family.name, family.kind, family.help, *names)
        metric = known.get(key) or Metric(family.name, family.help, family.kind, names)
        self._metrics[key] = metric
        pairs: list[tuple[tuple[str, ...], float]] = []
        for sample in found:
            labels = tuple(sample.labels.get(name, "") for name in names)
            if bound:
                ends = (sample.labels[bound],) if bound in sample.labels else ()
                labels = (sample.suffix, *labels, *ends)
            pairs.append((labels, sample.value))
        scrape.emit_family(metric, pairs)


def read_page(response: HttpResponse) -> list[Family]:
    """Return the families of a response; TargetError if it is not a page of RabbitMQ's exporter."""
    if response.status != HTTPStatus.OK:
        cure = f"is this the port of {EXPORTER.product.name} ({EXPORTER.port})?"
        reason = _REASONS.get(response.status, "protocol")
        raise TargetError(reason, f"{response.address}: HTTP {response.status}: {cure}")
    if response.body.count(b"\n# ") > 2 * MAX_FAMILIES:  # a line for type and help each
        what = f"{response.address}: the page has more than {MAX_FAMILIES} metrics"
        raise TargetError(reason="protocol", message=what)
    found = prometheus_text.parse(response.body.decode(errors="replace"), strict=False)
    if not any(family.name == BUILD for family in found):
        begin = bytes(response.body[:_MAX_QUOTED])
        what = f"{response.address}: unexpected reply, not from {EXPORTER.product.name} (it begins with {begin!r})"
        raise TargetError(reason="protocol", message=what)
    return found


def is_useful(family: Family) -> bool:
    """Return whether a family is correct and not available elsewhere."""
    name = family.name
    if name.startswith(_QUEUES) and not name.startswith(_INDEX):
        return False
    if name.startswith(_SHORT_LIVED):
        return family.kind is Kind.GAUGE
    return not name.startswith(_OF_THE_PROCESS)


def fitting(
    metric: Metric, found: Iterable[Sample], own: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield label values and value of the samples that have all labels of `metric`.

    `own` are the node's values of labels that the sample does not have.
    """
    for sample in found:
        labels = {**own, **sample.labels}
        if labels.keys() >= set(metric.labels):
            yield tuple(labels[name] for name in metric.labels), sample.value


def emit_as(scrape: Scrape, metric: Metric, family: Family, own: Mapping[str, str]) -> None:
    """Emit a family as our `metric`, each series once."""
    for labels, value in dict(fitting(metric, family.samples, own)).items():
        scrape.emit(metric, value, *labels)


def emit_other_protocols(
    scrape: Scrape, metric: Metric, family: Family, own: Mapping[str, str]
) -> None:
    """Emit the protocols that the management API does not count: all but AMQP 0-9-1."""
    index = metric.labels.index("protocol")
    for labels, value in dict(fitting(metric, family.samples, own)).items():
        if labels[index] != overview.PROTOCOL:
            scrape.emit(metric, value, *labels)


def emit_unroutable(scrape: Scrape, named: Mapping[str, Family]) -> None:
    """Emit unroutable messages, summed over protocols, under the names that public rules use.

    The page has metrics of these names, too, but they fall when a channel is closed.
    """
    for field, metric in overview.UNROUTABLE.items():
        family = named.get(overview.IN[field].name)
        if family is not None and not scrape.has(metric):
            scrape.emit(metric, sum(sample.value for sample in family.samples))


def first_labels(family: Family | None) -> dict[str, str]:
    """Return the labels of the first sample of a family, empty if there is none."""
    return next((sample.labels for sample in family.samples), {}) if family else {}


def emit_names(scrape: Scrape, identity: dict[str, str], build: dict[str, str]) -> None:
    """Emit identity and versions of the node."""
    model = Overview(
        node=identity.get("rabbitmq_node"),
        cluster_name=identity.get("rabbitmq_cluster"),
        rabbitmq_version=build.get("rabbitmq_version"),
        erlang_version=build.get("erlang_version"),
        product_name=build.get("product_name"),
        product_version=build.get("product_version"),
    )
    endpoint = identity.get("rabbitmq_endpoint", ENDPOINT)
    permanent_id = identity.get("rabbitmq_cluster_permanent_id", "")
    overview.emit_identity(scrape, model, endpoint, permanent_id)
    overview.emit_builds(scrape, model, ())
