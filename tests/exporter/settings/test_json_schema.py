"""`bts-exporter schema` and `check` agree on settings, valid ones and others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from bts_exporter import Collector
from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import ConfigError
from bts_exporter.settings.json_schema import schema_of
from bts_exporter.settings.loader import load
from bts_exporter.settings.schema import Schema
from bts_exporter.settings.yaml_document import Path_
from exporter.settings.every_type import EveryType
from stubs import drop_in

ROOT = Path(__file__).parents[3]
#: Generated settings for each comparison; `make test-long` takes more.
EXAMPLES = int(os.environ.get("BTS_SETTINGS", "60"))
BINARY = Path(sys.executable).parent / "bts-exporter"

#: Texts of which some are valid for each kind of setting.
TEXTS = (
    *("", " ", "a", "b", "low", "high", "red", "5", "1.5", "ABC", "ABCD", "50%", "true", "null", "\n"),
    *("30s", "1m30s", "1h", "0s", "0ms", "500ms", "1.5s", "30", "1d", "30 s", "-1s", "s", "1m1h", "90061s"),
    *("redis://h", "redis://u:p@h:6379/0", "http://127.0.0.1:80/x?y=1", "amqp://h:5672", "mqtt://h", "mqtts://h:0"),
    *("http://[::1]:8080", "http://[::1", "http://[1:2:3]", "http://h:65535", "http://h:65536", "http://h:", "h:80"),
    *("http://", "unix:///run/x.sock", "unix://", "http://u:@h", "http://a,b", "http://h/#x", "http://h/@", "://h"),
    *("http://1::2", "http://a b", "http://h?x", "HTTP://H", "1http://h", "http://u@h@i", "http://h\uff0fx", "http://h\u00e9"),
    *("^a+$", "(", "*", "${NAME}", "$NAME", "$(NAME)", "$SYS", "env:NAME", "{{ name }}", "!env NAME", "a:!file b", "{%x%}"),
    *("bts/{station}/t", "#", "a/#", "#/a", "+/a", "a+", "{a}/{b...}", "{b...}/a", "$share/x/y", "a/{", "{/a", "/", "my_login:provider"),
    *("2026-11-30", "2026-13-01", "2026-11-30T10:00:00Z", "10:00:00", "PT5S", "P1DT2H", "PT", "YQ==", "YQ=", "1:30", "1e5", "0x10", "a.b", "$", "list[0]", "x" * 300, "-----BEGIN", "on", "~"),
    *("00000000-0000-0000-0000-000000000000", "7", "-3", "007", "4.50", "systemd", "diskstats", "y", "True", "\u00a0"),
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, -1, 0.0, 1.0, 2.0, 0.5, -0.5, 1.5, 60, 61, 200, 65535, 65536, 10**12, 10**30)
#: Problems that involve several settings, or what is outside of the file: docs/reference.md lists them.
MANY_KEYS = ("cert_file and key_file belong together", "given twice, here and in the address", "is there already", "cannot be imported", "has no callable")  # fmt: skip


class Types(Registry):
    """The installed collector types, and one with every type of setting."""

    def names(self) -> list[str]:
        """Return the names."""
        return [*super().names(), "every"]

    def load(self, name: str) -> type[Collector]:
        """Return a type."""
        return EveryType if name == "every" else super().load(name)


TYPES = Types(Path("/nonexistent"))
SCHEMA = schema_of(TYPES)
VALIDATOR = Draft7Validator(SCHEMA, format_checker=Draft7Validator.FORMAT_CHECKER)


def problems_of(text: str, folder: Path) -> Sequence[str]:
    """Return the verdict of `check`: the problems with settings."""
    file = folder / "config.yaml"
    file.write_text(text)
    try:
        found = Assembly(load(file, lambda _: TYPES)).problems
    except ConfigError as error:
        return [problem.message for problem in error.problems]
    return [problem.message for problem in found]


def values(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Return values that a schema accepts, for the most part."""
    if "$ref" in schema:
        return values(SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]], depth)
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if arms := schema.get("anyOf", schema.get("allOf", ())):
        return st.one_of([values(arm, depth) for arm in arms])
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of([_of_type(kind, schema, depth) for kind in kinds])


