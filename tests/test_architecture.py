"""Which module may import which, and the habits that no linter checks."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import bts_exporter

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "exporters" / "bts_exporter"
COLLECTORS = ROOT / "collectors" / "bts_collectors"
MONITORING = ROOT / "monitoring"
TESTS = ROOT / "tests"

#: The engine from its top to its ground: a module imports only from rows below its own, so that
#: no two import each other. The package itself is what plug-in authors import.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("flags",),
    ("new_collector", "run_collector"),
    ("commands", "lag_command", "password_hash"),
    ("client", "inventory", "lag_table", "push.command", "target_report", "testing"),
    (
        "test_kit.collecting",
        "test_kit.declarations",
        "test_kit.exporter_process",
        "test_kit.golden",
        "test_kit.restarting",
        "test_kit.running",
    ),
    ("test_kit.http_server", "test_kit.samples"),
    ("push.sender",),
    ("push.buffer", "push.protocol", "push.receiver"),
    ("push.http_config", "push.otlp", "push.pushgateway", "push.remote_write"),
    ("push.remote_write_messages", "push.series"),
    ("service",),
    ("collection.state_store",),
    ("access.gate",),
    ("access.web_config",),
    ("access.rate_limit", "access.tls_context"),
    ("access.web_settings",),
    ("access.tls_names",),
    ("web.routes", "live.background_scrape"),
    ("web.api", "web.live_api", "web.status_page"),
    ("live.report", "web.assets", "web.json_response"),
    ("collection.builder", "page_service"),
    ("live.recorder",),
    ("collection.collector_set", "lag_report", "live.host_figures", "self_metrics"),
    ("collection.background", "fleet.targets"),
    ("fleet.ansible_inventory", "fleet.own_inventory"),
    ("fleet.host_ranges",),
    ("fleet.machines",),
    (
        "settings.example",
        "settings.json_schema",
        "settings.metric_filters",
        "collection.registry",
        "collection.runner",
    ),
    ("collection.state_file",),
    ("collection.collection", "collection.type_check"),
    ("settings.loader", "bts_exporter"),
    ("sample_check",),
    (
        "collection.plugin_modules",
        "collection.prometheus_client_adapter",
        "backlog",
        "exposition.page",
        "histogram_accumulator",
        "live.ring",
        "http_client",
        "prometheus_text",
        "settings.defaults",
        "settings.schema",
        "web.server",
    ),
    ("exposition.templates", "http_connection", "settings.misplaced_keys"),
    ("exposition.formats", "http_dialing", "http_limits", "http_proxy", "settings.field_types"),
    ("web.origin", "collection.outcome", "web.refusals", "live.fixes", "live.headline"),
    (
        "connection_errors",
        "web.descriptors",
        "web.protocol",
        "web.listener",
        "plugin",
        "collection.plugin_file",
        "settings.tls",
        "settings.yaml_document",
    ),
    ("scrape",),
    ("settings.literals", "scrape_state", "metric"),
    ("settings.yaml_errors",),
    ("web.connections", "logs"),
    (
        "access.passwords",
        "access.watched_files",
        "web.accept",
        "web.client_hello",
        "address_watch",
        "certificate",
        "deprecation",
        "errors",
        "http_response",
        "human_units",
        "immutable",
        "web.incoming",
        "collection.worker",
        "line_writer",
        "matches",
        "name_filter",
        "settings.descriptions",
        "settings.limits",
        "settings.ownership",
        "stored_state",
        "settings_watch",
        "web.vital_signs",
        "printable",
        "push.options",
        "push.totals",
        "reload_state",
        "sd_notify",
        "settings.value_types",
    ),
)

#: Where any error may be caught, and why. A plug-in's own code is called in the first seven.
CATCH_ALL = {
    "collection.runner": "collect, save_state, start and stop of a collector",
    "inventory": "the metrics that a collector names for its settings",
    "target_report": "what a collector says its patterns matched",
    "collection.registry": "the import of a plug-in",
    "collection.builder": "the constructor of a collector",
    "settings.schema": "a plug-in's own checks of its settings",
    "settings.defaults": "a plug-in's functions that make defaults",
    "collection.plugin_modules": "the import of a plug-in, to go back to the version before",
    "settings.json_schema": "a plug-in's own schema of a type",
    "errors": "the text of a plug-in's own error",
    "page_service": "passed on to every scrape that waits for the same page",
    "line_writer": "the text of what is logged, which may be a plug-in's object",
    "web.protocol": "a defect of ours becomes status 500",
    "web.server": "a defect of ours ends one connection",
    "collection.worker": "the thread that collections run in outlives what they raise",
    "service": "a reload runs plug-ins' code, and none may end the process",
}

MAX_LINES_OF_A_FILE = 500
MAX_LINES_OF_A_FUNCTION = 60
MEDIAN_LINES_OF_A_FUNCTION = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*roots: Path) -> list[Path]:
    """Return every Python file below `roots`."""
    return sorted(path for root in roots for path in root.rglob("*.py"))


def named(path: Path) -> str:
    """Return a path as failures show it."""
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what a file imports: a module, and the names that are taken from it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}:{node.lineno}: relative import"
            yield node.module or "", [alias.name for alias in node.names]


def is_module_of_engine(path_to: Sequence[str]) -> bool:
    """Return whether these names below bts_exporter lead to a module."""
    return ENGINE.joinpath(*path_to).with_suffix(".py").is_file()


def is_package(path: Path) -> bool:
    """Return whether a file only says what its folder is for."""
    return path.name == "__init__.py" and path.parent not in {ENGINE, COLLECTORS}


def module_of_engine(path: Path) -> str:
    """Return a module of the engine as the table names it, such as `web.server`."""
    if path == ENGINE / "__init__.py":
        return "bts_exporter"
    return ".".join(path.relative_to(ENGINE).with_suffix("").parts)


def engine_imports(path: Path) -> set[str]:
    """Return the modules of the engine that one of them imports."""
    found: set[str] = set()
    for module, names in imports(path):
        if module.partition(".")[0] == "bts_exporter":
            below = module.split(".")[1:]
            for name in names or [""]:
                path_to = [*below, name] if is_module_of_engine([*below, name]) else below
                found.add(".".join(path_to) or "bts_exporter")
    return found


def functions(path: Path) -> Iterator[Function]:
    """Yield every function, nested ones too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Return how many lines a function has."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def broad_handlers(path: Path) -> list[int]:
    """Return the lines where any error is caught."""
    lines = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {None if c is None else getattr(c, "id", "") for c in caught}
            if names & {None, "Exception", "BaseException"}:
                lines.append(node.lineno)
    return lines


