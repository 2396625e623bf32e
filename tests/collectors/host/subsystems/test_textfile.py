from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bts_collectors.host.subsystems.textfile import Textfile
from bts_exporter import Scrape, TargetError

#: Served samples: name with suffix, labels that are not empty.
Served = dict[tuple[str, frozenset[tuple[str, str]]], float]


class View:
    """The result of one collection of text files."""

    def __init__(self, collector: Textfile) -> None:
        self.scrape = Scrape(monotonic() + 10)
        self.problem = ""
        try:
            collector.collect(self.scrape)
        except TargetError as error:
            self.problem = str(error)
        assert self.scrape.losses == []
        self.by_name = {metric.name: metric for metric in self.scrape.samples}
        assert len(self.by_name) == len(self.scrape.samples)

    @property
    def error(self) -> float:
        """Return node_textfile_scrape_error."""
        return self.scrape.samples[Textfile.error][()]

    @property
    def files(self) -> dict[str, float]:
        """Return node_textfile_mtime_seconds by the names of the files."""
        found = self.scrape.samples.get(Textfile.mtime, {})
        return {Path(path).name: changed for (path,), changed in found.items()}

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a metric; empty if it is not served."""
        return self.scrape.samples[self.by_name[name]] if name in self.by_name else {}

    def foreign(self) -> set[str]:
        """Return the names of the metrics that come from the files."""
        return self.by_name.keys() - {"node_textfile_mtime_seconds", "node_textfile_scrape_error"}


def collector(*directories: str | Path) -> Textfile:
    """Return a collector of the files in `directories`."""
    return Textfile(
        Textfile.Config(settings=Textfile.Settings(directories=tuple(map(str, directories))))
    )


@pytest.fixture
def view(tmp_path: Path) -> Callable[..., View]:
    """Give a function that writes files and collects them."""

    def look(**files: str) -> View:
        for name, content in files.items():
            (tmp_path / f"{name}.prom").write_text(content)
        return View(collector(tmp_path))

    return look


def test_samples_are_served(view: Callable[..., View]) -> None:
    """Metrics in files are served with their names, types and helps."""
    seen = view(
        a='# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{x="1"} 3\n',
        b="# TYPE age gauge\nage 1.5\n",
    )

    assert (seen.problem, seen.error, seen.foreign()) == ("", 0, {"jobs_total", "age"})
    assert seen.samples("jobs_total") == {("1",): 3}
    jobs = seen.by_name["jobs_total"]
    assert (jobs.kind, jobs.help, jobs.labels) == ("counter", "Jobs.", ("x",))
    assert seen.by_name["age"].kind == "gauge"


def test_when_files_changed(view: Callable[..., View], tmp_path: Path) -> None:
    """The modification time is served by path, for served files only."""
    (tmp_path / "good.prom").touch()
    os.utime(tmp_path / "good.prom", (1, 1700000000.5))

    seen = view(bad="garbage\n", empty="")

    assert seen.files["good.prom"] == 1700000000.5
    assert sorted(seen.files) == ["empty.prom", "good.prom"]


def test_invalid_file_loses_only_itself(view: Callable[..., View]) -> None:
    """A file with an invalid line is left out, with its line in the error; others are served."""
    seen = view(a="good 1\n", b="fine 1\nbad\n", c="also_good 2\n")

    assert (seen.error, seen.foreign()) == (1, {"good", "also_good"})
    assert seen.problem.endswith("b.prom: line 2: neither a comment nor a sample: 'bad'")


def test_timestamp(view: Callable[..., View]) -> None:
    """A file with a timestamp is left out as a whole."""
    seen = view(a="stamped 1 1441205977284\nplain 2\n", b="good 1\n")

    assert (seen.error, seen.foreign(), list(seen.files)) == (1, {"good"}, ["b.prom"])
    assert "a.prom: line 1: timestamps are not supported" in seen.problem


def test_file_without_its_end(view: Callable[..., View]) -> None:
    """A file whose last line has no end may be truncated, and is left out."""
    seen = view(a="bytes 12")

    assert (seen.error, seen.foreign()) == (1, set())


def test_missing_labels(view: Callable[..., View]) -> None:
    """Labels that only some samples of a metric have are empty for the others."""
    seen = view(a='x{a="1"} 1\nx{b="2"} 2\nx 3\n')

    assert seen.samples("x") == {("1", ""): 1, ("", "2"): 2, ("", ""): 3}


def test_one_metric_in_two_files(view: Callable[..., View]) -> None:
    """Files may share a metric, with different labels."""
    seen = view(a='x{file="a"} 1\n', b='x{file="b",y="1"} 2\n')

    assert (seen.error, seen.samples("x")) == (0, {("a", ""): 1, ("b", "1"): 2})


def test_differing_helps(view: Callable[..., View]) -> None:
    """If helps differ the first one is used, all samples are served, and it is an error."""
    seen = view(a='# HELP x One.\nx{f="a"} 1\n', b='# HELP x Two.\nx{f="b"} 2\n')

    assert (seen.error, seen.by_name["x"].help) == (1, "One.")
    assert seen.samples("x") == {("a",): 1, ("b",): 2}
    assert re.search(r"b.prom: x has a different help in \S+a.prom$", seen.problem)


@pytest.mark.parametrize("first", ["", "# HELP x\n"])
def test_help_in_one_file(view: Callable[..., View], first: str) -> None:
    """A help in one of the files is used, and is not an error."""
    seen = view(a=first + 'x{f="a"} 1\n', b='# HELP x Two.\nx{f="b"} 2\n')

    assert (seen.error, seen.by_name["x"].help) == (0, "Two.")


def test_no_help(view: Callable[..., View], tmp_path: Path) -> None:
    """A metric without a help gets one with the names of its files."""
    seen = view(a='x{f="a"} 1\n', b='x{f="b"} 2\n')

    assert seen.by_name["x"].help == f"Metric read from {tmp_path}/a.prom, {tmp_path}/b.prom"


def test_differing_types(view: Callable[..., View]) -> None:
    """If types differ the first one is used, and the other file's samples of the metric are left out."""
    seen = view(
        a='# TYPE x gauge\nx{f="a"} 1\n', b='# TYPE x counter\nx{f="b"} 2\ny 3\n', c='z{f="c"} 4\n'
    )

    assert (seen.error, seen.samples("x")) == (1, {("a",): 1})
    assert seen.foreign() == {"x", "y", "z"}
    assert re.search(r"b.prom: x is a gauge in \S+a.prom$", seen.problem)
    assert "b.prom" not in seen.by_name["x"].help


