# The project's commands; `make` or `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# helm renders manifests/install.yaml: the one on PATH, or else the one of the development cluster.
HELM ?= $(shell command -v helm || PYTHONPATH=tests/support $(BIN)/python -c "from devcluster.gobuild import binary; print(binary('helm'))")

.DEFAULT_GOAL := help
.PHONY: help setup run test slow faults soak check lint format generate docs lock bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

setup: .venv/.ready ## create the Python environment from the lock file

.venv/.ready: pyproject.toml locks/dev.txt
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv; }
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --requirement locks/dev.txt
	$(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

run: setup ## train a small model on two local nodes, without Kubernetes
	test -s .finetune/data/stdlib.jsonl || $(BIN)/python examples/stdlib_data.py .finetune/data/stdlib.jsonl
	$(BIN)/finetune run examples/pretrain-stdlib.yaml

test: setup lint cluster-build ## run lint, unit, integration and end-to-end tests on a real cluster
	$(BIN)/pytest --numprocesses 2 -m "not slow"

slow: setup cluster-build ## run the slow tests: more documents, ranks and families, and training until models are good
	$(BIN)/pytest --numprocesses 2 -m slow

faults: setup cluster-build ## break things on a real cluster while jobs train, and check that every run survives
	$(BIN)/pytest --timeout=1800 tests/faults

soak: setup cluster-build ## break one run every two minutes for SOAK_MINUTES (60), and print goodput, lost work and false kills
	$(BIN)/pytest --capture=no tests/soak

check: setup lint ## run the fast checks: lint and unit tests; collect the other tests
	$(BIN)/pytest tests/unit
	$(BIN)/pytest --collect-only -qq tests >/dev/null

lint: setup ## run ruff, mypy --strict and import-linter, check the generated files, build the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy operator trainer
	MYPYPATH=tests/support $(BIN)/mypy -p devcluster
	$(BIN)/lint-imports
	$(BIN)/python -m finetune_operator.codegen.generate --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: setup ## format the code with ruff
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

generate: setup ## generate the CRD, the reference, the dashboard and the install manifest
	$(BIN)/python -m finetune_operator.codegen.generate --helm $(HELM)

docs: setup ## serve the documentation at http://127.0.0.1:8000 and rebuild it on every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

bench: setup cluster-build ## run the benchmarks against their peers and print the ratios (about an hour on an idle machine)
	$(BIN)/python benchmarks/jobs_to_running.py
	$(BIN)/python benchmarks/training_throughput.py
	$(BIN)/python benchmarks/checkpoint_stall.py
	$(BIN)/python benchmarks/data_wait.py
	$(BIN)/python benchmarks/recovery.py

lock: setup ## update the lock files of the dependencies (versions and hashes, without a registry)
	for extra in dev operator trainer; do \
	  $(BIN)/uv pip compile pyproject.toml --quiet --extra $$extra --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --unsafe-package finetune-operator \
	    $$(test $$extra = dev || echo --constraint locks/dev.txt) --output-file locks/$$extra.txt; done

clean: ## remove the files of local runs and tests
	rm -rf .finetune site .pytest_cache .mypy_cache .ruff_cache

include tests/support/devcluster/cluster.mk
