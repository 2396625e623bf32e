from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bts_exporter import Collector, CollectorConfig, Secret, Url
from bts_exporter.errors import ConfigError, PluginError
from bts_exporter.settings import loader as config_module
from bts_exporter.settings.loader import BUILT_IN, COMMON_KEYS, Settings, find, load, plugins_folder
from bts_exporter.settings.value_types import Duration

Load = Callable[[str], Settings]


class Broker(Collector):
    """A type with the settings of a broker."""

    class Config(CollectorConfig, frozen=True):
        """Settings of a broker."""

        url: Url
        password: Secret | None = None
        streams: tuple[str, ...] = ()


class Host(Collector):
    """A type that needs no settings."""


class Types:
    """The known types, one of them broken."""

    def __init__(self) -> None:
        self.known: dict[str, type[Collector]] = {"broker": Broker, "host": Host}
        self.folder: Path | None = None
        self.loaded: list[str] = []

    def __call__(self, folder: Path) -> Types:
        """Remember the drop-in folder."""
        self.folder = folder
        return self

    def names(self) -> list[str]:
        """Return the names, including that of the broken type."""
        return sorted([*self.known, "broken"])

    def load(self, name: str) -> type[Collector]:
        """Return the type, or fail."""
        self.loaded.append(name)
        if name == "broken":
            message = "type broken (broken.py) is broken: SyntaxError: invalid syntax"
            raise PluginError(message)
        return self.known[name]


@pytest.fixture
def types() -> Types:
    """Return the known types."""
    return Types()


@pytest.fixture
def read(tmp_path: Path, types: Types) -> Load:
    """Return a function that loads a text as settings."""

    def read(text: str) -> Settings:
        (tmp_path / "c.yaml").write_text(text)
        return load(tmp_path / "c.yaml", types)

    return read


