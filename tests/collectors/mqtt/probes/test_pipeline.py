import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.mqtt.client.topics import Pattern, Subscription
from bts_collectors.mqtt.probes import pipeline
from bts_collectors.mqtt.probes.pipeline import (
    LATENCY,
    PENDING,
    TIMEOUTS,
    UNMATCHED,
    Pipeline,
    PipelineConfig,
    PipelineState,
)
from bts_collectors.mqtt.rules.payloads import Format, Path
from bts_exporter import Duration, Metric, Scrape, backlog

LAG_SECONDS, LAG_METHOD = backlog.LAG_SECONDS, backlog.LAG_METHOD
LABELS = ("mqtt", "predict", "")


def config(**settings: object) -> PipelineConfig:
    """Return settings; topics may be texts."""
    settings = {"in_topic": "bts/{s}/{p}", "out_topic": "out/{s}/{p}"} | settings
    for key in ("in_topic", "out_topic"):
        settings[key] = Pattern.from_setting(settings[key])
    for key in {"in_id", "out_id"} & settings.keys():
        settings[key] = Path.from_setting(settings[key])
    return PipelineConfig(**settings)  # type: ignore[arg-type]


class Line:
    """A pipeline with a clock that the test moves."""

    def __init__(self, **settings: object) -> None:
        self.now = 1000.0
        self.pipeline = Pipeline("predict", config(**settings), lambda: self.now)
        self.pipeline.begin()
        self.now += 60  # all that was under way before has had its time

    def send(self, topic: str, payload: bytes = b"", *, retained: bool = False) -> None:
        """Deliver a message."""
        handler = self.pipeline.route(topic)
        assert handler, topic
        handler(payload, retained)

    def samples(self, *, connected: bool = True) -> dict[Metric, dict[tuple[str, ...], float]]:
        """Return the samples of a collection."""
        scrape = Scrape(time.monotonic() + 30)
        self.pipeline.emit(scrape, connected=connected)
        return scrape.samples

    def latency(self) -> tuple[float, float]:
        """Return the number of matches, and the sum of their latencies."""
        found = self.samples()[LATENCY]
        return found["_count", "predict"], found["_sum", "predict"]

    def unmatched(self) -> tuple[float, float]:
        """Return the unmatched messages by side."""
        found = self.samples()[UNMATCHED]
        return found["predict", "in"], found["predict", "out"]

    def pending(self) -> float:
        """Return the number of pending messages."""
        return self.samples()[PENDING]["predict",]


def test_both_topics_are_subscribed_to() -> None:
    """With the filters of the patterns."""
    assert Line().pipeline.subscriptions == (Subscription("bts/+/+"), Subscription("out/+/+"))


def test_messages_with_the_same_levels_match() -> None:
    """The time between them is the latency."""
    line = Line()
    line.send("bts/1/122")
    line.send("bts/2/122")
    line.now += 0.5
    line.send("out/2/122")

    assert line.latency() == (1, 0.5)
    assert line.pending() == 1


def test_levels_may_change_their_places() -> None:
    """Levels are matched by name; names that only one topic has are not part of the key."""
    line = Line(in_topic="bts/{s}/{p}/{x}", out_topic="out/{p}/of/{s}")
    line.send("bts/1/122/a")
    line.send("out/122/of/1")

    assert line.latency() == (1, 0)


def test_first_in_is_first_out() -> None:
    """Messages with the same key are matched in their order."""
    line = Line()
    for at in (0, 1, 2):
        line.now = 1000.0 + at
        line.send("bts/1/122")
    line.now = 1010.0
    line.send("out/1/122")
    line.send("out/1/122")

    assert line.latency() == (2, 10 + 9)
    assert line.samples()[backlog.LAG_SECONDS] == {LABELS: 8}


def test_ids_in_payloads_are_keys() -> None:
    """Results in another order are matched by id, which may be an integer."""
    line = Line(in_topic="in", out_topic="out", in_id="id", out_id="request.ids[0]")
    line.send("in", b'{"id": "a"}')
    line.now += 1
    line.send("in", b'{"id": 7}')
    line.send("out", b'{"request": {"ids": ["7"]}}')
    overtaken = line.latency()
    line.send("out", b'{"request": {"ids": ["a"]}}')

    assert (overtaken, line.latency()) == ((1, 0), (2, 1))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"20.5",
        b"{",
        b"[]",
        b'{"id": null}',
        b'{"id": true}',
        b'{"id": 1.5}',
        b'{"id": {}}',
        b'{"x": 1}',
        b'{"id": "' + b"x" * 257 + b'"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_payload_without_an_id_is_unmatched(payload: bytes) -> None:
    """A message without an id is counted for its side, and not kept."""
    line = Line(in_topic="in", out_topic="out", in_id="id", out_id="id")
    line.send("in", payload)
    line.send("out", payload)

    assert line.unmatched() == (1, 1)
    assert line.pending() == 0


