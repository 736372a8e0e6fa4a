# make help lists the targets. Everything runs in .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 4

.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z_]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

env: .venv/ready ## Make the environment in .venv

demo: .venv/ready ## Run the whole pipeline on digits; the report is runs/demo/report/report.html
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

.venv/ready-mini: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[mini]'
	@touch $@

mini: .venv/ready-mini ## Run Table 1 in miniature on real pictures; needs Debian's tuxpaint-stamps-default
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/table1_mini.sh

test: .venv/ready ## Run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

bench: .venv/ready ## Measure speed and memory against their baselines, half an hour; writes benchmarks.json
	$(BIN)/python -m benchmarks

lint: .venv/ready-dev ## Check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

assets: .venv/ready ## Rebuild what ships from runs: the digits ViT, pictures and tables of README and docs
	$(BIN)/python scripts/make_assets.py

clean: ## Remove the environment and caches, keep runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist

.PHONY: help env demo mini test bench lint assets clean
