# Every command a person needs; `make` or `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup lock

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: .venv/.ready ## the Python environment, from the lock

.venv/.ready: pyproject.toml locks/dev.txt
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv; }
	$(BIN)/uv pip install --quiet --require-hashes --requirement locks/dev.txt
	$(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

lock: ## refresh the locks of dependencies (they name versions and hashes, no registry)
	for extra in dev operator trainer; do \
	  $(BIN)/uv pip compile pyproject.toml --quiet --extra $$extra --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --unsafe-package finetune-operator \
	    $$(test $$extra = dev || echo --constraint locks/dev.txt) --output-file locks/$$extra.txt; done
