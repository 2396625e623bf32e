"""Whether the predictions of the BTS service are right: its readings, their drift, the model's error."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from grafana.builder.panels import GREEN, ORANGE, RED, Limits, Panel, Query, graph
from grafana.builder.promql import by
from grafana.builder.service_queries import (
    AGAINST_NO_CHANGE,
    BAD_SHARE,
    ERROR_RATIO,
    JOB,
    LAG,
    PSI,
    SHARE_OF_READINGS,
    SHARE_OF_STATIONS,
    STATIONS,
    mean,
    one,
    quantile,
)

SPREAD: Limits = ((None, RED), (1, GREEN))


def readings() -> list[Panel]:
    """Return whether readings arrive, and which of them are good."""
    return [
        graph(
            "Quality of readings",
            "Readings per second by quality. The largest kind that is not valid says what to repair: sensors (sentinel, missing,"
            " out_of_range), clocks (clock_skew, late) or producers (duplicate, malformed).",
            units.EventsPerSecond,
            Query(by((*JOB, "quality"), one.rate("bts_readings_total")), "{{quality}} {{job}}"),
            stacked=True,
        ),
        graph(
            "Bad share of readings",
            "Share of the readings that are not valid. They get no prediction. Alert: BtsBadData.",
            units.PercentUnit,
            Query(BAD_SHARE, "{{job}}"),
            limits=SHARE_OF_READINGS,
        ),
        graph(
            "Stations",
            "Stations that have sent a reading lately, and those that have not for longer than the threshold."
            " If many are stale at once, look for their gateway. Alert: BtsStationsSilent.",
            units.Short,
            Query(by(JOB, one("bts_stations_reporting")), "reporting {{job}}"),
            Query(
                by((*JOB, "threshold"), one("bts_stations_stale")),
                "stale ({{threshold}} s) {{job}}",
            ),
            width=8,
        ),
        graph(
            "Silent share of stations",
            "Share of the known stations that have been silent for longer than the threshold. Alert: BtsStationsSilent.",
            units.PercentUnit,
            Query(f"{by(JOB, one('bts_stations_stale'))} / {STATIONS}", "{{job}}"),
            limits=SHARE_OF_STATIONS,
            width=8,
        ),
        graph(
            "Age of the newest reading",
            "Time since the newest valid reading was measured. If it rises as fast as the clock, nothing valid arrives any more.",
            units.Seconds,
            Query(
                f"time() - {by(JOB, one('bts_last_reading_timestamp_seconds'), 'max')}", "{{job}}"
            ),
            limits=LAG,
            width=8,
        ),
    ]


def drift() -> list[Panel]:
    """Return how far the readings are from those of the training."""
    parameter = (*JOB, "parameter")
    shift = by(JOB, one("bts_input_mean_shift_sigmas"), "max")
    return [
        graph(
            "Drift of all readings",
            "Population stability index of the last 2,000 readings: above 0.1 they have shifted, above 0.25 the model should"
            " be trained again. A gap: fewer than 1,000 readings. Alert: BtsInputDrift.",
            units.Short,
            Query(
                by(parameter, one("bts_input_drift_psi"), "max"), "parameter {{parameter}} {{job}}"
            ),
            limits=PSI,
            width=8,
        ),
        graph(
            "Drifted share of stations",
            "Share of the stations whose mean is far from that of the training data. A part of the stations may drift without"
            " moving the index of all readings. Alert: BtsStationsDrifted.",
            units.PercentUnit,
            Query(f"{by(JOB, one('bts_stations_drifted'))} / {STATIONS}", "{{job}}"),
            limits=SHARE_OF_STATIONS,
            width=8,
        ),
        graph(
            "Readings for drift",
            "Readings that the drift is computed from. It is not known below 1,000.",
            units.Short,
            Query(
                by(parameter, one("bts_input_drift_window_readings"), "max"),
                "parameter {{parameter}} {{job}}",
            ),
            limits=((None, RED), (1000, GREEN)),
            width=8,
        ),
        graph(
            "Shift of the mean",
            "Mean of the readings minus that of the training data, in standard deviations. It shows the direction of a drift.",
            units.Short,
            Query(shift, "{{job}}"),
            limits=((None, ORANGE), (-0.5, GREEN), (0.5, ORANGE)),
            signed=True,
        ),
        graph(
            "Ratio of variances",
            "Variance of the readings divided by that of the training data. Far below 1: sensors are stuck. Far above 1: they are noisy,"
            " or the stations differ more than in training.",
            units.Short,
            Query(by(JOB, one("bts_input_variance_ratio"), "max"), "{{job}}"),
            limits=((None, ORANGE), (0.5, GREEN), (2, ORANGE)),
        ),
    ]


def predictions() -> list[Panel]:
    """Return the error and the distribution of predictions, and the alarms."""
    spread = f"{quantile(0.9, 'bts_prediction_value')} - {quantile(0.1, 'bts_prediction_value')}"
    return [
        graph(
            "Model against no change",
            'Error of the model divided by that of the forecast "no change" for the same readings. Above 1 the model is of no'
            " use. Alert: BtsModelWorseThanNoChange.",
            units.Short,
            Query(ERROR_RATIO, "{{job}}"),
            limits=AGAINST_NO_CHANGE,
            width=8,
        ),
        graph(
            "Mean absolute error",
            'Error of the predictions whose reading has arrived, of the model and of the forecast "no change".'
            " Both rise: the readings have become harder to predict. Only that of the model: see its version.",
            units.Ampere,
            Query(mean("bts_prediction_abs_error"), "model {{job}}"),
            Query(mean("bts_persistence_abs_error"), "no change {{job}}"),
            width=8,
        ),
        graph(
            "Distribution of predictions",
            "Predicted loads: 10, 50 and 90 % of them are lower. If the lines move together without the readings, the model has changed.",
            units.Ampere,
            *(
                Query(quantile(share, "bts_prediction_value"), f"p{share * 100:.0f} {{{{job}}}}")
                for share in (0.1, 0.5, 0.9)
            ),
            width=8,
        ),
        graph(
            "Spread of predictions",
            "Width of the range that holds the middle 80 % of the predictions. Below 1 A they are nearly the same for all stations."
            " Alert: BtsPredictionsFlat.",
            units.Ampere,
            Query(spread, "{{job}}"),
            limits=SPREAD,
        ),
        graph(
            "Alarms",
            "Alarms of stations that were raised and cleared in an hour, by the number of the alarm. Many at once: look for what"
            " the stations have in common.",
            units.Short,
            Query(
                by((*JOB, "alarm", "transition"), one.increase("bts_alarms_total", "1h")),
                "{{alarm}} {{transition}} {{job}}",
            ),
        ),
    ]
