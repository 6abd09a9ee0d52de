# The commands of this book. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
BOOK   := _build/book
BENCH  := .venv-bench
CHAPTERS := $(sort $(wildcard chapters/*.ipynb))
# Printed numbers must not depend on how many threads a matrix product uses.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book html test test-other-cpu bench train lab export run lint clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(READY) ## create .venv with everything the book needs
$(READY): requirements.txt pyproject.toml tools/setup.sh
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)"

book: $(READY) ## run every chapter, then render what was just run as HTML
	@rm -rf $(BOOK) && mkdir -p $(BOOK)
	@git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t $(BOOK)
	$(BIN)/python tools/run_chapters.py $(CHAPTERS:%=$(BOOK)/%)
	@$(MAKE) --no-print-directory html SOURCE=$(BOOK)

SOURCE ?= .
html: $(READY) ## render the stored outputs as HTML, without running a chapter
	$(BIN)/jupyter-book build $(SOURCE) --path-output _build/site --all -W -n --keep-going
	@echo "First page: $(CURDIR)/_build/site/_build/html/index.html"

test: $(READY) ## unit tests and every chapter, cell by cell
	$(BIN)/python -m pytest --nbval --nbval-current-env -n 2 --dist loadfile

test-other-cpu: $(READY) ## the chapters once more, as on a processor without vector instructions
	NUMBA_CPU_NAME=generic OPENBLAS_CORETYPE=Prescott OPENBLAS_NUM_THREADS=2 \
	NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL" \
	$(BIN)/python -m pytest --nbval --nbval-current-env -n 2 --dist loadfile chapters

bench: $(BENCH)/ready ## time the book against NumPy, PyTorch and JAX; QUICK=1 for a short run
	$(BENCH)/bin/python -m benchmarks $(if $(QUICK),--quick)

$(BENCH)/ready: benchmarks/requirements.txt tools/setup.sh
	@sh tools/setup.sh "$(PYTHON)" "$(BENCH)" benchmarks/requirements.txt

train: $(READY) ## train on input.txt and invent 20 names
	$(BIN)/python -m microgpt

lab: $(READY) ## open the chapters in Jupyter Lab
	$(BIN)/jupyter lab chapters

export: $(READY) ## write microgpt/ from the chapters
	$(BIN)/python tools/export_package.py

run: $(READY) ## run the chapters in place and store their outputs
	$(BIN)/python tools/run_chapters.py $(CHAPTERS)

lint: $(READY) ## style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

clean: ## remove everything that was built
	rm -rf _build $(VENV) $(BENCH) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