def _of_type(kind: str, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case "object":
            return blocks(schema, depth + 1)
        case "array":
            return lists(schema, depth + 1)
        case "string":
            return st.sampled_from(TEXTS)
        case "integer" | "number":
            return st.sampled_from(NUMBERS)
        case "boolean":
            return st.booleans()
        case _:
            return st.none()


#: Seldom: what stands in the place of something else.
NOISE = st.sampled_from([None, "", "x", 0, 1, 1.5, True, [], {}, ["a"], {"a": 1}, [None], "1m"])


@st.composite
def blocks(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> Any:
    """Return a block with some of its keys, seldom one without a key that is needed."""
    keys = schema.get("properties", {})
    needed = [key for key in schema.get("required", ()) if draw(st.integers(0, 15))]
    others = draw(st.lists(st.sampled_from(sorted(keys)), max_size=3, unique=True)) if keys else []
    if depth > 6:
        others = []
    found = {key: _noisy(draw, keys[key], depth) for key in [*needed, *others]}
    inner = schema.get("additionalProperties")
    if isinstance(inner, dict) and depth <= 6:
        for key in draw(st.lists(st.sampled_from(TEXTS), max_size=2, unique=True)):
            found[key] = _noisy(draw, inner, depth)
    elif not draw(st.integers(0, 30)):
        found[draw(st.sampled_from(["name", "x", "url", "Path"]))] = draw(NOISE)
    return found


@st.composite
def lists(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> Any:
    """Return a list of a few items."""
    items = schema.get("items", {})
    if isinstance(items, list):
        short = draw(st.integers(0, 9)) == 0
        return [_noisy(draw, item, depth) for item in items[: len(items) - short]]
    return [_noisy(draw, items, depth) for _ in range(draw(st.integers(0, 2 if depth < 6 else 0)))]


def _noisy(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> Any:
    return draw(values(schema, depth) if draw(st.integers(0, 20)) else NOISE)


def documents(*names: str) -> st.SearchStrategy[Any]:
    """Return settings, most of them for one of these collector types."""
    collectors = SCHEMA["properties"]["collectors"]["properties"]
    one = st.sampled_from(names).flatmap(
        lambda name: values(collectors[name]).map(lambda block: {"collectors": {name: block}})
    )
    return st.one_of([one, one, one, blocks(SCHEMA, 0), NOISE])


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(value=documents("every"))
def test_check_and_schema_agree_on_every_type(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For a collector without checks of its own, `check` accepts exactly what the schema accepts."""
    problems = problems_of(json.dumps(value), tmp_path_factory.getbasetemp())

    problems = [p for p in problems if not any(words in p for words in MANY_KEYS)]
    assert VALIDATOR.is_valid(value) == (not problems), problems


def test_check_and_schema_agree_on_our_collectors(tmp_path: Path) -> None:
    """What the schema refuses, `check` refuses; what only `check` refuses are rules between settings."""
    rules: list[str] = []
    names = [name for name in TYPES.names() if name != "every"]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(value=documents(*names))
    def compare(value: object) -> None:
        rules.clear()
        problems = problems_of(json.dumps(value), tmp_path)
        others = [p for p in problems if not any(words in p for words in (*MANY_KEYS, *rules))]
        if VALIDATOR.is_valid(value):
            assert others == []
        else:
            assert problems

    with pytest.MonkeyPatch.context() as patch:
        add = Schema._add_problem_of_block

        def record(self: Schema, raw: dict[str, Any], path: Path_, message: str) -> Any:
            rules.append(message)
            return add(self, raw, path, message)

        patch.setattr(Schema, "_add_problem_of_block", record)
        compare()


#: Settings of the collector type `every`, as YAML; what it holds for `!env` and `!file` is a text to editors.
AGREED = [
    ("{text: a}", True),
    ("", False),
    ("[]", False),
    ("[{text: a}]", True),
    ("[{text: a}, {text: b}]", False),
    ("[{text: a, name: x}, {text: b, name: ''}]", False),
    ("[{text: a, name: x}, {text: b, name: y}]", True),
    ("[[{text: a}]]", False),
    ("{text: 5}", False),
    ("{text: '5', number: '5'}", False),
    ("{text: '5', number: 5.0}", True),
    ("{text: a, number: 5.5}", False),
    ("{text: a, number: yes}", False),
    ("{text: a, flag: 1}", False),
    ("{text: 2026-11-30, day: 2026-11-30}", True),
    ("{text: a, day: 2026-13-01}", False),
    ("{text: 1:30}", True),
    ("{text: a, wait: '90'}", False),
    ("{text: a, wait: 90}", True),
    ("{text: a, positive: 0s}", False),
    ("{text: a, share: 1}", False),
    ("{text: a, few: []}", False),
    ("{text: a, names:}", False),
    ("{text: a, names: []}", True),
    ("{text: a, tls:, labels: {}}", True),
    ("{text: a, tls: {}, any_map: {}}", True),
    ("{text: a, labels:}", False),
    ("{text: a, labels: {zone: x}}", False),
    ("{text: a, labels: {le: x}}", False),
    ("{text: a, labels: {site: ''}}", False),
    ("{text: a, password:}", False),
    ("{text: a, password: !env EVERY}", True),
    ("{text: a, names: [!env EVERY, b]}", True),
    ("{text: a, secrets: {a: !file secret}}", True),
    ("{text: a, names: [b, 5]}", False),
    ("{text: a, pair: [1, a, b]}", False),
    ("{text: a, point: [1]}", True),
    ("{text: a, point: []}", False),
    ("{text: a, by_number: {5: yes}}", True),
    ("{text: a, by_number: {five: yes}}", False),
    ("{text: a, by_level: {c: 1}}", False),
    ("{text: a, color: green}", False),
    ("{text: a, grade: 2}", True),
    ("{text: a, level: 3}", True),
    ("{text: a, level: true}", False),
    ("{text: a, options: {depth: 1, width: 1}}", False),
    ("{text: a, options: {depth: 1, wait: 1m}}", True),
    ("{text: a, shard: {address: 'http://h', weights: [1, 0.5]}}", True),
    ("{text: a, shard: {weights: []}}", False),
    ("{text: a, shape: {type: circle, radius: 1}}", True),
    ("{text: a, shape: {type: square, radius: 1}}", False),
    ("{text: a, node: {name: x, children: [{name: y, children: []}]}}", True),
    ("{text: a, node: {name: x, children: [{children: []}]}}", False),
    ("{text: a, percent: 50}", False),
    ("{text: a, percents: [50%, 7%]}", True),
    ("{text: '${NAME}'}", False),
    ("{text: a, anything: {a: ['{{ x }}']}}", False),
    ("{text: a, max_series: 0}", False),
    ("{text: a, interval: 0.5}", False),
    ("{text: a, txet: a}", False),
    ("&one {text: a, mapping: {<<: {a: 1}, b: 2}}", True),
    ("[&one {text: a, name: x}, {<<: *one, name: y}]", True),
    ("[&one {text: a, name: x}, {<<: *one, nmae: y}]", False),
]


class EditorLoader(yaml.SafeLoader):
    """Reads YAML as an editor does: tags of ours are texts, and so are dates and numbers with colons."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regex) for tag, regex in found if not tag.endswith((":timestamp", ":int"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


EditorLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[0-9]+$"), [*"0123456789"])
for tag in ("!env", "!file", "!credential"):
    EditorLoader.add_constructor(tag, EditorLoader.construct_yaml_str)


@pytest.mark.parametrize(("text", "valid"), AGREED, ids=[text for text, _ in AGREED])
def test_verdict(
    text: str, *, valid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both verdicts on YAML with tags, anchors, nulls, empty maps, and numbers as texts."""
    monkeypatch.setenv("EVERY", "value")
    (tmp_path / "secret").write_text("hunter2\n")
    document = f"collectors:\n  every: {text}\n"

    assert VALIDATOR.is_valid(yaml.load(document, EditorLoader)) is valid
    assert (problems_of(document, tmp_path) == []) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("", False),
        ("{}", False),
        ("collectors:", False),
        ("collectors: {}", True),
        ("collectors: {pulsar: }", False),
        ("scrape_timeout: 5", True),
        ("scrape_timeout: 0.01", False),
        ("plugins: 5", False),
        ("x: 1", False),
        ("host: {}", False),
    ],
)
def test_verdict_on_the_top_of_the_file(text: str, *, valid: bool, tmp_path: Path) -> None:
    """The keys at the top of the file have a schema, too."""
    assert VALIDATOR.is_valid(yaml.safe_load(text)) is valid
    assert (problems_of(text, tmp_path) == []) is valid


def test_shipped_settings_fit_the_schema() -> None:
    """The settings that we ship are valid, and begin with the line that editors look for."""
    for file in ("config.yaml", "systemd/config.yaml"):
        text = (ROOT / file).read_text()

        assert "# yaml-language-server: $schema=" in text
        assert [e.message for e in VALIDATOR.iter_errors(yaml.load(text, EditorLoader))] == []


def test_keys_have_description_and_default() -> None:
    """Comments and docstrings become descriptions, and defaults are shown as they are written."""
    every = SCHEMA["definitions"]["collector.every"]["properties"]

    assert every["text"]["description"] == "The only key that is needed."
    assert every["wait"]["default"] == "30s"
    assert every["fortnight"]["default"] == "1209600s"
    assert every["since"]["default"] == "2026-01-31"
    assert "default" not in every["most"]  # JSON has no infinity
    assert every["address"]["default"] == "http://127.0.0.1:80"
    assert every["color"] == {"enum": ["red", "blue"], "description": "A color.", "default": "red"}
    assert every["port"] == {"type": "integer", "minimum": 1, "maximum": 65535, "default": 1}
    assert (
        "seconds"
        in SCHEMA["definitions"]["bts_exporter.settings.value_types.Duration"]["description"]
    )


def test_schema_with_plugins_of_the_folder(tmp_path: Path) -> None:
    """The command prints types of the plug-in folder, and refuses one that is broken, with the reason."""
    drop_in(tmp_path / "plugins", "spool")
    drop_in(tmp_path / "plugins", "broken", "import missing_package\n")
    (tmp_path / "config.yaml").write_text("plugins: plugins\n")
    argv = [BINARY, f"--config.file={tmp_path}/config.yaml", "schema"]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)

    printed = json.loads(done.stdout)
    Draft7Validator.check_schema(printed)
    types = printed["properties"]["collectors"]["properties"]
    assert {"spool", "host", "redis"} <= types.keys()
    assert types["broken"]["not"] == {}
    assert "missing_package" in types["broken"]["description"]
    assert "missing_package" in done.stderr
    validator = Draft7Validator(printed)
    assert validator.is_valid({"collectors": {"spool": {"path": "/x"}}})
    assert not validator.is_valid({"collectors": {"spool": {"pattern": "/x"}}})


def test_type_with_every_setting_is_a_plugin(tmp_path: Path) -> None:
    """The type that the verdicts are compared for loads from a plug-in folder."""
    source = (Path(__file__).parent / "every_type.py").read_text()
    drop_in(tmp_path / "plugins", "every", source)

    assert Registry(tmp_path / "plugins").load("every").__name__ == "EveryType"
