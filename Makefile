# make help lists the targets. Everything runs in .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

env: .venv/ready ## Make the environment in .venv

demo: .venv/ready ## Run the whole pipeline on digits; the report is runs/demo/report/report.html
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

mini: .venv/ready ## Run Table 1 in miniature on real pictures; needs Debian's tuxpaint-stamps-default
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/table1_mini.sh

test: .venv/ready ## Run all tests
	$(PYTEST)

.venv/ready-lint: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

lint: .venv/ready-lint ## Check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## The inner loop, under two minutes: lint, then the fast tests
	$(PYTEST) -m fast

dev: .venv/ready-lint ## Add what contributors need: pre-commit, uv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'

coverage: .venv/ready ## Run all tests and report the lines and branches that they reach, in coverage.xml too
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=xml

attack: .venv/ready ## Run the long lists of deaths, damages and races; about an hour
	$(BIN)/python -m pytest -n $(WORKERS) -m attack tests

.venv/ready-docs: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

site: .venv/ready-docs ## Build the documentation site in site/, without a network; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

notebooks: .venv/ready-docs ## Run the tutorials and keep their outputs
	PYTHONWARNINGS=ignore $(BIN)/python -m nbconvert --to notebook --execute --inplace docs/tutorials/*.ipynb

docs: site ## Build the site, and check links, commands, the tree of the repository, notebooks
	$(PYTEST) -m "docs or long"

test-lowest: ## Run the fast tests with the oldest libraries that pyproject.toml allows, in .venv-lowest; needs uv
	uv venv --quiet --allow-existing --python 3.11 .venv-lowest
	uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[test]'
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m fast

lock: ## Renew uv.lock with the newest libraries; needs uv
	uv lock --upgrade --default-index https://pypi.org/simple

bench: .venv/ready ## Measure speed and memory against their baselines, half an hour; writes benchmarks.json
	$(BIN)/python -m benchmarks

gpu: .venv/ready ## Prove everything on this machine's GPU, ten minutes, continued when called again; DEVICE=cpu QUICK=1 in small
	@$(BIN)/python -m benchmarks.acceptance $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick) $(PARTS)

assets: .venv/ready ## Rebuild what ships from runs: the digits ViT, pictures and tables of README and docs
	$(BIN)/python scripts/make_assets.py

clean: ## Remove the environments and caches, keep runs
	rm -rf .venv .venv-lowest site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage coverage.xml build dist

.PHONY: help env demo mini test lint check dev coverage attack site notebooks docs test-lowest lock bench gpu assets clean