@pytest.fixture
def problems(read: Load, tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that returns the problems of a text, without the folder of the file."""

    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return problems


# Valid settings


def test_settings(read: Load, tmp_path: Path) -> None:
    """Each block becomes the typed settings of its type, separate from those of the engine."""
    settings = read(
        "scrape_timeout: 5s\n"
        "collectors:\n"
        "  host:\n"
        "  broker:\n"
        "    - name: cache\n"
        "      labels: {site: a}\n"
        "      interval: 1m\n"
        "      timeout: 500ms\n"
        "      max_series: 10\n"
        "      optional: true\n"
        "      metrics: {allow: ['redis_*'], deny: [redis_secret]}\n"
        "      url: redis://cache:6379\n"
        "      password: hunter2\n"
        "    - {name: queue, url: redis://queue, streams: [a, b]}\n"
    )

    assert (settings.file, settings.scrape_timeout, settings.broken) == (
        f"{tmp_path}/c.yaml",
        5,
        (),
    )
    host, cache, queue = settings.blocks
    assert [(block.type_name, block.type) for block in settings.blocks] == [
        ("host", Host),
        ("broker", Broker),
        ("broker", Broker),
    ]
    assert host.config == CollectorConfig()
    assert host.common == config_module.Common()
    assert cache.common == config_module.Common(
        name="cache",
        labels={"site": "a"},
        interval=Duration(60),
        timeout=Duration(0.5),
        max_series=10,
        optional=True,
        metrics=config_module.MetricFilter(("redis_*",), ("redis_secret",)),
    )
    assert cache.config == Broker.Config(
        url=Url("redis", "cache", 6379), password=Secret("hunter2")
    )
    assert queue.config == Broker.Config(url=Url("redis", "queue"), streams=("a", "b"))
    assert [block.location.line for block in settings.blocks] == [3, 5, 14]


def test_defaults_of_the_common_settings(read: Load) -> None:
    """By default a collector is collected at each scrape, must be reachable, and may have 100,000 series."""
    [block] = read("collectors: {host: {}}").blocks

    common = block.common
    assert (common.name, common.labels, common.optional) == ("", {}, False)
    assert (common.interval, common.timeout, common.max_series) == (None, None, 100_000)
    assert (common.metrics.allow, common.metrics.deny) == ((), ())


def test_a_type_with_more_series_than_others(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A type may have its own default of `max_series`, which the settings override."""
    monkeypatch.setattr(Host, "default_max_series", 1_000_000)

    assert read("collectors: {host: {}}").blocks[0].common.max_series == 1_000_000
    assert read("collectors: {host: {max_series: 5}}").blocks[0].common.max_series == 5


def test_keys_that_belong_to_the_engine() -> None:
    """The keys of the engine are the same in every block, and no collector may use them."""
    assert set(COMMON_KEYS) == {
        "name",
        "labels",
        "interval",
        "timeout",
        "max_series",
        "optional",
        "metrics",
    }


def test_types_that_are_not_configured_are_not_loaded(read: Load, types: Types) -> None:
    """Types that are not configured are not imported."""
    read("collectors: {host: }")

    assert types.loaded == ["host"]


def test_no_collectors(read: Load) -> None:
    """An empty map configures no collector, with a warning that names it."""
    settings = read("scrape_timeout: 5s\ncollectors: {}")

    assert settings.blocks == ()
    assert [(warning.line, warning.path, warning.message) for warning in settings.warnings] == [
        (2, "collectors", "no collector is configured: only the exporter's own metrics are served")
    ]


def test_file_that_names_no_collectors(read: Load, types: Types) -> None:
    """Without the key `collectors` the built-in collectors apply, with the other keys of the file."""
    types.known |= {"rabbitmq": Broker, "redis": Broker, "mqtt": Broker}

    settings = read("scrape_timeout: 5\n")

    assert [block.type_name for block in settings.blocks] == ["host", "rabbitmq", "redis", "mqtt"]
    assert settings.scrape_timeout == 5


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_empty_file_is_a_mistake(read: Load, text: str) -> None:
    """An empty file is an error, because a full disk may have truncated it."""
    with pytest.raises(ConfigError, match=r"c\.yaml.*: the file is empty"):
        read(text)


def test_built_in_settings(types: Types) -> None:
    """Without a file the host and the brokers' default ports are collected; brokers are optional."""
    types.known |= {"rabbitmq": Broker, "redis": Broker, "mqtt": Broker}

    settings = load(None, types)

    assert settings.file == "built-in settings"
    places = [
        (b.type_name, str(getattr(b.config, "url", "")), b.common.optional) for b in settings.blocks
    ]
    assert places == [
        ("host", "", False),
        ("rabbitmq", "http://127.0.0.1:15672", True),
        ("redis", "redis://127.0.0.1:6379", True),
        ("mqtt", "mqtt://127.0.0.1:1883", True),
    ]
    assert list(yaml.safe_load(BUILT_IN)) == ["collectors"]


def test_yaml_merges_and_aliases_between_blocks(read: Load) -> None:
    """Anchors and merges can be used for settings that targets share."""
    settings = read(
        "collectors:\n"
        "  broker:\n"
        "    - &first {name: a, url: redis://a, optional: true, streams: &s [x]}\n"
        "    - {<<: *first, name: b, url: redis://b}\n"
        "    - {name: c, url: redis://c, streams: *s}\n"
    )

    assert [(b.common.name, b.common.optional, b.config.streams) for b in settings.blocks] == [  # type: ignore[attr-defined]
        ("a", True, ("x",)),
        ("b", True, ("x",)),
        ("c", False, ("x",)),
    ]


# Invalid settings

MISTAKES = [
    ("colectors: {}", "c.yaml:1: colectors: unknown key 'colectors'; did you mean collectors?"),
    ("[]", "c.yaml:1: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
    ("scrape_timeout: soon", "c.yaml:1: scrape_timeout: expected seconds or a duration such as 1m30s, got 'soon'"),
    ("plugins: 5", "c.yaml:1: plugins: expected str, got int (put it in quotes: '5')"),
    ("collectors: [host]", "c.yaml:1: collectors: expected a map from collector types to their settings; write each type without a hyphen and with a colon, such as host:"),
    ("collectors: host", "c.yaml:1: collectors: expected a map from collector types to their settings; write each type in a line of its own, indented, such as host:"),
    ("collectors: ''", "c.yaml:1: collectors: expected a map from collector types to their settings; write each type in a line of its own, indented, such as host:"),
    ("collectors: no", "c.yaml:1: collectors: expected a map from collector types to their settings; write each type in a line of its own, indented, such as host:"),
    ("collectors:\n  hots:", "c.yaml:2: collectors.hots: unknown collector type 'hots'; did you mean host?"),
    ("collectors:\n  kafka:", "c.yaml:2: collectors.kafka: unknown collector type 'kafka'; known: broken, broker, host; there is no folder of plug-ins /etc/bts-exporter/plugins"),
    ("collectors:", "c.yaml:1: collectors: expected a map from collector types to their settings; write each type in a line of its own, indented, such as host:"),
    ("collectors:\n  host: []", "c.yaml:2: collectors.host: an empty list: leave the key out, or put a block into it"),
    ("scrape_timeout: 0", "c.yaml:1: scrape_timeout: must be at least 0.1 s, got 0"),
    ("collectors:\n  host: yes", "c.yaml:2: collectors.host: expected a block of settings, or a list of blocks; write nothing behind the colon to collect it as it is"),
    ("collectors:\n  host:\n  - cpu", "c.yaml:3: collectors.host[0]: expected a block of settings, or a list of blocks; write its settings below it, indented, as key: value"),
    ("collectors:\n  host: {cpu: 1}", "c.yaml:2: collectors.host.cpu: unknown key 'cpu'; known: interval, labels, max_series, metrics, name, optional, timeout"),
    ("collectors:\n  host: {optinal: yes}", "c.yaml:2: collectors.host.optinal: unknown key 'optinal'; did you mean optional?"),
    ("collectors:\n  broker:\n    ulr: redis://x\n    url: redis://x", "c.yaml:3: collectors.broker.ulr: unknown key 'ulr'; did you mean url?"),
    ("collectors:\n  broker:", "c.yaml:2: collectors.broker: url is missing"),
    ("collectors:\n  broker:\n    url: cache:6379", "c.yaml:3: collectors.broker.url: missing scheme, e.g. redis://; an address is scheme://host[:port]"),
    ("collectors:\n  broker:\n    url: redis://x\n    password: 31415", "c.yaml:4: collectors.broker.password: expected a string, got int (put it in quotes)"),
    ("collectors:\n  broker:\n  - url: redis://x\n    streams: a", 'c.yaml:4: collectors.broker[0].streams: expected a list, got str; write it in brackets: ["a"]'),
    ("collectors:\n  host: {name: 5}", "c.yaml:2: collectors.host.name: expected str, got int (put it in quotes: '5')"),
    ("collectors:\n  host: {interval: 0.5}", "c.yaml:2: collectors.host: interval: must be at least 1 s, got 0.5"),
    ("collectors:\n  host: {interval: often}", "c.yaml:2: collectors.host.interval: expected seconds or a duration such as 1m30s, got 'often'"),
    ("collectors:\n  host: {timeout: 0}", "c.yaml:2: collectors.host: timeout: must be more than 0"),
    ("collectors:\n  host: {timeout: -1}", "c.yaml:2: collectors.host.timeout: a duration must be finite and not negative, got -1"),
    ("collectors:\n  host: {max_series: 0}", "c.yaml:2: collectors.host: max_series: must be at least 1, got 0"),
    ("collectors:\n  host: {max_series: many}", "c.yaml:2: collectors.host.max_series: expected int, got str; write a number, without quotes or a unit"),
    ("collectors:\n  host: {optional: maybe}", "c.yaml:2: collectors.host.optional: expected bool, got str; write true or false, without quotes"),
    ("collectors:\n  host:\n    labels: {a-b: x}", "c.yaml:3: collectors.host: labels: 'a-b' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    ("collectors:\n  host:\n    labels: {__a: x}", "c.yaml:3: collectors.host: labels: '__a' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    ("collectors:\n  host:\n    labels: {target: x}", "c.yaml:3: collectors.host: labels: 'target' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    ("collectors:\n  host:\n    labels: {le: x}", "c.yaml:3: collectors.host: labels: 'le' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    ("collectors:\n  host:\n    labels: {quantile: x}", "c.yaml:3: collectors.host: labels: 'quantile' is not a valid label name (expected letters, digits and _; not le, quantile, target)"),
    ("collectors:\n  host:\n    labels: {site: 5}", "c.yaml:3: collectors.host.labels.site: expected str, got int (put it in quotes: '5')"),
    ("collectors:\n  host:\n    labels: site", "c.yaml:3: collectors.host.labels: expected a block of keys, got str; write its keys below it, indented, or {key: value}"),
    ("collectors:\n  host:\n    metrics: {alow: []}", "c.yaml:3: collectors.host.metrics.alow: unknown key 'alow'; did you mean allow?"),
    ("collectors:\n  host:\n    metrics: [node_*]", "c.yaml:3: collectors.host.metrics: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
    ("collectors:\n  host:\n    metrics:\n      allow: node_*", 'c.yaml:4: collectors.host.metrics.allow: expected a list, got str; write it in brackets: ["node_*"]'),
    ("collectors:\n  broker:\n  - url: redis://x\n  - name: b\n    url: redis://y", "c.yaml:3: collectors.broker[0]: name is missing: it is required to distinguish several targets of one type"),
    ("collectors:\n  broker:\n  - {name: a, url: redis://x}\n  - {name: a, url: redis://y}", "c.yaml:4: collectors.broker[1]: a target named 'a' is there already"),
    ("collectors:\n  host:\n  host:", "c.yaml:3: collectors.host: given twice"),
    ("collectors:\n  broker: {url: !env STUB_MISSING}", "c.yaml:2: collectors.broker.url: !env STUB_MISSING: no such environment variable"),
    ("collectors:\n  broker:\n    url: redis://x\n    password: !file missing", "c.yaml:4: collectors.broker.password: !file missing: missing: No such file or directory"),
    ("collectors:\n  broker:\n    url: redis://x\n    password: !credential pw", "c.yaml:4: collectors.broker.password: !credential pw: no CREDENTIALS_DIRECTORY: run as a systemd service with LoadCredential=pw:PATH, or set the variable to the folder that holds the file"),
    ("collectors:\n  host: {\n", "c.yaml:2: not YAML: the { that opens in this line is not closed by }, or a comma is missing, and line 3 goes on; text that begins with { needs quotes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"), MISTAKES, ids=[text.replace("\n", " ") for text, _ in MISTAKES]
)
def test_mistake(
    text: str, problem: str, problems: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error has file, line and path, and the fix if it is known."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    assert problems(text) == [problem]


def test_all_mistakes_at_once(problems: Callable[[str], list[str]]) -> None:
    """All errors are reported together, in the order of their lines."""
    found = problems(
        "scrape_timeout: soon\n"
        "hosts:\n"
        "collectors:\n"
        "  host: {interval: 0.1}\n"
        "  broken: {any: thing}\n"
        "  broker:\n"
        "    - {url: x, password: 5}\n"
        "    - {name: a}\n"
        "  kafka: {}\n"
    )

    assert found == [
        "c.yaml:1: scrape_timeout: expected seconds or a duration such as 1m30s, got 'soon'",
        "c.yaml:2: hosts: unknown key 'hosts'; known: collectors, plugins, scrape_timeout, state",
        "c.yaml:4: collectors.host: interval: must be at least 1 s, got 0.1",
        "c.yaml:5: collectors.broken: type broken (broken.py) is broken: SyntaxError: invalid syntax",
        "c.yaml:7: collectors.broker[0].url: missing scheme, e.g. redis://; an address is scheme://host[:port]",
        "c.yaml:7: collectors.broker[0].password: expected a string, got int (put it in quotes)",
        "c.yaml:8: collectors.broker[1]: url is missing",
        "c.yaml:9: collectors.kafka: unknown collector type 'kafka'; known: broken, broker, host; there is no folder of plug-ins /etc/bts-exporter/plugins",
    ]


def test_secrets_are_in_no_message(
    problems: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message shows a password, wherever it is misplaced."""
    monkeypatch.setenv("STUB_PASSWORD", "hunter2")
    text = """\
collectors:
  broker:
    - {name: a, url: "redis://u:hunter2@[x", password: [hunter2]}
    - {name: b, url: "redis://:hunter2@", password: {a: hunter2}}
    - {name: c, url: !env STUB_PASSWORD, streams: !env STUB_PASSWORD}
    - {name: d, url: redis://x, interval: !env STUB_PASSWORD, optional: !env STUB_PASSWORD}
    - {name: e, url: redis://x, max_series: !env STUB_PASSWORD, metrics: !env STUB_PASSWORD}
    - {name: f, url: "redis://u:hun/ter2@x"}
"""

    found = problems(text)

    assert len(found) == 11
    assert [problem for problem in found if "hunter2" in problem or "ter2" in problem] == []


def test_broken_type_with_settings_that_are_fine(read: Load) -> None:
    """A type that cannot be loaded is not an error of the settings: the rest is served."""
    settings = read("collectors:\n  broken: {any: thing}\n  host:\n")

    assert [block.type_name for block in settings.blocks] == ["host"]
    [(kind, problem)] = settings.broken
    assert kind == "broken"
    assert (problem.line, problem.path) == (2, "collectors.broken")
    assert problem.message == "type broken (broken.py) is broken: SyntaxError: invalid syntax"


def test_file_that_is_missing(tmp_path: Path, types: Types) -> None:
    """A named file that is missing is an error; the built-in settings are not used."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", types)

    assert str(caught.value) == f"{tmp_path}/c.yaml: cannot be read: No such file or directory"


# Finding the file


def test_file_that_is_named(tmp_path: Path) -> None:
    """A named file is used, whether it exists or not."""
    assert find(str(tmp_path / "any.yaml")) == tmp_path / "any.yaml"


def test_search_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first existing file of the list is used; without any, the built-in settings apply."""
    here, there = tmp_path / "config.yaml", tmp_path / "etc.yaml"
    monkeypatch.setattr(config_module, "SEARCH", (here, there))

    found = [find(None)]
    for path in (there, here):
        path.touch()
        found.append(find(None))

    assert found == [None, there, here]


def test_search_list() -> None:
    """The list is the working folder, then /etc."""
    assert [str(path) for path in config_module.SEARCH] == [
        "config.yaml",
        "/etc/bts-exporter/config.yaml",
    ]


# The drop-in folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("collectors: {}", "/etc/bts-exporter/plugins"),
        ("{collectors: {}, plugins: /srv/plugins}", "/srv/plugins"),
        ("{collectors: {}, plugins: my/plugins}", "{folder}/my/plugins"),
        ("{collectors: {}, plugins: ../plugins}", "{folder}/../plugins"),
    ],
)
def test_plugins_folder(read: Load, types: Types, tmp_path: Path, text: str, expected: str) -> None:
    """The folder of drop-in files is one of the settings, relative to their file."""
    read(text)

    assert types.folder == Path(expected.format(folder=tmp_path))
    assert plugins_folder(tmp_path / "c.yaml") == types.folder


@pytest.mark.parametrize("text", ["plugins: 5", "[1]", ""])
def test_plugins_folder_of_settings_with_mistakes(tmp_path: Path, text: str) -> None:
    """Types can be listed even if the settings have errors."""
    (tmp_path / "c.yaml").write_text(text)

    assert plugins_folder(tmp_path / "c.yaml") == Path("/etc/bts-exporter/plugins")


def test_plugins_folder_without_settings() -> None:
    """The built-in settings have the default folder."""
    assert plugins_folder(None) == Path("/etc/bts-exporter/plugins")


# Any settings

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.sampled_from(
    ["collectors", "plugins", "scrape_timeout", "host", "broker", "broken", "url", "password", "streams", *COMMON_KEYS, "allow"]
) | st.text(max_size=4)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
blocks = st.dictionaries(keys, trees, max_size=4)


@given(
    document=trees
    | st.fixed_dictionaries(
        {
            "collectors": st.dictionaries(
                st.sampled_from(["host", "broker", "broken"]), blocks | st.lists(blocks)
            )
        }
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_document_is_settings_or_an_error(document: Any, tmp_path: Path) -> None:
    """Any file gives settings, or a ConfigError with at least one problem."""
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=False), encoding="utf-8")
    types = Types()
    types.known |= {"rabbitmq": Broker, "redis": Broker, "mqtt": Broker}

    try:
        loaded = load(path, types)
    except ConfigError as error:
        assert error.problems  # noqa: PT017  # either is fine
        assert all(str(problem).startswith(os.fspath(path)) for problem in error.problems)  # noqa: PT017
    else:
        assert isinstance(loaded, Settings)
