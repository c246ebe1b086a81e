# Two commands: `make demo` (see it work) and `make test` (check that it does). Both set up .venv by themselves.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV := .venv
BIN := $(VENV)/bin
INPUT ?=
TREE := demo/trees/images/mr_0000.nii.gz
SCAN := $(or $(INPUT),$(TREE))
SITE := $(BIN)/python -m sphinx -W --keep-going -q -b html docs

.PHONY: demo test check docs build clean

demo: $(VENV)/.installed
	@if [ -n "$(INPUT)" ] && [ ! -e "$(INPUT)" ]; then echo "make demo: there is no file $(INPUT)"; exit 2; fi
	@if [ -z "$(INPUT)" ]; then $(BIN)/vesselsdf synth demo/trees --cases 1 --seed 4711 --modality mr --size 160; fi
	$(BIN)/vesselsdf reconstruct "$(SCAN)" -o demo/result
	@echo "That was with the weights that come with the package. Now a network is trained, in some minutes."
	$(BIN)/vesselsdf train --output demo/run
	$(BIN)/vesselsdf evaluate --run demo/run
	$(BIN)/vesselsdf reconstruct "$(SCAN)" -o demo/trained --checkpoint demo/run/model.safetensors

test: $(VENV)/.installed-dev check
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"
	NOTEBOOK=off $(SITE) docs/_build/check

docs: $(VENV)/.installed-dev
	$(SITE) docs/_build/html
	@echo "Open docs/_build/html/index.html in a browser."

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(VENV)/.installed-dev
	$(BIN)/python -m build

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) demo dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