@given(st.binary(max_size=100), st.sampled_from(["json", "csv", "number", "text"]))
def test_no_payload_raises_an_error(payload: bytes, form: Format) -> None:
    """Any payload has an id or none."""
    for path in ("$", "a.b", "[0]"):
        identify = pipeline.identifier(form, Path.from_setting(path))

        assert len(identify(payload) or "") <= pipeline.MAX_ID


def test_columns_of_csv_may_be_ids() -> None:
    """Each side has its own format."""
    line = Line(in_topic="in", out_topic="out", in_id=0, out_id="index", in_format="csv")
    line.send("in", b"17,20.5,30")
    line.send("out", b'{"index": 17}')

    assert line.latency() == (1, 0)


def test_result_without_a_pending_message_is_unmatched() -> None:
    """A duplicate, or the result of a message before the connection."""
    line = Line()
    line.send("out/1/122")

    assert line.unmatched() == (0, 1)
    assert line.latency() == (0, 0)


def test_retained_messages_are_ignored() -> None:
    """Their time of publication is unknown."""
    line = Line()
    line.send("out/1/122", retained=True)
    line.send("bts/1/122", retained=True)

    assert (line.pending(), line.unmatched()) == (0, (0, 0))


def test_message_without_a_match_expires() -> None:
    """After the timeout; a later result is unmatched."""
    line = Line(timeout=Duration(60))
    line.send("bts/1/122")
    line.now += 60
    in_time = line.pending()
    line.now += 0.1
    late = line.pending()
    line.send("out/1/122")

    assert (in_time, late) == (1, 0)
    assert line.samples()[TIMEOUTS] == {("predict",): 1}
    assert line.unmatched() == (0, 1)


def test_late_messages_expire_without_a_scrape() -> None:
    """Memory is freed even if Prometheus does not scrape."""
    line = Line(timeout=Duration(60))
    line.send("bts/1/122")
    line.now += 61
    line.pipeline.tick(lambda *_: None)

    assert line.pipeline._pending == {}
    assert line.pipeline._numbers == {}


def test_full_pipeline_keeps_the_oldest() -> None:
    """The age of the oldest is the lag; discarded messages are counted."""
    line = Line(max_pending=2)
    for station in range(5):
        line.send(f"bts/{station}/122")
        line.now += 1

    assert line.unmatched() == (3, 0)
    assert line.pending() == 2
    assert line.samples()[backlog.LAG_SECONDS] == {LABELS: 5}


def test_full_pipeline_has_room_again_after_the_timeout() -> None:
    """A pipeline whose results are lost recovers."""
    line = Line(max_pending=1, timeout=Duration(60))
    line.send("bts/1/122")
    line.now += 61
    line.send("bts/2/122")
    line.send("out/2/122")

    assert line.latency() == (1, 0)


def test_lost_connection_clears_pending_messages() -> None:
    """Their results may have passed while disconnected."""
    line = Line()
    line.send("bts/1/122")
    line.pipeline.begin()
    pending = line.pending()
    line.send("out/1/122")

    assert pending == 0
    assert line.unmatched() == (1, 1)


def test_pending_messages_are_a_backlog() -> None:
    """With the age of the oldest as lag, and counts of inputs and matches."""
    line = Line()
    line.send("bts/1/122")
    line.send("bts/1/122")
    line.send("out/1/122")
    line.now += 4
    samples = line.samples()

    assert samples[backlog.BACKLOG] == {LABELS: 1}
    assert samples[backlog.LAG_SECONDS] == {LABELS: 4}
    assert samples[backlog.LAG_METHOD] == {(*LABELS, "message_time"): 1}
    assert samples[backlog.PUBLISHED] == {LABELS: 2}
    assert samples[backlog.CONSUMED] == {LABELS: 1}


def test_empty_pipeline_has_lag_0() -> None:
    """From the beginning."""
    samples = Line().samples()

    assert samples[backlog.LAG_SECONDS] == {LABELS: 0}
    assert samples[PENDING] == {("predict",): 0}


def test_backlog_is_unknown_without_a_connection() -> None:
    """Counters remain; pending messages may have been processed meanwhile."""
    line = Line()
    line.send("bts/1/122")
    samples = line.samples(connected=False)

    assert not {PENDING, backlog.BACKLOG, backlog.LAG_SECONDS} & set(samples)
    assert samples[backlog.PUBLISHED] == {LABELS: 1}


def lag(line: Line) -> tuple[float | None, float | None, set[str]]:
    """Return backlog, lag and its method."""
    found = line.samples()
    methods = {key[-1] for key in found.get(backlog.LAG_METHOD, {})}
    return (
        found.get(backlog.BACKLOG, {}).get(LABELS),
        found.get(backlog.LAG_SECONDS, {}).get(LABELS),
        methods,
    )


def test_lag_is_unknown_after_a_lost_connection() -> None:
    """Earlier messages may still wait: neither 0 nor a small age until the next match."""
    line = Line()
    line.send("bts/1/a")
    line.pipeline.begin()
    nothing = lag(line)
    line.send("bts/2/a")
    line.now += 5
    one = lag(line)
    line.send("out/2/a")

    assert nothing == (None, None, set())
    assert one == (None, 5, {"lower_bound"})
    assert lag(line) == (0, 0, {"message_time"})


