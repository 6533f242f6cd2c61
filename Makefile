# What a person does with a clone. `make` alone says what there is.
#
# The environment is made once, in .venv, and again when pyproject.toml changes.
# Nothing outside of the clone is written, except pip's cache and what system-deps installs.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# make(1) runs recipes by /bin/sh; what fails in one stops it.
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help
.PHONY: help run test test-system system-deps lint bench docs dist clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/made ## the demonstration, in the foreground, without root; Ctrl-C ends it
	exec $(BIN)/twistd -n --pidfile= dcosnet -c etc/demo.toml

test: $(VENV)/made-test ## the fast tests, without root
	$(BIN)/python -m pytest -q -m "not system"

# pytest fails when it finds no test at all; so does this, since a run that tried nothing proves nothing.
test-system: $(VENV)/made-test ## the tests that need root or real programs
	$(BIN)/python -m pytest -q -m system

# RUNLEVEL=1 keeps Debian's packages from starting what they install, where invoke-rc.d is asked.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT  := $(SUDO) env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o Dpkg::Use-Pty=0
system-deps: ## install the programs that the system tests use (Debian, Ubuntu)
	$(APT) update
	$(APT) install -y --no-install-recommends bind9-dnsutils curl dnsperf haproxy hey iperf3 iproute2 knot \
	    default-jre-headless libnginx-mod-stream nftables nginx python3-venv wrk zookeeperd

lint: $(VENV)/made-test ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/made-test ## measure against the peers that are installed, and print ratios
	@for file in bench/*.py; do \
	    case $$file in bench/_*|bench/common.py) continue ;; esac; \
	    echo "== $$file"; $(BIN)/python "$$file"; \
	done

docs: $(VENV)/made-docs ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The .pyz holds compiled wheels, so it is for this platform and this version of Python. It unpacks itself
# into ~/.shiv; -E hands its path on to the daemon that `dcosnet.pyz run` becomes.
dist: $(VENV)/made-dist ## wheel, source archive and one-file dcosnet.pyz, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/shiv --extend-pythonpath --console-script dcosnet --output-file dist/dcosnet.pyz --quiet dist/*.whl

clean: ## remove what was built; .venv goes too
	rm -rf $(VENV) .demo dist build docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f twisted/plugins/dropin.cache dcosnet/plugins/dropin.cache twistd.pid
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "dcosnet needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian: apt-get install python3-venv" >&2; exit 1; }

# The editable install makes changes of the code seen at once; a stamp for each set of extras.
$(VENV)/made: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable .
	touch $@

$(VENV)/made-test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[test,lint]'
	touch $@ $(VENV)/made

$(VENV)/made-dist: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dist]'
	touch $@ $(VENV)/made

$(VENV)/made-docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[docs]'
	touch $@ $(VENV)/made
