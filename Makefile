# The commands of this book. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
BOOK   := _build/book
BENCH  := .venv-bench
VERSIONS := .venv-versions
# the other chapters take long without the compiler, or show what it makes
UNCOMPILED := $(patsubst %,chapters/%.ipynb,01_data 03_rmsnorm 04_hyper_connections)
PACKAGE_TESTS := $(patsubst %,tests/test_%.py,attention batches checkpoints command_line data kernels model)
CHAPTERS := $(sort $(wildcard chapters/*.ipynb))
# Printed numbers must not depend on how many threads a matrix product uses.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book html pdf test test-other-cpu test-uncompiled test-versions mutation bench train lab export run lock licences lint clean

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

pdf: $(READY) ## print the whole book, as its outputs are stored, into one PDF
	$(BIN)/jupyter-book build $(SOURCE) --path-output _build/pdf --builder singlehtml --all -W -n --keep-going
	$(BIN)/python tools/print_pdf.py _build/pdf/_build/singlehtml/index.html _build/book.pdf
	@echo "The book: $(CURDIR)/_build/book.pdf"

test: $(READY) ## unit tests and every chapter, cell by cell
	$(BIN)/python -m pytest --nbval --nbval-current-env -n 2 --dist loadfile

CPU ?= generic
# no features of this processor but those that LLVM knows of the one that is named
generic := NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES= OPENBLAS_CORETYPE=Prescott \
	OPENBLAS_NUM_THREADS=2 NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL"
haswell := NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES= OPENBLAS_CORETYPE=Haswell \
	OPENBLAS_NUM_THREADS=1 NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL"
test-other-cpu: $(READY) ## the chapters, as on a processor without AVX; CPU=haswell: with AVX2
	$(or $($(CPU)),$(error CPU is '$(CPU)': choose generic or haswell)) \
	$(BIN)/python -m pytest --nbval --nbval-current-env -n 2 --dist loadfile chapters

test-uncompiled: $(READY) ## the chapters that are short without the compiler
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest --nbval --nbval-current-env $(UNCOMPILED)

RESOLUTION ?= lowest-direct
test-versions: $(READY) ## the package with the lowest versions it admits; RESOLUTION=highest
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VERSIONS)
	$(BIN)/uv pip install --quiet --python $(VERSIONS) --resolution $(RESOLUTION) -e ".[test]"
	$(BIN)/uv pip list --python $(VERSIONS)
	$(VERSIONS)/bin/python -m pytest $(PACKAGE_TESTS)

mutation: $(READY) ## change the kernels in one place at a time: a test must notice; MODULES="matrix flash" for some
	$(BIN)/python tools/mutate.py $(MODULES)

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

run: $(READY) ## run the chapters in place and store their outputs; FRESH=1 for new times
	$(BIN)/python tools/run_chapters.py $(if $(FRESH),,--keep) $(CHAPTERS)

lock: $(READY) ## pin what requirements.in asks for; UPGRADE=1 for the newest versions
	$(BIN)/uv pip compile requirements.in --output-file requirements.txt --quiet \
	--universal --python-version 3.11 --generate-hashes --only-binary :all: \
	--no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

licences: $(READY) ## list the licences of everything that is pinned
	$(BIN)/python tools/licences.py

lint: $(READY) ## style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

clean: ## remove everything that was built
	rm -rf _build build $(VENV) $(BENCH) $(VERSIONS) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
