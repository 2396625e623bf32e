"""A pytest plug-in: in CI a live test that is skipped has failed, since it tested nothing."""  # noqa: INP001

from __future__ import annotations

from collections.abc import Generator

import pytest

#: Beginning of the reason of a skip that is right: what the test needs is in no package.
NOT_EVERYWHERE = "not everywhere: "


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of a skipped live test into one of a failure with the same reason."""
    report = yield
    if report.skipped and item.get_closest_marker("live") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(NOT_EVERYWHERE):
            report.outcome = "failed"
            report.longrepr = f"a live test must not be skipped in CI: {reason}"
    return report
