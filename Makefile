# One command per purpose. Needs make and Python >= 3.11 with venv; everything else is installed into .venv.
#   make run ADDRESS=127.0.0.1:9100       another address
#   make test ARGS='-k redis -x'          arguments for pytest (run, bench: for the program)
#   make PYTHON=/opt/python3.12/bin/python3 run

ADDRESS ?= :19100
BIN := .venv/bin

# The system's Python if it is new enough, else another one.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)
endif

# The names of the stamp files contain a checksum of what .venv was made from. It is made again when one of
# these changes: the interpreter, this folder, the requirements, or the collectors (an entry point each).
INTERPRETER := $(firstword $(shell { [ -z "$(PYTHON)" ] || $(PYTHON) -VV; \
	command -v "$(PYTHON)"; echo "$(CURDIR)"; } | cksum))
SOURCES := setup.py pyproject.toml exporters/bts_exporter/__init__.py examples/bts/pyproject.toml
COLLECTORS := $(sort $(wildcard collectors/bts_collectors/*.py collectors/bts_collectors/*/__init__.py))
INSTALLED := $(firstword $(shell { cat $(SOURCES); echo $(COLLECTORS); } | cksum))
VENV := .venv/python-$(INTERPRETER)
FOR_RUNNING := $(VENV)/for-running-$(INSTALLED)
FOR_DEMO := $(VENV)/for-demo-$(INSTALLED)
FOR_WORKING := $(VENV)/for-working-$(INSTALLED)
LINT := PYTHONPATH=monitoring $(BIN)/python -m lint
LINT_NEEDS := prometheus prometheus-alertmanager

.PHONY: help run demo test test-long check rules dashboards bench bench-bts clean
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST))

run: $(FOR_RUNNING) ## serve the metrics of this machine and of the brokers in config.yaml
	@echo 'Starting; metrics will be at http://$(if $(filter :%,$(ADDRESS)),localhost)$(ADDRESS)/metrics (Ctrl-C stops it)'
	@exec $(BIN)/bts-exporter --config.file=config.yaml --web.listen-address=$(ADDRESS) $(ARGS)

demo: $(FOR_DEMO) ## run the BTS service with brokers, Prometheus and Alertmanager (examples/bts; Ctrl-C stops all of it)
	@exec $(BIN)/python -m bts.demo $(ARGS)

test: $(FOR_WORKING) ## run all tests with real servers; installs missing servers if permitted
	@tests/install-servers.sh
	@$(BIN)/python -m pytest $(ARGS)

# The number of histories is that for each server version; BTS_HISTORIES=100 makes it shorter.
test-long: $(FOR_WORKING) ## run all faults of the BTS demo, and thousands of random histories of streams and queues
	@tests/install-servers.sh
	@BTS_ALL_FAULTS=1 $(BIN)/python -m pytest $(ARGS) examples/bts/tests/test_faults.py
	@BTS_HISTORIES=4000 $(BIN)/python -m pytest --timeout=7200 $(ARGS) \
		tests/collectors/rabbitmq/test_lag_histories.py
	@BTS_HISTORIES=1000 $(BIN)/python -m pytest --timeout=7200 $(ARGS) \
		tests/live/test_redis_lag_property.py

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

bench: $(FOR_WORKING) ## measure the cost, compared with the exporters that are replaced
	@tests/install-servers.sh
	@tests/install-servers.sh prometheus-redis-exporter prometheus-mqtt-exporter
	@$(BIN)/python benchmarks/run.py $(ARGS)

# ARGS='slow-consumer burst' measures only these faults. All of them take five hours.
bench-bts: $(FOR_WORKING) ## measure the throughput of the BTS service, and how soon its faults are detected; writes docs/bts.md
	@tests/install-servers.sh
	@PYTHONPATH=tests:examples/bts/tests $(BIN)/python benchmarks/bts_throughput.py
	@PYTHONPATH=tests:examples/bts/tests $(BIN)/python benchmarks/bts_detection.py $(ARGS)

clean: ## remove everything that the other commands created
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV):
	@[ -n "$(PYTHON)" ] || { echo "bts-exporter needs Python >= 3.11, and python3 here is" \
		"$$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing)." \
		"Install a newer one, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual" \
		"environments. On Debian and Ubuntu: sudo apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@mkdir $@

$(FOR_RUNNING): | $(VENV)
	@echo 'Installing bts-exporter into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(FOR_DEMO): | $(VENV)
	@echo 'Installing bts-exporter and the BTS service into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable . --editable examples/bts
	@touch $@ $(FOR_RUNNING)

$(FOR_WORKING): | $(VENV)
	@echo 'Installing bts-exporter, its tests and checks into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]' \
		--editable examples/bts
	@touch $@ $(FOR_RUNNING) $(FOR_DEMO)
