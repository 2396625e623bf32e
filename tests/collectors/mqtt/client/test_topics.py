import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.mqtt.client.topics import Pattern, Subscription, disjoint, matches

#: Few names, so that filters and topics of them meet often.
LEVEL = st.sampled_from(["a", "b", "", "$a"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join)
WILD = st.one_of(LEVEL, st.just("+"))
FILTER = st.builds(
    lambda levels, rest: "/".join([*levels, *(["#"] if rest else [])]),
    st.lists(WILD, min_size=1, max_size=4),
    st.booleans(),
)


def reference(filter_: str, topic: str) -> bool:
    """Return whether a filter matches, as specified in MQTT 3.1.1, 4.7."""
    if filter_[:1] in {"+", "#"} and topic.startswith("$"):
        return False
    text = re.escape(filter_).replace(r"\+", "[^/]*")
    if filter_ == "#":
        text = ".*"
    elif filter_.endswith("/#"):
        text = text.removesuffix(r"/\#") + "(/.*)?"
    return bool(re.fullmatch(text, topic, re.DOTALL))


@pytest.mark.parametrize(
    ("text", "filter_", "topic", "labels"),
    [
        ("bts/{station}/{parameter}", "bts/+/+", "bts/7/122", {"station": "7", "parameter": "122"}),
        ("bts/+/{parameter}", "bts/+/+", "bts/7/122", {"parameter": "122"}),
        ("logs/{rest...}", "logs/#", "logs/a/b/c", {"rest": "a/b/c"}),
        ("logs/{rest...}", "logs/#", "logs", {"rest": ""}),
        ("{site}/logs/#", "+/logs/#", "x/logs/a", {"site": "x"}),
        ("alarm/finish", "alarm/finish", "alarm/finish", {}),
        ("/{x}", "/+", "/1", {"x": "1"}),
        ("#", "#", "any/thing", {}),
        ("{all...}", "#", "any/thing", {"all": "any/thing"}),
    ],
)
def test_pattern_is_a_filter_whose_wildcards_have_names(
    text: str, filter_: str, topic: str, labels: dict[str, str]
) -> None:
    """A named level becomes a label."""
    pattern = Pattern.from_setting(text)
    values = pattern.match(topic)

    assert (pattern.filter, str(pattern)) == (filter_, text)
    assert values is not None
    assert dict(zip(pattern.labels, values, strict=True)) == labels


@pytest.mark.parametrize("topic", ["bts/1", "bts/1/2/3", "x/1/2", "$SYS/1/2", ""])
def test_other_topics_do_not_match(topic: str) -> None:
    """A pattern matches the topics of its filter, and no others."""
    assert Pattern.from_setting("bts/{a}/{b}").match(topic) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "expected a topic such as"),
        (7, "expected a topic such as"),
        ("a\0b", "expected a topic such as"),
        ("a" * 70000, "expected a topic such as"),
        ("$share/group/bts/#", "remove $share/GROUP/"),
        ("bts/{a}/{a}", "{a} occurs twice"),
        ("bts/x{a}", "'x{a}': a wildcard must be a whole level"),
        ("bts/a+", "'a+': a wildcard must be a whole level"),
        ("bts/{a b}", "'{a b}': a wildcard must be a whole level"),
        ("bts/{__a}", "a wildcard must be a whole level"),
        ("bts/#/x", "'#' matches all following levels"),
        ("{all...}/x", "'{all...}' matches all following levels"),
    ],
)
def test_invalid_pattern_is_refused(raw: object, expected: str) -> None:
    """The message has the cause, and the level."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        Pattern.from_setting(raw)


@given(FILTER, TOPIC)
def test_matching_is_as_the_protocol_says(filter_: str, topic: str) -> None:
    """Wildcards, empty levels, parents of `#`, and topics with `$`, which no wildcard matches."""
    assert matches(filter_, topic) == reference(filter_, topic)


@given(st.lists(FILTER, max_size=5), TOPIC)
def test_each_message_comes_once(filters: list[str], topic: str) -> None:
    """The merged subscriptions receive the messages of every filter, and none twice."""
    found = disjoint([Subscription(name) for name in filters])
    bringing = [name for name, *_ in found if matches(name, topic)]

    assert len(bringing) <= 1
    assert bringing or not any(matches(name, topic) for name in filters)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["bts/+/+", "alarm/#"], ["bts/+/+", "alarm/#"]),
        (["bts/1/+", "bts/+/+"], ["bts/+/+"]),
        (["bts/#", "bts/+/temperature"], ["bts/#"]),
        (["tele/+/SENSOR", "tele/lamp/+"], ["tele/+/+"]),
        (["a/+", "+/b", "c/d"], ["+/+"]),
        (["#", "$SYS/#"], ["#", "$SYS/#"]),
        (["bts", "bts/#"], ["bts/#"]),
        (["x", "x"], ["x"]),
    ],
)
def test_filters_that_overlap_become_one(wanted: list[str], expected: list[str]) -> None:
    """The narrowest filter that covers both."""
    found = [name for name, *_ in disjoint([Subscription(name) for name in wanted])]

    assert sorted(found) == sorted(expected)


def test_filters_of_several_qos_become_one_of_the_highest() -> None:
    """No message arrives twice, or with less QoS than its rule requires."""
    wanted = [Subscription("bts/1/+"), Subscription("bts/#", 1), Subscription("alarm/#", 2)]

    assert disjoint(wanted) == (Subscription("bts/#", 1), Subscription("alarm/#", 2))


def test_subscription_that_is_apart_stays_so() -> None:
    """The canary keeps the QoS that it measures, and does not raise that of rules."""
    wanted = [Subscription("canary/#", 1, apart=True), Subscription("#", 0)]

    assert set(disjoint(wanted)) == set(wanted)
