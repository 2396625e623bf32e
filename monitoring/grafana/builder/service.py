"""The BTS service: whether its predictions are late, and whether they are right."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from grafana.builder import predictions
from grafana.builder.board import Section, assemble, instance, query_variable
from grafana.builder.panels import (
    ANY_IS_BAD,
    GREEN,
    ORANGE,
    RED,
    UP,
    YES,
    Limits,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, Selection, by, count_where, largest
from grafana.builder.service_queries import (
    AGAINST_NO_CHANGE,
    BAD_SHARE,
    ERROR_RATIO,
    JOB,
    LAG,
    PSI,
    SHARE_OF_READINGS,
    one,
    quantile,
    total,
)
from grafana.builder.tables import Column, rows

UID = "bts-service"
#: What identifies a queue or stream and its consumer group.
HOP = ("instance", "target", "system", "destination", "group")
HOP_LEGEND = "{{system}} {{destination}} {{group}} {{target}} {{instance}}"
PROBE = ("instance", "target", "probe")
QUANTILES = (0.5, 0.95, 0.99)
DAY = 86400

# The limits are those of the alerts in monitoring/prometheus/rules/bts.yml.
END_TO_END: Limits = ((None, GREEN), (1, ORANGE), (10, RED))
SINCE_TRAINING: Limits = ((None, GREEN), (20 * DAY, ORANGE), (30 * DAY, RED))
MODELS: Limits = ((None, GREEN), (2, RED))

hop = Selection((INSTANCE, 'destination=~"$destination"'))
probe = Selection((INSTANCE,))


def quantiles(histogram: str) -> list[Query]:
    """Return the usual quantiles of a histogram, with their legends."""
    return [
        Query(quantile(share, histogram), f"p{share * 100:.0f} {{{{job}}}}") for share in QUANTILES
    ]


def per_hop(metric: str) -> str:
    """Return a metric of the common vocabulary, by queue or stream."""
    return by(HOP, hop(metric), "max")


PROCESSES = 'up{job=~"$service"}'
#: Those of a service: a process that is down has no other metric, so that the shown period counts.
OURS = f"{PROCESSES} and on (job) last_over_time({one('bts_model_info')}[$__range])"


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Are predictions late, and are they right? Each alert of the BTS service has a panel that names it.",
        [
            query_variable(
                "service",
                "Service",
                "Scrape jobs of Prometheus whose targets are the processes of a BTS service.",
                "label_values(bts_predictions_total, job)",
            ),
            instance("messaging_backlog_messages"),
            query_variable(
                "destination",
                "Hop",
                "Queues and streams between the processes.",
                'label_values(messaging_backlog_messages{instance=~"$instance"}, destination)',
            ),
        ],
        [
            Section("Is it late, and is it right?", _summary()),
            Section("Latency", _latency()),
            Section("Each hop", [_hops(), *_queues()]),
            Section("Readings", predictions.readings()),
            Section("Input drift", predictions.drift()),
            Section("Predictions and alarms", predictions.predictions()),
            Section("Models and processes", [_models(), *_training()]),
        ],
    )


def _summary() -> list[Panel]:
    return [
        number(
            "End to end",
            "Time from the measurement of a reading to its prediction in the REST service; 95 % are faster."
            " If it is red, the table of hops shows where messages wait.",
            units.Seconds,
            Query(quantile(0.95, "bts_end_to_end_latency_seconds"), "{{job}}"),
            limits=END_TO_END,
        ),
        number(
            "Longest lag",
            "Age of the oldest message that waits in a queue or stream between the processes, as the exporter sees it.",
            units.Seconds,
            Query(f"max({hop('messaging_lag_seconds')})", ""),
            limits=LAG,
        ),
        number(
            "Error against no change",
            'Error of the model divided by that of the forecast "no change". Above 1 the last value is the better'
            " prediction: see the section of predictions.",
            units.Short,
            Query(ERROR_RATIO, "{{job}}"),
            limits=AGAINST_NO_CHANGE,
        ),
        number(
            "Drift",
            "Population stability index of the readings against the training data. Above 0.25 the model should be"
            " trained again. It is unknown below 1,000 readings.",
            units.Short,
            Query(by(JOB, one("bts_input_drift_psi"), "max"), "{{job}}"),
            limits=PSI,
        ),
        number(
            "Bad readings",
            "Share of the readings that are not valid. If it is red, the graph of qualities shows what is wrong with them.",
            units.PercentUnit,
            Query(BAD_SHARE, "{{job}}"),
            limits=SHARE_OF_READINGS,
        ),
        number(
            "Processes down",
            "Processes of the service that Prometheus cannot scrape, or the exporter cannot relay; the last table names them."
            " Alert: BtsServiceDown.",
            units.Short,
            Query(count_where(f"({OURS}) == 0 or {one('relay_up')} == 0", OURS), ""),
            limits=ANY_IS_BAD,
        ),
    ]


def _latency() -> list[Panel]:
    return [
        graph(
            "End to end latency",
            "Time from the measurement of a reading to its prediction in the REST service. If it rises, look for the hop"
            " whose lag rises, too. Alert: BtsEndToEndSlow.",
            units.Seconds,
            *quantiles("bts_end_to_end_latency_seconds"),
            limits=END_TO_END,
            width=8,
        ),
        graph(
            "Duration of stages",
            "Duration of the work on a batch (p99), by stage: `predict` is the model, `store` is Redis."
            " If one rises, this is the slow part.",
            units.Seconds,
            Query(quantile(0.99, "bts_prediction_duration_seconds", "stage"), "{{stage}} {{job}}"),
            width=8,
        ),
        graph(
            "Predictions at once",
            "Size of batches (p50, p95, p99) and predictions that are being made. Batches of 64 all the time: the worker"
            " has a backlog.",
            units.Short,
            *quantiles("bts_prediction_batch_size"),
            Query(by(JOB, one("bts_predictions_in_progress")), "in progress {{job}}"),
            width=8,
        ),
        state(
            "Probes",
            "Whether the REST service answers the exporter as a user expects it. If not, the status page of the exporter (/)"
            " shows the reason. Needs `ml_service` in the settings.",
            Query(
                by(PROBE, probe("ml_service_response_valid"), "min"),
                "{{probe}} {{target}} {{instance}}",
            ),
            YES,
            size=(8, 8),
        ),
        graph(
            "Phases of probes",
            "Duration of the exporter's own requests to the REST service, by phase. If only `processing` is long, the service is"
            " slow; if `connect` is, it accepts no more connections, or the network is slow.",
            units.Seconds,
            Query(
                by((*PROBE, "phase"), probe("ml_service_phase_duration_seconds"), "max"),
                "{{probe}} {{phase}} {{target}} {{instance}}",
            ),
            width=16,
        ),
    ]


def _hops() -> Panel:
    return rows(
        "Hops",
        "Each queue and stream between the processes, the latest first: rate in, rate out, and the age of the oldest"
        " waiting message. A lag that is not known is not 0. Click on the exporter to open the dashboard of the broker.",
        HOP,
        [
            Column("Lag", per_hop("messaging_lag_seconds"), units.Seconds, LAG, missing="unknown"),
            Column("Backlog", per_hop("messaging_backlog_messages"), missing="unknown"),
            Column("In flight", per_hop("messaging_in_flight_messages")),
            Column("Consumers", per_hop("messaging_consumers")),
            Column(
                "Rate in",
                by(HOP, hop.rate("messaging_published_messages_total")),
                units.MessagesPerSecond,
            ),
            Column(
                "Rate out",
                by(HOP, hop.rate("messaging_consumed_messages_total")),
                units.MessagesPerSecond,
            ),
        ],
        order="Lag",
        link="bts-${__data.fields.system}",
    )


def _queues() -> list[Panel]:
    return [
        graph(
            "Readings in, predictions out",
            "Readings that the bridge forwards and predictions of the worker, per second. Only grid loads (most readings)"
            " are predicted. Readings without predictions: the worker has stopped."
            " Alerts: BtsNoReadings, BtsNoPredictions, BtsInputBurst.",
            units.EventsPerSecond,
            Query(total("bts_sensors_published_total"), "sent by sensors {{job}}"),
            Query(total("bts_bridge_messages_total"), "readings in {{job}}"),
            Query(
                by((*JOB, "source", "outcome"), one.rate("bts_predictions_total")),
                "predictions out: {{source}} {{outcome}} {{job}}",
            ),
            width=8,
        ),
        graph(
            "Lag at each hop",
            "Age of the oldest waiting message. A gap means that it is not known."
            " The hop where it rises has the slow consumer behind it.",
            units.Seconds,
            Query(largest(per_hop("messaging_lag_seconds")), HOP_LEGEND),
            limits=LAG,
            width=8,
        ),
        graph(
            "Waiting messages",
            "Messages in queues and streams, and those in the processes themselves, which no broker counts: taken by a worker"
            " and not worked on, or taken by the bridge and not confirmed. If one grows, the process behind it is slow.",
            units.Short,
            Query(largest(per_hop("messaging_backlog_messages")), HOP_LEGEND),
            Query(one("bts_worker_backlog_messages"), "in the worker {{job}} {{instance}}"),
            Query(one("bts_bridge_unconfirmed_messages"), "in the bridge {{job}} {{instance}}"),
            width=8,
        ),
    ]


def _models() -> Panel:
    labels = ("job", "instance", "name", "version", "framework", "sha256")
    models = by(labels, one("bts_model_info"), "max")
    loaded = by(labels[:2], one("bts_model_loaded_timestamp_seconds"), "max")
    state = f"{models} * on (job, instance) group_left () {PROCESSES}"
    return rows(
        "Processes",
        "Each process of the service, whether Prometheus can scrape it, and its model. Sensors and bridge have none."
        " If a process is DOWN, read its log. Alert: BtsServiceDown.",
        labels,
        [
            Column(
                "State",
                f"{state} or on (job, instance) ({OURS})",
                texts=UP,
                colored=True,
                width=110,
            ),
            Column(
                "Model loaded",
                f"{models} * on (job, instance) group_left () (time() - {loaded})",
                units.DurationSeconds,
            ),
        ],
        order="Model loaded",
        height=8,
    )


def _training() -> list[Panel]:
    # A training is a job of its own, which no variable selects: it pushes its results, or writes them to a file.
    ago = "time() - max by (job) (bts_training_last_success_timestamp_seconds)"
    models = by((*JOB, "name", "version", "sha256"), one("bts_model_info"), "count")
    return [
        number(
            "Models in use",
            "Different models that the processes of the service have loaded. Several: a rollout has stopped half-way."
            " Alert: BtsModelVersionSkew.",
            units.Short,
            Query(by(JOB, models, "count"), "{{job}}"),
            limits=MODELS,
            size=(6, 5),
        ),
        number(
            "Last training",
            "Time since the last training that succeeded. Unknown: none has reported its result (bts.train --textfile-directory"
            " or --pushgateway). Alert: BtsTrainingStale.",
            units.DurationSeconds,
            Query(ago, "{{job}}"),
            limits=SINCE_TRAINING,
            size=(6, 5),
        ),
        number(
            "Error in training",
            "Mean absolute error of the model on stations that it was not trained on. If the error of today is much larger, the"
            " readings have changed since.",
            units.Ampere,
            Query("max by (job) (bts_training_mae)", "{{job}}"),
            size=(6, 5),
        ),
        number(
            "Against no change in training",
            'Error of the model in training divided by that of the forecast "no change". Above 1 the model should not be rolled out.',
            units.Short,
            Query(
                "max by (job) (bts_training_mae) / max by (job) (bts_training_persistence_mae)",
                "{{job}}",
            ),
            limits=AGAINST_NO_CHANGE,
            size=(6, 5),
        ),
    ]
