"""The messages of Prometheus remote write 1.0, declared for protobuf's runtime.

Numbers and types of the fields are those of the specification. No maintained package has them without gRPC's
compiler or OpenTelemetry's SDK.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "bts_exporter.prometheus"
_TYPES = descriptor_pb2.FieldDescriptorProto
_FIELDS: dict[str, list[tuple[str, int, int | str, bool]]] = {
    "Label": [
        ("name", 1, _TYPES.TYPE_STRING, False),
        ("value", 2, _TYPES.TYPE_STRING, False),
    ],
    "Sample": [
        ("value", 1, _TYPES.TYPE_DOUBLE, False),
        ("timestamp", 2, _TYPES.TYPE_INT64, False),
    ],
    "TimeSeries": [("labels", 1, "Label", True), ("samples", 2, "Sample", True)],
    "WriteRequest": [("timeseries", 1, "TimeSeries", True)],
}


def _declare() -> Any:
    """Return the class of the message WriteRequest."""
    file = descriptor_pb2.FileDescriptorProto(
        name="bts_exporter/remote_write.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in _FIELDS.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = _TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL
            field = declared.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type = _TYPES.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = _TYPES.Type.ValueType(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.WriteRequest"))


WriteRequest = _declare()
