"""Fixtures for all tests: real servers, each in the file of its name; and which tests must not run side by side."""

import logging

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

#: Files whose tests run the demo, on its usual ports if they are free. They take the longest, and start first.
DEMO = ("test_tutorial.py", "test_demo.py", "test_faults.py", "test_one_target.py")

# Hypothesis fails an example that takes longer than 200 ms: on a busy machine that says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

pytest_plugins = [
    "servers.browser",
    "servers.certificates",
    "servers.exporter",
    "servers.machine",
    "servers.mosquitto",
    "servers.mqttfake",
    "servers.mqtt",
    "servers.prometheus",
    "servers.push_receiver",
    "servers.rabbitmq",
    "servers.redis",
    "servers.redis_groups",
    "servers.redis_proxy",
    "servers.redis_versions",
    "servers.monitored",  # imports the others
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of the demo."""
    items.sort(key=lambda item: item.path.name not in DEMO)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Keep the tests of a file in one process, which share its fixtures, and all those of the demo."""
    return Files(config, log)


class Files(LoadScopeScheduling):
    """Gives whole files to the processes."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "demo" if file.endswith(DEMO) else file


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Undo what commands that another test called in this process may have set: a level, a handler, silence."""
    logging.getLogger("bts_exporter").setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:
        root.removeHandler(handler)
