# `make book` and `make test` set up everything they need in .venv and run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: help book test test-book fuzz bench bars lint pairs check-rows experiment workshop workshop-bundle test-workshop publish lock clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

book: $(VENV)/.installed  ## Run the chapters and render the book to _build/html/index.html
	$(BIN)/exitwave book

# In the order of the files: sorted by number of tests, the few long ones that run whole chapters would come last.
test: $(VENV)/.installed-test  ## Run the tests (always; never cached), a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-book: $(VENV)/.installed-test  ## Open every page of the built book in headless Chromium
	$(BIN)/python -m pytest -m browser tests/book

lint: $(VENV)/.installed-test  ## Ruff, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.installed-test  ## Throw damaged files at every reader for MINUTES=10
	$(BIN)/python tests/reliability/fuzz.py --minutes $(or $(MINUTES),10) --first $(or $(FIRST),1000000)

bench: $(VENV)/.installed-test  ## Time the methods (pytest-benchmark)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --override-ini testpaths=tests/benchmarks

# STORE=1 keeps the numbers for the book, FRESH=1 also builds the book in a fresh clone, STRICT=1 lets known
# misses count, PEERS=PYTHON names an environment with quantem and ptyrad.
bars: $(VENV)/.installed-test  ## Measure every figure that the chapters promise; fails if a bar is not met
	$(BIN)/exitwave bars $(if $(STORE),--store) $(if $(FRESH),--fresh) $(if $(STRICT),--strict) $(if $(PEERS),--peers $(PEERS))

pairs: $(VENV)/.installed  ## Write notebooks/*.ipynb from notebooks/*.py, which are authoritative
	$(BIN)/jupytext --update-metadata '{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}' \
	  --to ipynb notebooks/*.py

check-rows: $(VENV)/.installed  ## Recompute two rows of the ledger, chosen by SEED, and compare with data/
	$(BIN)/exitwave reproduce --check 2 --seed $(or $(SEED),0) --budget-minutes 8

experiment: $(VENV)/.installed  ## Write anew what the 4D-STEM chapter shows of a measured scan, DATA=FILE
	$(BIN)/python -m exitwave.papers.cao2020.experiment "$(DATA)" book/_static/rotavirus

workshop: $(VENV)/.installed  ## Write notebooks for students and teachers to _build/workshop
	$(BIN)/exitwave workshop

test-workshop: $(VENV)/.installed-test  ## Search student notebooks for solutions; run them with solutions put back (make test does, too)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load tests/chapters/test_workshop.py tests/notebooks/test_nbval.py

workshop-bundle: $(VENV)/.installed  ## Pack all that a room without internet needs
	$(BIN)/exitwave workshop --bundle

publish: $(VENV)/.installed  ## Build the book and copy it to public/ for a web server
	$(BIN)/exitwave book --publish public

lock: ## Pin the newest versions that work together in constraints.txt (then run the tests)
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet torch==2.13.0
	$(VENV)-lock/bin/python -m pip install --quiet --editable .[test,lint,oracles]
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt
	rm -rf $(VENV)-lock

clean:  ## Remove what was built, not what was computed
	rm -rf _build public .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and alone: another package asking for "torch" must find it there.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'exitwave needs Python 3.11 or newer: make PYTHON=python3.12 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable .[test,lint,oracles]
	touch $@