def test_duplicate_series_in_one_file(view: Callable[..., View]) -> None:
    """A file with a duplicate series is invalid, and does not affect other files."""
    seen = view(a="x 1\nx 2\ny 3\n", b="z 4\n")

    assert (seen.error, seen.foreign()) == (1, {"z"})
    assert seen.problem.endswith("a.prom: line 2: duplicate sample: 'x 2'")


def test_same_series_in_two_files(view: Callable[..., View]) -> None:
    """If two files have the same series the first one is served, and the rest of both files."""
    seen = view(a='x{l="1"} 1\n', b='x{l="2"} 3\nx{l="1",m=""} 2\ny 4\n')

    assert (seen.error, seen.samples("x"), seen.samples("y")) == (
        1,
        {("1",): 1, ("2",): 3},
        {(): 4},
    )
    assert re.search(r"b.prom: x has samples that are also in \S+a.prom$", seen.problem)


@pytest.mark.parametrize("kind", ["histogram", "summary"])
def test_distribution_in_two_files(view: Callable[..., View], kind: str) -> None:
    """If two files have the same histogram or summary, that of the first one is served as a whole."""
    bound = {"histogram": 'x_bucket{%sle="%s"} 1\n', "summary": 'x{%squantile="%s"} 1\n'}[kind]
    text = f"# TYPE x {kind}\n{bound}x_count{{%s}} 1\n"
    seen = view(
        a=text % ("", "0.1", ""),
        b=text % ("", "0.2", "") + bound % ('l="1",', "0.2") + 'x_count{l="1"} 1\n',
    )

    assert {key[-1] for key in seen.samples("x") if key[1] == ""} <= {"0.1", "+Inf", ""}
    assert [key for key in seen.samples("x") if key[:2] == ("_count", "1")] == [("_count", "1")]
    assert re.search(r"b.prom: x has samples that are also in \S+a.prom$", seen.problem)


def test_histograms_and_summaries(view: Callable[..., View]) -> None:
    """Buckets and quantiles are served unchanged, whatever other labels they have."""
    seen = view(
        a="# TYPE h histogram\n"
        'h_bucket{op="get",le="1"} 1\nh_bucket{op="get",le="+Inf"} 2\n'
        'h_sum{op="get"} 3\nh_count{op="get"} 2\n',
        b='# TYPE s summary\ns{quantile="0.5",h="x"} 1\ns{quantile="0.9"} 2\ns_sum 3\ns_count 4\n',
    )

    assert (seen.error, seen.by_name["h"].labels, seen.by_name["s"].labels) == (0, ("op",), ("h",))
    assert seen.samples("h") == {
        ("_bucket", "get", "1"): 1,
        ("_bucket", "get", "+Inf"): 2,
        ("_sum", "get"): 3,
        ("_count", "get"): 2,
    }
    assert seen.samples("s") == {
        ("", "x", "0.5"): 1,
        ("", "", "0.9"): 2,
        ("_sum", ""): 3,
        ("_count", ""): 4,
    }