# Which module imports which


def test_every_module_has_its_layer() -> None:
    """A new module gets its place in the table, and one that is gone leaves it."""
    table = [module for layer in LAYERS for module in layer]
    modules = {module_of_engine(path) for path in sources(ENGINE) if not is_package(path)}

    assert sorted(table) == sorted(modules)


@pytest.mark.parametrize("layer", range(len(LAYERS)), ids=lambda i: ",".join(LAYERS[i]))
def test_imports_of_the_engine_go_down(layer: int) -> None:
    """A module imports only from layers below its own."""
    below = {module for lower in LAYERS[layer + 1 :] for module in lower}
    wrong = {}
    for module in LAYERS[layer]:
        path_to = ["__init__"] if module == "bts_exporter" else module.split(".")
        path = ENGINE.joinpath(*path_to).with_suffix(".py")
        if found := engine_imports(path) - below:
            wrong[module] = sorted(found)

    assert wrong == {}


def test_folders_of_the_engine_hold_nothing_themselves() -> None:
    """The __init__.py of a folder has a docstring that says what is in it, and no code."""
    packages = [path for path in sources(ENGINE) if is_package(path)]

    assert [named(path) for path in packages if len(tree(path).body) != 1] == []
    assert len(packages) == 10


def test_engine_does_not_know_the_collectors_we_ship() -> None:
    """What we ship takes the road of every plug-in: nothing in the engine names it."""
    knowing = [named(path) for path in sources(ENGINE) if "bts_collectors" in path.read_text()]

    assert knowing == []


def test_collectors_import_only_the_public_api() -> None:
    """A collector of ours could be anybody's: it uses what `bts_exporter` exports, and nothing else of it."""
    wrong = [
        f"{named(path)}: from {module} import {', '.join(names)}"
        for path in sources(COLLECTORS)
        for module, names in imports(path)
        if module.partition(".")[0] == "bts_exporter"
        and (module != "bts_exporter" or not names or not set(names) <= set(bts_exporter.__all__))
    ]

    assert wrong == []


