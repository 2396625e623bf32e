"""Metrics of an HTTP prediction service."""

from __future__ import annotations

from bts_exporter import gauge

_PROBE = ("probe",)

UP = gauge(
    "ml_service_up",
    "Whether the service sent a complete HTTP response, whatever its status, to this probe.",
    _PROBE,
)
STATUS = gauge("ml_service_http_status_code", "Status of the HTTP response.", _PROBE)
VALID = gauge(
    "ml_service_response_valid",
    "Whether the response has an expected status, and every value that the settings of the probe name.",
    _PROBE,
)
DURATION = gauge(
    "ml_service_phase_duration_seconds",
    "Duration of a phase of the request (dns, connect, tls, processing, receive); a phase that did not"
    " happen or did not end has no sample.",
    ("probe", "phase"),
)
PREDICTION = gauge(
    "ml_service_prediction_value",
    "Predicted value in the response (setting value), if it is a number.",
    _PROBE,
)
MODEL = gauge(
    "ml_service_model_info",
    "A metric with a constant '1' value, labelled by name and version of the model, from the responses or"
    " the settings.",
    ("model", "version"),
)
CERTIFICATE = gauge(
    "ml_service_certificate_expiry_timestamp_seconds",
    "Unix time when the certificate of the service expires (notAfter).",
)

METRICS = (UP, STATUS, VALID, DURATION, PREDICTION, MODEL, CERTIFICATE)