def test_metrics_are_kept(tmp_path: Path) -> None:
    """An unchanged file gives the same metric objects, and those of a removed metric are dropped."""
    (tmp_path / "a.prom").write_text("x 1\ny 1\n")
    textfile = collector(tmp_path)
    before = View(textfile).by_name
    (tmp_path / "a.prom").write_text("x 2\n")
    after = View(textfile).by_name

    assert before["x"] is after["x"]
    assert len(textfile._metrics) == 1


def test_other_files_are_ignored(tmp_path: Path) -> None:
    """Only files named *.prom are read, so that jobs can write others in the same directory."""
    (tmp_path / "a.prom.tmp").write_text("half")
    (tmp_path / "README").write_text("words")

    assert (View(collector(tmp_path)).problem, View(collector(tmp_path)).error) == ("", 0)


def test_nothing_set() -> None:
    """Without directories there is no error, and node_textfile_scrape_error is 0."""
    seen = View(collector())

    assert (seen.error, seen.foreign()) == (0, set())


def test_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory may be relative to the working directory, with or without a trailing slash."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a.prom").write_text("x 1\n")
    monkeypatch.chdir(tmp_path)

    for folder in ("dir", "dir/"):
        assert list(View(collector(folder)).scrape.samples[Textfile.mtime]) == [("dir/a.prom",)]


def test_globs(tmp_path: Path) -> None:
    """A directory may be a glob; one that two globs match is read once."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.prom").write_text(f"{name} 1\n")

    seen = View(collector(tmp_path / "*", tmp_path / "one"))

    assert (seen.error, seen.foreign()) == (0, {"one", "two"})


def test_directory_with_special_characters(tmp_path: Path) -> None:
    """Special characters in the name of a directory that a glob matches have no meaning."""
    folder = tmp_path / "a[1]"
    folder.mkdir()
    (folder / "a.prom").write_text("x 1\n")

    assert View(collector(tmp_path / "a*")).foreign() == {"x"}


@pytest.mark.parametrize("what", ["absent", "file", "*nothing*"])
def test_missing_directory(tmp_path: Path, what: str) -> None:
    """A missing directory, or a file in its place, is an error with the path; others are read."""
    (tmp_path / "file").write_text("")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.prom").write_text("x 1\n")

    seen = View(collector(tmp_path / what, tmp_path / "good"))

    assert (seen.error, seen.foreign()) == (1, {"x"})
    assert f"{tmp_path}/{what}: " in seen.problem


def test_not_a_regular_file(view: Callable[..., View], tmp_path: Path) -> None:
    """A pipe, a directory, a device and a dangling link are errors, and none blocks."""
    os.mkfifo(tmp_path / "pipe.prom")
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "zero.prom").symlink_to("/dev/zero")
    (tmp_path / "link.prom").symlink_to("nowhere")

    seen = view(good="x 1\n")

    assert (seen.error, seen.foreign()) == (1, {"x"})
    for name in ("pipe", "folder", "zero"):
        assert f"{name}.prom: is not a regular file" in seen.problem
    assert "link.prom: No such file" in seen.problem


def test_nothing_stays_open(tmp_path: Path, opened: Callable[[], int]) -> None:
    """No file stays open, whatever the error."""
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "bad.prom").write_bytes(b"\xff")
    textfile = collector(tmp_path)
    View(textfile)

    assert opened() == 0


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(content=st.binary(min_size=1, max_size=200))
def test_binary_files(tmp_path: Path, content: bytes) -> None:
    """A file of arbitrary bytes is served, or named in an error; others are served."""
    (tmp_path / "a.prom").write_bytes(content)
    (tmp_path / "b.prom").write_text("good 1\n")

    seen = View(collector(tmp_path))

    assert "good" in seen.foreign()
    assert ("a.prom" in seen.files) is (f"{tmp_path}/a.prom: " not in seen.problem)


def test_settings_of_host() -> None:
    """The directories are a list in the settings of the host."""
    config: Any = Textfile.Config(settings=Textfile.Settings(directories=("a", "b")))

    assert Textfile(config).config.settings.directories == ("a", "b")
