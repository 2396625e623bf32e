"""The stream of predictions in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, cast

import redis

from bts.pipeline import Prediction

STREAM: Final = "bts:predictions"
GROUP: Final = "bts-api"
MAX_LENGTH: Final = 10_000


def connect(url: str) -> redis.Redis:
    """Return a client whose commands fail after five seconds instead of waiting for ever."""
    return redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5
    )


def append(client: redis.Redis, predictions: Sequence[Prediction]) -> None:
    """Append predictions in one round trip; redis.RedisError where that fails."""
    pipe = client.pipeline(transaction=False)
    for prediction in predictions:
        fields = {key: str(value) for key, value in asdict(prediction).items()}
        pipe.xadd(STREAM, cast("Any", fields), maxlen=MAX_LENGTH, approximate=True)
    pipe.execute()


def latest(client: redis.Redis, count: int) -> list[Prediction]:
    """Return the last `count` predictions, the oldest first."""
    entries = cast("Iterable[Any]", client.xrevrange(STREAM, count=count))
    return [from_fields(fields) for _, fields in entries][::-1]


def from_fields(fields: Mapping[str, str]) -> Prediction:
    """Return the prediction in the fields of a stream's entry; KeyError or ValueError if it is none."""
    return Prediction(
        id=fields["id"],
        station_id=int(fields["station_id"]),
        reading_time=float(fields["reading_time"]),
        value=float(fields["value"]),
        prediction=float(fields["prediction"]),
        source=fields["source"],
        model_version=fields["model_version"],
    )
