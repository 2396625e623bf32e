# One command per purpose. Needs make and Python >= 3.11 with venv; everything else is installed into .venv.
#   make run ADDRESS=127.0.0.1:9100       another address
#   make test ARGS='-k redis -x'          arguments for pytest (run, bench: for the program)
#   make PYTHON=/opt/python3.12/bin/python3 run     a Python for a new .venv

ADDRESS ?= :19100
RULES ?= ../shared/conformance/queries/rules.json
BIN := .venv/bin

# Python of .venv where it is named; otherwise the system's if it is new enough, else another one.
NAMED := $(PYTHON)
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)
endif

# A .venv works if its Python starts and is new enough, and its programs are those of this folder. One that
# works is never made again: an exporter may be running from it.
WORKS := $(shell case "$$(cat .venv/bin/pip 2>/dev/null)" in (*"$(CURDIR)/.venv/"*) \
	.venv/bin/python -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null;; esac)

# The names of the stamp files contain a checksum of what .venv was filled from. It is filled again when one of
# these changes: the requirements, or the collectors (an entry point each).
SOURCES := setup.py pyproject.toml exporters/bts_exporter/__init__.py examples/bts/pyproject.toml
COLLECTORS := $(sort $(wildcard collectors/bts_collectors/*.py collectors/bts_collectors/*/__init__.py))
INSTALLED := $(firstword $(shell { cat $(SOURCES); echo $(COLLECTORS); } | cksum))
FOR_RUNNING := .venv/for-running-$(INSTALLED)
FOR_DEMO := .venv/for-demo-$(INSTALLED)
FOR_WORKING := .venv/for-working-$(INSTALLED)
LINT := PYTHONPATH=monitoring $(BIN)/python -m lint
LINT_NEEDS := prometheus prometheus-alertmanager

.PHONY: help run demo test test-long check rules dashboards cli-pages bench bench-bts lag-truth compatibility deb lock clean
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST))

run: $(FOR_RUNNING) ## serve the metrics of this machine and of the brokers in config.yaml
	@echo 'Starting bts-exporter; Ctrl-C stops it. The log says "listening" once it serves' \
		'http://$(if $(filter :%,$(ADDRESS)),localhost)$(ADDRESS)/metrics'
	@exec $(BIN)/bts-exporter --config.file=config.yaml --web.listen-address=$(ADDRESS) $(ARGS)

demo: $(FOR_DEMO) ## run the BTS service with brokers, Prometheus and Alertmanager (examples/bts; Ctrl-C stops all of it)
	@exec $(BIN)/python -m bts.demo $(ARGS)

test: $(FOR_WORKING) ## run all tests with real servers; installs missing servers if permitted
	@tests/install-servers.sh
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup $(ARGS)

# The number of histories is that for each server version; BTS_HISTORIES=100 makes it shorter.
test-long: $(FOR_WORKING) ## run every fault of the BTS demo, thousands of random histories, scrapers for a minute, and build the image
	@tests/install-servers.sh
	@BTS_ALL_FAULTS=1 $(BIN)/python -m pytest $(ARGS) examples/bts/tests/test_faults.py
	@BTS_HISTORIES=4000 $(BIN)/python -m pytest --timeout=7200 $(ARGS) \
		tests/collectors/rabbitmq/test_lag_histories.py
	@BTS_HISTORIES=1000 $(BIN)/python -m pytest --timeout=7200 $(ARGS) \
		tests/live/test_redis_lag_property.py
	@PYTHONPATH=tests $(BIN)/python benchmarks/lag_truth.py
	@BTS_STORM_SECONDS=60 $(BIN)/python -m pytest --timeout=600 $(ARGS) \
		tests/exporter/test_robust_clients.py
	@tests/install-servers.sh buildah debootstrap
	@$(BIN)/python -m pytest --timeout=600 $(ARGS) tests/test_image.py

check: $(FOR_WORKING) ## run the linters, type checks and import rules, and check alert rules and dashboards
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	@tests/install-servers.sh $(LINT_NEEDS)
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/monitoring/test_dashboards.py
	$(LINT)