def test_lag_is_unknown_after_messages_expired() -> None:
    """They may still wait: no 0 for another timeout."""
    line = Line(timeout=Duration(60))
    line.send("bts/1/a")
    line.now += 61
    given_up = lag(line)
    line.now += 60

    assert given_up == (None, None, set())
    assert lag(line) == (0, 0, {"message_time"})


def test_backlog_is_unknown_beyond_max_pending() -> None:
    """The age is a lower bound, even after matches."""
    line = Line(max_pending=1)
    line.send("bts/1/a")
    line.send("bts/2/a")
    line.now += 5
    full = lag(line)
    line.send("out/1/a")

    assert full == (None, 5, {"lower_bound"})
    assert lag(line) == (None, None, set())


def test_long_levels_are_no_keys() -> None:
    """100,000 pending keys of 64 kB each would fill the memory."""
    assert Line().pipeline.route("bts/1/" + "x" * 300) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"out_topic": "bts/{s}/{p}"}, "match the same topics"),
        ({"out_topic": "#", "in_id": "a", "out_id": "a"}, "match the same topics"),
        ({"in_id": "a"}, "in_id, out_id: the two ids are compared"),
        ({"out_topic": "out/{q}"}, "no key: give in_topic and out_topic a {name} in common"),
        (
            {"in_id": "a", "out_id": "a", "in_format": "csv"},
            "in_id: a is not a valid path for in_format csv",
        ),
        (
            {"in_id": "$", "out_id": 0, "in_format": "text", "out_format": "text"},
            "out_id: 0 is not a valid path for out_format text",
        ),
        ({"timeout": Duration(0)}, "timeout: must be more than 0 s"),
        ({"max_pending": 0}, "max_pending: must be between 1 and 100000, got 0"),
        ({"max_pending": 10_000_000}, "max_pending: must be between 1 and 100000"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    """The message has the key and the cause, and no secrets."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        config(**settings)


class RestartedLine(Line):
    """A pipeline in a new process of the exporter, whose clock is 5,000 s ahead."""

    def __init__(self, before: Line, downtime: float, **settings: object) -> None:
        super().__init__(**settings)
        self.now = before.now + downtime + 5000
        self.pipeline = Pipeline("predict", config(**settings), lambda: self.now)
        state = before.pipeline.save()
        assert state is not None
        copy = msgspec.json.decode(msgspec.json.encode(state), type=PipelineState)
        self.pipeline.restore(copy, downtime, 5000.0)

    def lag(self) -> tuple[float | None, str | None]:
        """Return the lag and its method."""
        samples = self.samples()
        methods = [key[-1] for key in samples.get(LAG_METHOD, {})]
        return samples.get(LAG_SECONDS, {}).get(LABELS), methods[0] if methods else None


def stuck() -> Line:
    """Return a pipeline with a message that has waited for 30 s, and one that has just come."""
    line = Line()
    line.send("bts/1/122")
    line.now += 30
    line.send("bts/2/122")
    line.now += 1
    return line


def test_messages_that_wait_grow_older_across_a_restart() -> None:
    """One that had waited longer than the exporter did not run is assumed to wait still, as a bound."""
    line = RestartedLine(stuck(), downtime=5)

    line.pipeline.begin()

    assert line.lag() == (31 + 5, "lower_bound")
    assert line.pending() == 1
    line.now += 25
    assert line.lag() == (None, None)
    assert line.samples()[TIMEOUTS] == {("predict",): 1}


def test_time_until_the_connection_counts_as_well() -> None:
    """A broker that is reached late makes it unlikely that messages still wait."""
    line = RestartedLine(stuck(), downtime=5)
    line.now += 27

    line.pipeline.begin()

    assert line.lag() == (None, None)


def test_output_after_a_restart_ends_the_assumption() -> None:
    """Nothing shows which message of before the restart an output belongs to: there is no latency."""
    line = RestartedLine(stuck(), downtime=5)
    line.pipeline.begin()
    line.send("bts/1/122")
    line.now += 2

    line.send("out/1/122")

    assert line.latency() == (0, 0)
    assert line.lag() == (2, "lower_bound")
    line.send("out/1/122")
    assert line.latency() == (1, 2)
    assert line.lag() == (0, "message_time")


def test_output_with_the_id_of_a_message_from_before_a_restart_matches() -> None:
    """An id tells which message an output belongs to: the latency includes the restart."""
    settings = {"in_topic": "in", "out_topic": "out", "in_id": "id", "out_id": "id"}
    before = Line(**settings)
    before.send("in", b'{"id": 7}')
    before.now += 20
    line = RestartedLine(before, downtime=5, **settings)
    line.pipeline.begin()

    line.send("out", b'{"id": 7}')

    assert line.latency() == (1, 25)


def test_state_is_not_replaced_before_the_first_connection() -> None:
    """A broker that is down after a restart does not cost the stored state."""
    line = RestartedLine(stuck(), downtime=5)

    assert line.pipeline.save() is None
    line.pipeline.begin()
    assert line.pipeline.save() is not None
