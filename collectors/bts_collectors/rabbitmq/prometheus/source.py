"""A node's own Prometheus endpoint (rabbitmq_prometheus), as the source or beside the management API.

It tells more of its node than the management API does, and nothing of the cluster's other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus

from bts_collectors.rabbitmq.api.client import EXPORTER
from bts_collectors.rabbitmq.api.models import Overview, Queue, depth
from bts_collectors.rabbitmq.api.requests import Round
from bts_collectors.rabbitmq.metrics import backlog, exchanges, nodes, overview, queues, streams
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_collectors.rabbitmq.prometheus.parser import Family, Sample, families, samples
from bts_collectors.rabbitmq.prometheus.queues import (
    DETAILED_PATH,
    may_be_stream,
    queues_of,
    stream_lags,
)
from bts_exporter import HttpClient, HttpResponse, Kind, Metric, Reason, Scrape, TargetError

#: The part of the time left after which a target that does not answer is reported.
PATIENCE = 0.95

PATH = "/metrics"
#: What `rabbitmq_endpoint` is where the page, before RabbitMQ 4.0, does not say it.
ENDPOINT = "aggregated"
IDENTITY = "rabbitmq_identity_info"
BUILD = "rabbitmq_build_info"

#: Families that are ours, too: emitted as ours are, with the node's name where ours have it.
_OURS: dict[str, Metric] = {
    metric.name: metric
    for table in (overview.OBJECTS, overview.IN, overview.OUT, nodes.FIELDS, nodes.ALARMS)
    for metric in table.values()
} | {
    metric.name: metric
    for metric in (
        overview.CONSUMERS,
        nodes.UPTIME,
        exchanges.PUBLISHED,
        streams.MAX_OFFSET_LAG,
    )
}
#: Of the Erlang process and of the endpoint itself: the exporter has such metrics of its own.
_FOREIGN = ("process_", "telemetry_")
#: Sums over what comes and goes: as counters they fall when a client leaves.
_FLEETING = ("rabbitmq_channel_", "rabbitmq_connection_")
#: Sums over queues that are there one by one, but for those of this prefix, which are of the node.
_QUEUES, _INDEX = "rabbitmq_queue_", "rabbitmq_queue_index_"
#: Metrics of a page: RabbitMQ has some hundred, and each takes more memory than its text.
MAX_FAMILIES = 10_000
#: As much of an unreadable answer as shows what it is.
_MAX_BEGIN = 40
_REASONS: dict[int, Reason] = {HTTPStatus.UNAUTHORIZED: "auth", HTTPStatus.FORBIDDEN: "noperm"}
_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}

#: Whether a queue is to be shown.
Wanted = Callable[[Queue], bool]


class Native:
    """A node's endpoint; families that are not ours are passed on under their own names."""

    def __init__(
        self, client: HttpClient, clock: Callable[[], float], wanted: Wanted | None = None
    ) -> None:
        """Ask through `client`: for queues that are `wanted`, or for none beside another source.

        `clock` gives Unix time.
        """
        self._client = client
        self._clock = clock
        self._wanted = wanted
        self._lags = Lags()
        #: The metrics of the scrape before: the engine remembers how their series are written.
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit what the node tells; TargetError names what failed."""
        asked, page = self.begin(scrape)
        self.go_on(scrape, asked, page)

    def begin(self, scrape: Scrape) -> tuple[Round, list[Family] | None]:
        """Ask for the page on the node."""
        asked = Round(self._client, PATIENCE * scrape.remaining())
        return asked, asked.ask(PATH, read_page)

    def go_on(self, scrape: Scrape, asked: Round, page: list[Family] | None) -> None:
        """Ask for the rest and emit all; TargetError names what failed."""
        if self._wanted is not None:
            scrape.emit(overview.UP, page is not None)
            if page is not None:
                self._collect_queues(scrape, asked, self._wanted)
        if page is not None:
            self._emit_page(scrape, page)
        asked.end()

    def close(self) -> None:
        """Close the connection, and break off a collection under way."""
        self._client.close()

    def _collect_queues(self, scrape: Scrape, asked: Round, wanted: Wanted) -> None:
        page = asked.ask(DETAILED_PATH, read_page) or []
        found = [queue for queue in queues_of(page) if wanted(queue)]
        now = self._clock()
        # The length of a stream's log is no backlog.
        lags = self._lags.observe([queue for queue in found if not may_be_stream(queue)], now)
        # Of more series than `max_series` allows, those of the deepest queues are served.
        found.sort(key=depth, reverse=True)
        followed = [queue for queue in found if (queue.vhost, queue.name) in lags]
        backlog.emit_backlogs(scrape, followed, lags)
        backlog.emit_flows(scrape, followed, lags)
        for queue in found:
            queues.emit_queue(scrape, queue, now)
        queues.emit_detailed(scrape, found)
        for vhost, name, lag_of_stream in stream_lags(page):
            if wanted(Queue(name=name, vhost=vhost)):
                scrape.emit(streams.MAX_OFFSET_LAG, lag_of_stream, vhost, name)

    def _emit_page(self, scrape: Scrape, page: Iterable[Family]) -> None:
        """Emit what another source did not: its values are of the whole cluster."""
        named = {family.name: family for family in page}
        identity, build = (first_labels(named.pop(name, None)) for name in (IDENTITY, BUILD))
        alone = overview.IDENTITY not in scrape.samples
        if alone:
            emit_names(scrape, identity, build)
            emit_unroutable(scrape, named)
        node = identity.get("rabbitmq_node", "")
        known, self._metrics = self._metrics, {}
        for family in filter(is_wanted, named.values()):
            ours = _OURS.get(family.name)
            if ours is None:
                self._pass_on(scrape, family, known)
            elif alone or ours not in scrape.samples:
                emit_ours(scrape, ours, family, node)
            elif "protocol" in ours.labels:
                emit_other_protocols(scrape, ours, family, node)

    def _pass_on(
        self, scrape: Scrape, family: Family, known: dict[tuple[str, ...], Metric]
    ) -> None:
        # Some versions list the same series twice (rabbitmq-server#9664).
        unique = {
            (sample.name, *sorted(sample.labels.items())): sample
            for sample in samples(family.lines)
            if "channel" not in sample.labels
        }
        found = list(unique.values())
        bound = _BOUNDS.get(family.kind, "")
        names = sorted({name for sample in found for name in sample.labels} - {bound})
        key = (family.name, family.kind, family.help, *names)
        metric = known.get(key) or Metric(family.name, family.help, family.kind, names)
        self._metrics[key] = metric
        for sample in found:
            labels = tuple(sample.labels.get(name, "") for name in names)
            if bound:
                suffix = sample.name.removeprefix(family.name)
                ends = (sample.labels[bound],) if bound in sample.labels else ()
                labels = (suffix, *labels, *ends)
            scrape.put(metric, labels, sample.value)


def read_page(answer: HttpResponse) -> list[Family]:
    """Return the families of an answer; TargetError where it is no page of RabbitMQ's."""
    if answer.status != HTTPStatus.OK:
        cure = f"is this the port of {EXPORTER.product.name} ({EXPORTER.port})?"
        reason = _REASONS.get(answer.status, "protocol")
        raise TargetError(reason, f"{answer.address}: HTTP {answer.status}: {cure}")
    if answer.body.count(b"# TYPE ") > MAX_FAMILIES:
        what = f"{answer.address}: a page of more than {MAX_FAMILIES} metrics"
        raise TargetError(reason="protocol", message=what)
    found = list(families(answer.body.decode(errors="replace")))
    if not any(family.name == BUILD for family in found):
        begin = bytes(answer.body[:_MAX_BEGIN])
        what = f"{answer.address}: no page of {EXPORTER.product.name} (it begins with {begin!r})"
        raise TargetError(reason="protocol", message=what)
    return found


