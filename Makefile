# The whole developer interface. A bare machine needs python3 and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Tests start some hundred processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test fast exports ray thorough coverage chaos lint types format schema docs clean

setup: $(READY)

$(READY): constraints.txt pyproject.toml
	rm -rf depthray.egg-info  # of earlier versions, which would hide the entry points of this one
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/depthray demo

# Those on a cluster wait more than they compute, so the exports run beside them.
test: fast
	$(MAKE) --jobs 2 --output-sync exports ray

# These load OpenVINO and ONNX Runtime, after which a process of xdist dies when it starts another one.
EXPORTS := tests/depthray/runtimes tests/depthray/exporting tests/depthray/cli/test_doctor.py \
	tests/serve/registry/test_serve_exports.py tests/docs/test_docs.py

# A file's tests in one process, so that what they share is made once.
fast: $(READY)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --ignore tests/ray $(EXPORTS:%=--ignore %)

exports: $(READY)
	$(BIN)/python -m pytest $(EXPORTS)

# All of them share one cluster.
ray: $(READY)
	$(BIN)/python -m pytest tests/ray

# Tests that repeat others at more widths and options: all variants of networks in all runtimes.
thorough: $(READY)
	$(BIN)/python -m pytest -m thorough

# Of the tests without Ray; what runs on a cluster only is not counted, so the floor in pyproject.toml leaves room for it.
coverage: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/ray $(EXPORTS:%=--ignore %) --cov --cov-report term

# Kills of training runs and of a service: see chaos/README.md. Not a test of pytest; about 15 minutes.
chaos: $(READY)
	$(BIN)/python -m chaos.training.kills --points 12
	$(BIN)/python -m chaos.serving --only kills overload clients

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The JSON schema by which editors check and complete recipes, after a change of the recipe's sections.
schema: $(READY)
	$(BIN)/depthray recipe schema > depthray/recipes/schema.json

# The pages of docs/ as a site in site/, with the page of recipes made anew. Links and warnings are errors.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)
	$(BIN)/python docs/site/recipe_zoo.py --write
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov site
