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
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- Environment ---------------------------------------------------------------------------------

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed ($$($(PYTHON) --version) found); set PYTHON=..."; exit 1; }
	@echo "making $(VENV) from requirements.lock"
	@$(PYTHON) -m venv $(VENV)
	@log=$(VENV)/install.log; \
	{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements.lock \
	  && $(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .; } >$$log 2>&1 & \
	pid=$$!; \
	while kill -0 $$pid 2>/dev/null; do sleep 3; echo "  $$(tail -n 1 $$log | cut -c1-110)"; done; \
	wait $$pid || { cat $$log; exit 1; }
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Make .venv with everything the project's commands and tests need

.PHONY: lock
lock: install ## Resolve pyproject.toml again into requirements.lock
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip -q install uv==0.13.9
	.venv-lock/bin/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --no-header \
	  --universal -p 3.11 --upgrade -o requirements.lock
	rm -rf .venv-lock

# --- Tests ---------------------------------------------------------------------------------------

.PHONY: test
test: install ## Run every layer: lint, unit, properties, faults, rules, engine, cluster, e2e
	@$(BIN)/python -m layers

.PHONY: lint test-unit test-properties test-faults test-rules test-engine test-cluster test-e2e
lint: install ## Run ruff, mypy (strict) and the layer contracts
	@$(BIN)/python -m layers lint
test-unit: install ## Run the unit tests
	@$(BIN)/python -m layers unit
test-properties: install ## Run the property tests
	@$(BIN)/python -m layers properties
test-faults: install ## Run the whole operator against an in-process API server in virtual time
	@$(BIN)/python -m layers faults
test-rules: install ## Play time series against the alerts by promtool, and read every query with Prometheus
	@$(BIN)/python -m layers rules
test-engine: install ## Run what lives inside vLLM's processes, and vLLM's own checks of our arguments
	@$(BIN)/python -m layers engine
test-cluster: install ## Run the tests against a real control plane
	@$(BIN)/python -m layers cluster
test-e2e: install ## Run the tests with real vLLM groups
	@$(BIN)/python -m layers e2e

.PHONY: format
format: install ## Format and sort imports
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

.PHONY: bench-reconcile
bench-reconcile: install ## Measure apply -> LeaderWorkerSet, one deployment and 100 at once
	@$(BIN)/python -m localcluster run --name bench -- $(BIN)/python -m bench.reconcile

# Nodes without machines send no heartbeats.
.PHONY: bench-recovery
bench-recovery: install ## Measure a lost and an added group, beside a bare LeaderWorkerSet
	@$(BIN)/python -m localcluster run --name bench-recovery \
	  --flag kube-controller-manager=--node-monitor-grace-period=6h -- $(BIN)/python -m bench.recovery

.PHONY: bench-allocation
bench-allocation: install ## Measure a pass over scarce GPUs of 1,000 deployments
	@$(BIN)/python -m bench.allocation

.PHONY: bench-decisions
bench-decisions: install ## Measure scaling decisions for 1,000 deployments
	@PYTHONPATH=hack:tests $(BIN)/python -m bench.decisions

.PHONY: bench-telemetry
bench-telemetry: install ## Measure a round of telemetry of up to 1,000 pods and as many exporters
	@PYTHONPATH=hack:tests $(BIN)/python -m bench.telemetry

.PHONY: bench-planner
bench-planner: install ## Measure plans per second, and a plan on the command line
	@$(BIN)/python -m bench.planner

.PHONY: bench-simulator
bench-simulator: install ## Measure the simulator on a day of 1.4 million requests; TRACES=folder for a real one
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.simulator $(TRACES)

.PHONY: bench-autoscaler bench-autoscaler-short
bench-autoscaler: install ## Compare autoscalers on the traces of TRACES=folder, and write docs/benchmarks/autoscaler.md (an hour and more)
	@[ -n "$(TRACES)" ] || { echo "name a folder with traces: make bench-autoscaler TRACES=folder"; exit 2; }
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.autoscaler $(TRACES) --output docs/benchmarks
bench-autoscaler-short: install ## The same on small made-up traces, in minutes; the summary alone is printed
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.autoscaler --short

.PHONY: bench-gauge
bench-gauge: install ## Measure what a policy costs on the traces of TRACES=folder that knows the load, but not the future (an hour)
	@[ -n "$(TRACES)" ] || { echo "name a folder with traces: make bench-gauge TRACES=folder"; exit 2; }
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.autoscaler.gauge $(TRACES)

.PHONY: bench-second-judge
bench-second-judge: install ## Let another simulator of engines judge the autoscalers too, and write docs/benchmarks/second-judge.md
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.second_judge --output docs/benchmarks

.PHONY: bench-widths
bench-widths: install ## Compare what groups of another width take with what was expected of them, by the simulator (minutes)
	@NUMBA_NUM_THREADS=1 $(BIN)/python -m bench.widths

.PHONY: bench-weights
bench-weights: install ## Measure a fetch of weights from a hub on this machine, beside a plain copy
	@$(BIN)/python -m bench.weights

.PHONY: test-families
test-families: install ## Serve a tiny model of every family for real, and compare with the plain engine
	@$(BIN)/python -m layers families

.PHONY: test-upgrade
test-upgrade: install ## Upgrade the operator from the last release under a real group that serves, and go back
	@$(BIN)/python -m layers upgrade

.PHONY: test-traffic
test-traffic: install ## Change a served deployment under open-loop load, and count what clients lose; TRAFFIC_REPORTS=folder
	@$(BIN)/python -m layers traffic

.PHONY: verify-kv-cache verify-autoscalers verify-simulator
verify-kv-cache: install ## Compare the KV cache arithmetic with vLLM's own code again
	@$(BIN)/python -m verify.kv_cache --check
verify-autoscalers: install ## Let Kubernetes, Knative and Dynamo decide again on what the policies are compared with (needs Go)
	@$(BIN)/python -m verify.autoscalers --check

verify-simulator: install ## Compare the simulator's engine with vLLM's on this CPU, and write docs/benchmarks/simulator.md
	@$(BIN)/python -m engine install >/dev/null
	@$(BIN)/python -m verify.simulator --output docs/benchmarks

# --- Local cluster -------------------------------------------------------------------------------

.PHONY: cluster-up cluster-down cluster-shell
cluster-up: install ## Start a real Kubernetes control plane with process nodes (no Docker)
	@$(BIN)/python -m localcluster up
cluster-down: install ## Stop it and remove its state
	@$(BIN)/python -m localcluster down
cluster-shell: install ## A shell with kubectl and helm inside the cluster
	@$(BIN)/python -m localcluster shell

.PHONY: demo
demo: install ## The whole way: cluster, operator, a served model, traffic, a lost pod, clean end
	@$(BIN)/python -m demo

.PHONY: kind-demo
kind-demo: ## The demo on kind, for people who have Docker
	@hack/kind/demo.sh

.PHONY: dashboard-picture
dashboard-picture: install ## Draw the dashboard into docs/dashboard.svg: its queries, asked of a Prometheus (minutes)
	@PYTHONPATH=hack:tests $(BIN)/python -m dashboard_picture

# --- Generated files -----------------------------------------------------------------------------

.PHONY: generate
generate: install ## Write again what is derived: CRD, reference pages, CRD chart, install.yaml
	@$(BIN)/python -m generate