def is_wanted(family: Family) -> bool:
    """Return whether a family adds something that is true."""
    name = family.name
    if name.startswith(_QUEUES) and not name.startswith(_INDEX):
        return False
    if name.startswith(_FLEETING):
        return family.kind is Kind.GAUGE
    return not name.startswith(_FOREIGN)


def fitting(
    metric: Metric, found: Iterable[Sample], node: str
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the samples that have the labels of `metric`, in its order; `node` is the node's name."""
    for sample in found:
        labels = {"node": node, **sample.labels}
        if labels.keys() >= set(metric.labels):
            yield tuple(labels[name] for name in metric.labels), sample.value


def emit_ours(scrape: Scrape, metric: Metric, family: Family, node: str) -> None:
    """Emit a family as the metric of ours that it is, each series once."""
    for labels, value in dict(fitting(metric, samples(family.lines), node)).items():
        scrape.emit(metric, value, *labels)


def emit_other_protocols(scrape: Scrape, metric: Metric, family: Family, node: str) -> None:
    """Emit the protocols that the management API does not count: those without AMQP channels."""
    index = metric.labels.index("protocol")
    for labels, value in dict(fitting(metric, samples(family.lines), node)).items():
        if labels[index] != overview.PROTOCOL:
            scrape.emit(metric, value, *labels)


def emit_unroutable(scrape: Scrape, named: Mapping[str, Family]) -> None:
    """Emit what could not be routed under the names that public rules use.

    Summed over protocols: the page's own of these names fall when a channel is closed.
    """
    for field, metric in overview.UNROUTABLE.items():
        family = named.get(overview.IN[field].name)
        if family is not None:
            scrape.emit(metric, sum(sample.value for sample in samples(family.lines)))


def first_labels(family: Family | None) -> dict[str, str]:
    """Return the labels of a family that has one sample."""
    return next((sample.labels for sample in samples(family.lines)), {}) if family else {}


def emit_names(scrape: Scrape, identity: dict[str, str], build: dict[str, str]) -> None:
    """Emit who answers, as the page has it."""
    shape = Overview(
        node=identity.get("rabbitmq_node"),
        cluster_name=identity.get("rabbitmq_cluster"),
        rabbitmq_version=build.get("rabbitmq_version"),
        erlang_version=build.get("erlang_version"),
        product_name=build.get("product_name"),
        product_version=build.get("product_version"),
    )
    endpoint = identity.get("rabbitmq_endpoint", ENDPOINT)
    permanent_id = identity.get("rabbitmq_cluster_permanent_id", "")
    overview.emit_identity(scrape, shape, endpoint, permanent_id)
    overview.emit_builds(scrape, shape, ())