rules: $(FOR_WORKING) ## check alert rules, their tests and runbooks, and the settings of Prometheus and Alertmanager
	@tests/install-servers.sh $(LINT_NEEDS)
	@$(LINT)

dashboards: $(FOR_WORKING) ## write the dashboards in monitoring/grafana/dashboards from the code that builds them
	@PYTHONPATH=monitoring $(BIN)/python -m grafana.builder

cli-pages: $(FOR_WORKING) ## write the man page and the shell completions from the command line's parser
	@$(BIN)/python docs/cli_pages.py

bench: $(FOR_WORKING) ## measure the cost, compared with the exporters that are replaced
	@tests/install-servers.sh
	@tests/install-servers.sh prometheus-redis-exporter prometheus-mqtt-exporter
	@$(BIN)/python benchmarks/run.py $(ARGS)

# ARGS='"Redis list" Celery --seconds=60' measures these kinds of queues for a minute.
lag-truth: $(FOR_WORKING) ## measure the error of the lag of every kind of queue for eight minutes; writes docs/lag-error.md
	@tests/install-servers.sh
	@PYTHONPATH=tests $(BIN)/python benchmarks/lag_truth.py $(or $(ARGS),--write)

# ARGS='slow-consumer burst' measures only these faults. All of them take five hours.
bench-bts: $(FOR_WORKING) ## measure the throughput of the BTS service, and how soon its faults are detected; writes docs/bts.md
	@tests/install-servers.sh
	@PYTHONPATH=tests:examples/bts/tests $(BIN)/python benchmarks/bts_throughput.py
	@PYTHONPATH=tests:examples/bts/tests $(BIN)/python benchmarks/bts_detection.py $(ARGS)

compatibility: $(FOR_WORKING) ## measure which public alert rules return data (RULES=FILE), and write docs/compatibility.md
	@tests/install-servers.sh
	@$(BIN)/python benchmarks/compatibility.py $(RULES)

deb: $(FOR_RUNNING) ## build the Debian package, for this machine's Debian or Ubuntu, in dist/
	@packages/build-deb $(BIN)/pip

# Every version and hash that the Debian package and the image install, for all platforms.
LOCK := $(BIN)/uv --quiet pip compile --universal --python-version 3.11 --generate-hashes --upgrade --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock: $(FOR_RUNNING) ## pin the newest permitted versions of the requirements, in packages/
	@$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@$(LOCK) --output-file packages/requirements.lock setup.py >/dev/null
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml \
		| $(LOCK) --output-file packages/build-requirements.lock - >/dev/null

clean: ## remove everything that the other commands created
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

ifeq ($(WORKS),True)
$(FOR_RUNNING) $(FOR_DEMO) $(FOR_WORKING): | same-python
else
$(FOR_RUNNING) $(FOR_DEMO) $(FOR_WORKING): new-venv
endif

# sys.version names the release, the day of the build and the compiler: the path does not matter.
.PHONY: same-python
same-python:
	@[ -z "$(NAMED)" ] || [ "$$($(NAMED) -c 'import sys; print(sys.version)')" = \
		"$$($(BIN)/python -c 'import sys; print(sys.version)')" ] \
		|| { echo ".venv works and has another Python ($$($(BIN)/python -V)) than $(NAMED)." \
		"To replace it, end what runs from it, then: make clean" >&2; exit 1; }

.PHONY: new-venv
new-venv:
	@[ -n "$(PYTHON)" ] || { echo "bts-exporter needs Python >= 3.11, and python3 here is" \
		"$$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing)." \
		"Install a newer one, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual" \
		"environments. On Debian and Ubuntu: sudo apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv

$(FOR_RUNNING):
	@echo 'Installing bts-exporter into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(FOR_DEMO):
	@echo 'Installing bts-exporter and the BTS service into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable . --editable examples/bts
	@touch $@ $(FOR_RUNNING)

$(FOR_WORKING):
	@echo 'Installing bts-exporter, its tests and checks into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]' \
		--editable examples/bts
	@touch $@ $(FOR_RUNNING) $(FOR_DEMO)
