from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_exporter.errors import ConfigError
from bts_exporter.settings.yaml_document import Document, Hidden, format_path, read


def problems(text: str, file: str = "c.yaml") -> list[str]:
    """Return the problems of a document as they are shown."""
    try:
        found = Document(file, text).problems
    except ConfigError as error:
        found = error.problems
    assert found
    return list(map(str, found))


def sound(text: str) -> Document:
    """Return a document without problems."""
    document = Document("c.yaml", text)
    assert document.problems == []
    return document


# Values and lines


def test_values_and_lines() -> None:
    """A document has plain values and the line of each."""
    document = sound("a: 1\nb:\n  - x\n  - c: [true, null]\n    d: 0.5\n'5': 2024-01-02\n")

    assert document.value == {
        "a": 1,
        "b": ["x", {"c": [True, None], "d": 0.5}],
        "5": document.value["5"],
    }
    lines = {
        path: document.line(path)
        for path in [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c", 1), ("b", 1, "d"), ()]
    }
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c", 1): 4,
        ("b", 1, "d"): 5,
        (): 1,
    }


def test_line_of_what_is_missing() -> None:
    """A missing value has the line of its block."""
    document = sound("a: 1\nb:\n  c: 2\n")

    assert document.line(("b", "missing", "deeper")) == 2
    assert document.line(("missing",)) == 1


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n", "~\n"])
def test_empty_document(text: str) -> None:
    """An empty file is valid YAML."""
    assert sound(text).value is None


def test_keys_are_text() -> None:
    """Keys are texts, even those that YAML 1.1 reads as numbers."""
    assert sound("1: a\ntrue: b\n~: c\n").value == {
        "1": "a",
        "True": "b",
        "None": "c",
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("collectors",), "collectors"),
        (("collectors", "redis", 0, "url"), "collectors.redis[0].url"),
        ((0, "a"), "[0].a"),
    ],
)
def test_spelling_of_paths(path: tuple[str | int, ...], text: str) -> None:
    """Paths are shown as `collectors.redis[0].url`."""
    assert format_path(path) == text


# Anchors, aliases, merges


def test_aliases() -> None:
    """A value with aliases has the line where it is written."""
    document = sound("a: &x {k: [1]}\nb: *x\n")

    assert document.value == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert document.line(("b",)) == 2
    assert document.line(("b", "k")) == 1


