# The project's commands. `make help` lists them; every target that needs Python depends on the one environment, .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONPATH := hack
export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- Environment ---------------------------------------------------------------------------------

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed ($$($(PYTHON) --version) found); set PYTHON=..."; exit 1; }
	@echo "making $(VENV) from requirements.lock"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements.lock \
	  | sed -u 's/^Collecting/  &/;t;d'
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Make .venv with everything the project's commands and tests need

.PHONY: lock
lock: install ## Resolve pyproject.toml again into requirements.lock
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip -q install uv==0.13.9
	.venv-lock/bin/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --no-header \
	  --universal -p 3.11 --upgrade -o requirements.lock
	rm -rf .venv-lock