def test_collectors_change_samples_only_by_the_public_methods() -> None:
    """The samples of a scrape are the engine's: the dry run of MQTT's rules reads those of its own."""
    found = [
        f"{named(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in sources(COLLECTORS)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value).endswith("scrape")
        and (node.attr.startswith("_") or node.attr in {"samples", "losses", "rejected", "closed"})
    ]

    assert [place.partition(":")[0] for place in found] == [
        "collectors/bts_collectors/mqtt/rules/dry_run.py"
    ]


def test_collectors_do_not_import_each_other() -> None:
    """A collector that is configured loads no other, and can be taken out by deleting it."""
    wrong = [
        f"{named(path)}: {module}"
        for path in sources(COLLECTORS)
        for module, _ in imports(path)
        if module.startswith("bts_collectors")
        and module.split(".")[1:2] != [path.relative_to(COLLECTORS).parts[0].removesuffix(".py")]
    ]

    assert wrong == []


def test_exported_names_are_sorted_and_there() -> None:
    """The list of what a module exports is in order, names each thing once, and each exists."""
    wrong = []
    for path in sources(ENGINE, COLLECTORS):
        top = tree(path).body
        for node in top:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                known = {
                    alias.asname or alias.name
                    for n in top
                    if isinstance(n, ast.ImportFrom)
                    for alias in n.names
                }
                known |= {n.name for n in top if isinstance(n, ast.ClassDef | ast.FunctionDef)}
                known |= {ast.unparse(n.targets[0]) for n in top if isinstance(n, ast.Assign)}
                if names != sorted(set(names)) or not set(names) <= known:
                    wrong.append(named(path))

    assert wrong == []


# Errors


def test_collectors_catch_no_error_that_they_do_not_know() -> None:
    """Isolation is the engine's: a collector that catches everything hides its defects."""
    assert {
        named(path): broad_handlers(path) for path in sources(COLLECTORS) if broad_handlers(path)
    } == {}


def test_engine_catches_every_error_only_where_it_must() -> None:
    """The places where any error is caught are few, and each has its reason in the table."""
    assert {module_of_engine(p) for p in sources(ENGINE) if broad_handlers(p)} == set(CATCH_ALL)


# Sizes and names


def test_no_file_is_too_long() -> None:
    """A file that is read is read whole."""
    lengths = {
        named(path): len(path.read_text().splitlines())
        for path in sources(ENGINE, COLLECTORS, MONITORING, TESTS)
    }

    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    """A function fits on a screen, and most of them into a glance."""
    found = {
        f"{named(path)}:{function.name}": length(function)
        for path in sources(ENGINE, COLLECTORS, MONITORING, TESTS)
        for function in functions(path)
    }
    own = [lines for name, lines in found.items() if not name.startswith("tests/")]

    assert {name: lines for name, lines in found.items() if lines > MAX_LINES_OF_A_FUNCTION} == {}
    assert statistics.median(own) <= MEDIAN_LINES_OF_A_FUNCTION


def test_source_roots_are_no_packages() -> None:
    """Packages called exporters or collectors would overwrite other people's when installed."""
    files = [
        named(path) for root in ("exporters", "collectors") for path in (ROOT / root).glob("*.py")
    ]

    assert files == []


def test_no_module_is_named_like_the_standard_librarys() -> None:
    """A module called `logging` is taken for the other one sooner or later."""
    ours = {path.stem for path in sources(ENGINE, COLLECTORS)} - {"__init__", "__main__"}

    assert ours & set(sys.stdlib_module_names) == set()


def test_no_module_is_a_junk_drawer() -> None:
    """A file is named by its noun."""
    drawers = {"base", "common", "helper", "helpers", "misc", "tools", "util", "utils"}

    assert [
        named(path) for path in sources(ENGINE, COLLECTORS, TESTS) if path.stem in drawers
    ] == []


def test_every_test_says_what_it_shows() -> None:
    """Each test has a sentence that states the behaviour."""
    silent = [
        f"{named(path)}:{function.name}"
        for path in sources(TESTS)
        for function in functions(path)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").endswith(".")
    ]

    assert silent == []