def test_merges() -> None:
    """A block's own keys override merged ones; of several merges the first wins."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"

    document = sound(text)

    assert document.value["c"] == {"x": 3, "y": 1, "z": 2}
    assert document.line(("c", "x")) == 5
    assert document.line(("c", "y")) == 1


def test_alias_of_a_block_with_a_merge() -> None:
    """A block with an overridden key can be used twice."""
    text = "- &a {x: 1}\n- &b {<<: *a, x: 2}\n- *b\n- {<<: *b, y: 3}\n"

    assert sound(text).value == [{"x": 1}, {"x": 2}, {"x": 2}, {"x": 2, "y": 3}]


def test_alias_of_what_it_stands_in() -> None:
    """A document that contains itself is an error."""
    assert problems("a: &x\n  b: *x\n") == ["c.yaml:2: a.b: an alias of what it stands in"]
    assert problems("a: &x [*x]\n") == ["c.yaml:1: a[0]: an alias of what it stands in"]


def test_deep_nesting() -> None:
    """A document that is nested too deeply is an error."""
    assert problems("[" * 1000 + "]" * 1000) == ["c.yaml: nested too deeply"]


def test_aliases_that_stand_for_more_than_fits_into_memory() -> None:
    """Aliases that expand to too many values are an error, before they are expanded."""
    levels = [f"- &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]\n" for n in range(5)]

    assert problems("- &l0 [" + "x, " * 10 + "]\n" + "".join(levels)) == [
        "c.yaml: more than 100000 values, aliases written out"
    ]


def test_merge_of_what_is_no_block() -> None:
    """Only blocks can be merged."""
    assert problems("a:\n  <<: 5\n") == [
        "c.yaml:2: not YAML: while constructing a mapping expected a mapping or list of mappings for merging, but found scalar"
    ]


# Mistakes


def test_key_given_twice() -> None:
    """A key that is given twice is an error."""
    assert problems("a:\n  x: 1\n  y: 2\n  x: 3\n") == ["c.yaml:4: a.x: given twice"]


def test_every_key_given_twice_is_told() -> None:
    """All problems are found at once."""
    assert problems("a: 1\na: 2\nb: {c: 1, c: 2}\n") == [
        "c.yaml:2: a: given twice",
        "c.yaml:3: b.c: given twice",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1, 2\nb: 3\n", "c.yaml:1: not YAML: the [ that opens in this line is not closed by ], or a comma is missing, and line 2 goes on; text that begins with [ needs quotes"),
        ("a:\n\t- x\n", "c.yaml:2: not YAML: while scanning for the next token found character '\\t' that cannot start any token; indent with spaces: YAML allows no tab here"),
        ("a: b: c\n", "c.yaml:1: not YAML: mapping values are not allowed here; text that holds ': ' needs quotes"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: not YAML: expected a single document in the stream but found another document; the file must be one document: one map of keys"),
        ("a: 1\nb: \x07\n", "c.yaml:2: not YAML: it cannot hold the character 0x7"),
    ],
    ids=["flow", "tab", "colon", "documents", "bell"],
)  # fmt: skip
def test_what_is_no_yaml(text: str, problem: str) -> None:
    """A syntax error has its line."""
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {url: b, password: ${PW}}", "c.yaml:1: not YAML: password: variables such as ${PW} are not replaced; write password: !env PW"),
        ("a:\n  b: {password: ${PW:-x}}", "c.yaml:2: not YAML: password: variables such as ${PW} are not replaced; write password: !env PW"),
        ("a: {url: redis://u:${PW}@h}", "c.yaml:1: not YAML: url: variables such as ${PW} are not replaced; leave the password out of the address and write password: !env PW"),
        ("a: [b, ${PW}]", "c.yaml:1: not YAML: variables such as ${PW} are not replaced; write !env PW"),
    ],
    ids=["value", "default", "address", "item"],
)  # fmt: skip
def test_variable_in_brackets(text: str, problem: str) -> None:
    """The brace of a variable ends the YAML: the error names the key and the tag to use."""
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("0x_", "int"),
        ("0b_", "int"),
        ("!!int many", "int"),
        ("!!bool perhaps", "bool"),
    ],
)
def test_value_that_only_looks_like_one(value: str, kind: str) -> None:
    """A value that YAML misreads as a number or a truth value must be quoted; the message does not show it."""
    assert problems(f"a: 1\nb: {value}\n") == [
        f"c.yaml:2: b: is not a valid YAML {kind}: put it in quotes"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("password: *hunter2\n", 'c.yaml:1: not YAML: found undefined alias (text that begins with its sign needs quotes); text that begins with * needs quotes: "*"'),
        ("password: !hunter2\n", "c.yaml:1: password: unknown tag; there are !env, !file and !credential (text that begins with ! needs quotes)"),
        ("password: !hun!ter2 x\n", "c.yaml:1: not YAML: while parsing a node found undefined tag handle (text that begins with its sign needs quotes)"),
        ("a: &hunter2 x\nb: &hunter2 y\n", "c.yaml:2: not YAML: found duplicate anchor (text that begins with its sign needs quotes); first occurrence second occurrence"),
    ],
    ids=["alias", "tag", "handle", "anchor"],
)  # fmt: skip
def test_password_that_yaml_takes_for_a_name(text: str, problem: str) -> None:
    """A password that needs quotes is an error that does not show it."""
    found = problems(text)

    assert "hunter2" not in found[0]
    assert "ter2" not in found[0]
    assert found == [problem]


@pytest.mark.parametrize(
    "text", ["a: !what {b: 1}\n", "a: !what [1]\n", "a: !what x\n", "a: !ENV X\n"]
)
def test_unknown_tag(text: str) -> None:
    """An unknown tag is an error on any value."""
    assert problems(text) == [
        "c.yaml:1: a: unknown tag; there are !env, !file and !credential (text that begins with ! needs quotes)"
    ]


@pytest.mark.parametrize("text", ["a: !env [X]\n", "a: !env {X: 1}\n"])
def test_tag_on_several_values(text: str) -> None:
    """Our tags take one name."""
    assert problems(text) == ["c.yaml:1: a: !env takes one name"]


@pytest.mark.parametrize("text", ["12:30", "190:20:30", "1:30.5", "-1:30", "+1:00:00"])
def test_number_with_colons_is_a_text(text: str) -> None:
    """A plain value with colons is what it looks like, not a number in base 60."""
    document = Document("c.yaml", f"a: {text}\n{text}: b\n")

    assert (document.value, document.problems) == ({"a": text, text: "b"}, [])


def test_python_objects_are_not_made() -> None:
    """No tag makes the loader call anything."""
    [problem] = problems("a: !!python/object/apply:os.system ['true']\n")

    assert problem.startswith("c.yaml:1: a: unknown tag")


@pytest.mark.parametrize("sign", ["=", "<<"])
def test_sign_that_yaml_has_a_type_for(sign: str) -> None:
    """The values `=` and `<<` are texts."""
    assert sound(f"a: {sign}\n").value == {"a": sign}


# Values from elsewhere


def test_value_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`!env` is replaced by the value of the variable."""
    monkeypatch.setenv("STUB_PASSWORD", "hunter2")

    assert sound("a: !env STUB_PASSWORD\n").value == {"a": "hunter2"}


