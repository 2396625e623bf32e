from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lint.__main__ import main
from lint.metric_names import ROOT, listed_metrics
from lint.rules import check_rules
from servers import need

RULES = "monitoring/prometheus/rules/backlog.yml"
TESTS = "monitoring/prometheus/rule-tests/backlog.yml"
RUNBOOK = "docs/runbooks/ConsumerBehind.md"
EXTRA = """\
groups:
  - name: extra
    rules:
      - alert: Extra
        expr: up == 0
        labels: {severity: warning}
        annotations: {summary: s, description: d, runbook_url: docs/runbooks/Extra.md}
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what the lint reads, which a test may break."""
    for folder in ("monitoring/prometheus", "docs/runbooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def listed() -> list[dict[str, str]]:
    """Return the exporter's metrics."""
    return listed_metrics()


def problems(root: Path, listed: list[dict[str, str]]) -> str:
    """Return what is wrong with the rules, tests and runbooks below `root`, a line each."""
    return "\n".join(["", *check_rules(root, listed)])


def replace(path: Path, old: str, new: str) -> None:
    """Replace the first `old` in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_repository_has_no_problem() -> None:
    """The shipped rules, tests, runbooks and settings pass."""
    need("promtool", "prometheus")
    need("amtool", "prometheus-alertmanager")

    assert main(ROOT) == 0


@pytest.mark.live
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        pytest.param(RULES, "messaging_lag_seconds", "sum(", id="not PromQL"),
        pytest.param(RULES, "for: 5m", "for: soon", id="not a duration"),
        pytest.param(RULES, "> 300", "> 500", id="alert that does not fire any more"),
        pytest.param(
            "monitoring/prometheus/alertmanager.yml",
            "receiver: on-call",
            "receiver: off-call",
            id="Alertmanager's settings",
        ),
        pytest.param(
            "monitoring/prometheus/prometheus.yml",
            "scrape_interval: 15s",
            "scrape_intervall: 15s",
            id="Prometheus' settings",
        ),
    ],
)
def test_file_that_a_tool_refuses_is_named(
    path: str, old: str, new: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What promtool or amtool refuses fails the lint, which names the file, or the test that fails."""
    need("promtool", "prometheus")
    need("amtool", "prometheus-alertmanager")
    (copy / "monitoring/prometheus/rule-tests/brokers.yml").unlink()  # takes seconds
    replace(copy / path, old, new)

    assert main(copy) == 1
    culprit = TESTS if old == "> 300" else path
    assert f"\n{culprit}: `" in f"\n{capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        pytest.param((RULES, "groups:", "groups: ["), RULES, id="not YAML"),
        pytest.param((RULES, "groups:", "tests: []\ngroups:"), RULES, id="not only rules"),
        pytest.param(
            (RULES, "messaging_backlog_messages > 0", "messaging_backlogs > 0"),
            f"{RULES}: BacklogWithoutConsumer: no collector declares the metric messaging_backlogs",
            id="unknown metric",
        ),
        pytest.param(
            (RULES, "severity: warning", "severity: bad"),
            f"{RULES}: ConsumerBehind: the label severity is 'bad'",
            id="unknown severity",
        ),
        pytest.param(
            (RULES, "          description: ", "          cause: "),
            f"{RULES}: ConsumerBehind: the annotation description is missing",
            id="no description",
        ),
        pytest.param(
            (RULES, RUNBOOK, "docs/runbooks/LagUnknown.md"),
            f"{RULES}: ConsumerBehind: runbook_url does not end in {RUNBOOK}",
            id="another runbook",
        ),
        pytest.param(
            (RUNBOOK, "## When to ignore it", "## Notes"),
            f"{RUNBOOK}: the section `## When to ignore it` is missing",
            id="runbook without a section",
        ),
        pytest.param(
            (RUNBOOK, "\n3. ", "\n- "), f"{RUNBOOK}: step `3.`", id="runbook without a step"
        ),
        pytest.param(
            (RUNBOOK, "messaging_consumers{", "messaging_consumer{"),
            f"{RUNBOOK}: no collector declares the metric messaging_consumer",
            id="runbook with an unknown metric",
        ),
        pytest.param(
            ("docs/runbooks/README.md", "(ConsumerBehind.md)", "()"),
            f"{RUNBOOK}: docs/runbooks/README.md has no link to it",
            id="runbook that is not in the list",
        ),
    ],
)
def test_culprit_is_named(
    change: tuple[str, str, str], culprit: str, copy: Path, listed: list[dict[str, str]]
) -> None:
    """A mistake in a rule or a runbook fails the lint, which names the file and the alert."""
    path, old, new = change
    replace(copy / path, old, new)

    assert f"\n{culprit}" in problems(copy, listed)


def test_missing_runbook_is_named(copy: Path, listed: list[dict[str, str]]) -> None:
    """An alert whose runbook was deleted fails the lint."""
    (copy / RUNBOOK).unlink()

    assert f"{RULES}: ConsumerBehind: the runbook {RUNBOOK} is missing" in problems(copy, listed)


def test_runbook_without_an_alert_is_named(copy: Path, listed: list[dict[str, str]]) -> None:
    """A runbook of an alert that was deleted or renamed fails the lint."""
    (copy / RUNBOOK).rename(copy / "docs/runbooks/ConsumerLate.md")

    assert "docs/runbooks/ConsumerLate.md: there is no alert" in problems(copy, listed)


def test_alert_without_tests_is_named(copy: Path, listed: list[dict[str, str]]) -> None:
    """A new alert needs a test in which it fires, and one in which it does not."""
    (copy / "monitoring/prometheus/rules/extra.yml").write_text(EXTRA)

    found = problems(copy, listed)
    for what in ("in which it fires", "in which it does not fire"):
        assert (
            f"rules/extra.yml: Extra: no test in monitoring/prometheus/rule-tests {what}" in found
        )


def test_alert_that_is_tested_half_is_named(copy: Path, listed: list[dict[str, str]]) -> None:
    """An alert that no test sees silent fails the lint; so does a test of an alert that does not exist."""
    path = copy / TESTS
    path.write_text(
        path.read_text().replace(
            "alertname: LagUnknown\n        exp_alerts: []",
            "alertname: Gone\n        exp_alerts: []",
        )
    )

    found = problems(copy, listed)
    assert (
        f"{RULES}: LagUnknown: no test in monitoring/prometheus/rule-tests in which it does not fire"
        in found
    )
    assert f"{TESTS}: Gone: there is no such alert" in found


def test_alert_that_is_defined_twice_is_named(copy: Path, listed: list[dict[str, str]]) -> None:
    """Two alerts with one name cannot have a runbook each."""
    shutil.copy(copy / RULES, copy / "monitoring/prometheus/rules/copy.yml")

    assert "ConsumerBehind: an alert with this name is in" in problems(copy, listed)


@pytest.mark.parametrize("ci", ["true", ""])
def test_missing_promtool_is_an_error_in_ci_only(
    ci: str, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without promtool its checks are left out with a note, and in CI the lint fails."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("CI", ci)

    assert main(copy) == bool(ci)
    assert "promtool is missing: apt-get install prometheus" in capsys.readouterr().err