def test_variable_with_the_end_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the last line of a variable is removed, as of a file."""
    monkeypatch.setenv("STUB_PASSWORD", "hunter2\n")

    assert sound("a: !env STUB_PASSWORD\n").value == {"a": "hunter2"}


def test_comment_behind_a_password() -> None:
    """A comment after a password is accepted if the password is quoted, or a space follows the #."""
    text = "password: abc  # of redis\nx: {password: 'abc' #old\n}\ny: a #b\n"

    assert sound(text).value == {"password": "abc", "x": {"password": "abc"}, "y": "a"}


@pytest.mark.parametrize("text", [r'"a\nb: c"', "'a\n\n  b'", "|\n  a\n  b: c\n", '"b: c"'])
def test_text_of_several_lines(text: str) -> None:
    """A text may have several lines and colons; a quoted one must not contain a line that looks like a key."""
    assert isinstance(sound(f"x: {text}\n").value["x"], str)


def test_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing variable is named with its location."""
    monkeypatch.delenv("STUB_PASSWORD", raising=False)

    assert problems("a: 1\nb: !env STUB_PASSWORD\n") == [
        "c.yaml:2: b: !env STUB_PASSWORD: no such environment variable"
    ]


def test_secret_without_an_end(tmp_path: Path) -> None:
    """A device, a pipe or a huge file is refused as a secret, without reading it to its end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"x" * (1024 * 1024 + 1))
    file = tmp_path / "c.yaml"

    document = Document(str(file), "a: !file /dev/zero\nb: !file pipe\nc: !file huge\n")

    assert [problem.message for problem in document.problems] == [
        "!file /dev/zero: /dev/zero: not a regular file",
        f"!file pipe: {tmp_path}/pipe: not a regular file",
        f"!file huge: {tmp_path}/huge: larger than 1048576 bytes",
    ]


def test_settings_that_are_too_large(tmp_path: Path) -> None:
    """A file with more than any settings have is refused after a limit."""
    file = tmp_path / "c.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)

    with pytest.raises(ConfigError, match="larger than 16777216 bytes"):
        read(file)


def test_settings_that_are_no_file(tmp_path: Path) -> None:
    """A device or a pipe as the settings file is refused without being opened."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for path in (Path("/dev/zero"), pipe):
        with pytest.raises(ConfigError, match=f"{path}: not a regular file"):
            read(path)


def test_value_from_a_file(tmp_path: Path) -> None:
    """`!file` is replaced by the content of the file, without the end of its last line."""
    (tmp_path / "secret").write_text("two\nlines\r\n\n")
    (tmp_path / "absolute").write_text("x")
    (tmp_path / "c.yaml").write_text(f"a: !file secret\nb: !file {tmp_path}/absolute\n")

    assert read(tmp_path / "c.yaml").value == {"a": "two\nlines", "b": "x"}


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The errors of all unreadable files are reported at once, in the words of the system."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    file = str(tmp_path / "c.yaml")

    found = problems(
        'a: !file missing\nb: !file binary\nc: !file folder\nd: !file "nul\\0"\n', file
    )

    assert found == [
        f"{file}:1: a: !file missing: {tmp_path}/missing: No such file or directory",
        f"{file}:2: b: !file binary: not UTF-8",
        f"{file}:3: c: !file folder: {tmp_path}/folder: Is a directory",
        f"{file}:4: d: !file nul\0: embedded null byte",
    ]


def test_value_from_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`!credential` is replaced by a credential of systemd."""
    (tmp_path / "redis").write_text("hunter2\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert sound("a: !credential redis\n").value == {"a": "hunter2"}


def test_credential_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a service the error explains how to provide a credential."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    assert problems("a: !credential redis\n") == [
        "c.yaml:1: a: !credential redis: no CREDENTIALS_DIRECTORY: run as a systemd service with LoadCredential=redis:PATH, or set the variable to the folder that holds the file"
    ]


@pytest.mark.parametrize("name", ["../redis", "a/b", "/etc/passwd", "..", ".", '""'])
def test_credential_that_is_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a credential must not leave the folder of credentials."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    [problem] = problems(f"a: !credential {name}\n")

    assert problem.endswith(": the name of a credential must not contain a slash")


def test_credential_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing credential is named."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert problems("a: !credential redis\n") == [
        f"c.yaml:1: a: !credential redis: {tmp_path}/redis: No such file or directory"
    ]


def test_values_from_elsewhere_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values from outside of the file are not quoted in messages."""
    monkeypatch.setenv("STUB_PASSWORD", "hunter2")
    value = sound("!env STUB_PASSWORD").value

    assert isinstance(value, Hidden)
    assert repr(value) == "<hidden>"
    assert "hunter2" not in f"{[value]}"


def test_secret_that_is_overridden_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of overridden merged keys are not read."""
    monkeypatch.delenv("STUB_MISSING", raising=False)
    monkeypatch.setenv("STUB_PASSWORD", "hunter2")
    text = (
        "- &base {user: a}\n- <<: {password: !env STUB_MISSING}\n  password: !env STUB_PASSWORD\n"
    )

    assert sound(text).value[1] == {"password": "hunter2"}


# Files


def test_file_that_is_missing(tmp_path: Path) -> None:
    """The error about a missing settings file has its path."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "c.yaml")

    assert str(caught.value) == f"{tmp_path}/c.yaml: cannot be read: No such file or directory"


def test_file_that_is_no_text(tmp_path: Path) -> None:
    """The error about another encoding names the path and the byte."""
    (tmp_path / "c.yaml").write_bytes("a: ü".encode("latin-1"))

    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "c.yaml")

    assert str(caught.value) == f"{tmp_path}/c.yaml: not UTF-8 at byte 3: save it as UTF-8"


def test_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark is ignored."""
    (tmp_path / "c.yaml").write_text("\ufeffa: 1\n", encoding="utf-8")

    assert read(tmp_path / "c.yaml").value == {"a": 1}


@given(st.text() | st.text("abc01 :-[]{},&*!<>|'\"\n\t#?%@~._=\\", max_size=40))
def test_any_text_is_a_document_or_an_error_with_its_place(text: str) -> None:
    """Any text gives values or a ConfigError."""
    try:
        document = Document("c.yaml", text)
    except ConfigError as error:
        assert error.problems  # noqa: PT017  # either is fine
    else:
        document.line(("any", 0))
