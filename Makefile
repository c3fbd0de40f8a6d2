# make run     a real comparison on whatever device is here, with figures
# make test    all tests;  make check  format, lint, types, layers;  make gate  nothing deterministic got worse
# make docs    the documentation site, into site/;  make audit  known vulnerabilities of the pinned packages (asks the network)
# make fuzz    100 000 damaged inputs for everything that reads a file; FUZZ="--inputs 1000000" over night
# make gpu     what needs a GPU, in GPU_JOBS processes;  make bench  the sweep of results/cpu
# make oldest  the kernels and anchor with the oldest versions that pyproject.toml allows;  make oldest ALL=1  every attention
# The first call builds .venv from constraints.txt; the first `make oldest` builds .venv-oldest. PYTHON chooses the
# interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?= --n 4096 --m 64
JOBS ?= 2
GPU_JOBS ?= 4
FUZZ ?=
OLDEST := .venv-oldest
OLDEST_TESTS := $(addprefix tests/attentions/,kernels test_contract.py test_compile.py variants/test_anchor_variant.py)

.PHONY: run test check gate fuzz gpu bench oldest docs audit clean

run: $(READY)
	$(BIN)/harness run $(RUN)
	$(BIN)/harness plot

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest -q tests/test_layers.py

gate: $(READY)
	$(BIN)/harness check --baseline results/baseline.csv --quick

fuzz: $(READY)
	HARNESS_FUZZ=1000 OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/harness/fuzz/test_store_machine.py
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests/harness:tests/harness/fuzz $(BIN)/python tests/harness/fuzz/campaign.py $(FUZZ)

gpu: $(READY)
	$(BIN)/pytest -q -m gpu --tb=short -n $(GPU_JOBS) --maxschedchunk 1 tests/attentions $$(grep -rl 'mark\.gpu' tests/harness)

oldest: $(OLDEST)/.ready
	OMP_NUM_THREADS=1 $(OLDEST)/bin/pytest -q -n $(JOBS) --dist loadfile \
	  $(if $(ALL),tests/attentions,$(OLDEST_TESTS) -k 'kernels or anchor')

bench: $(READY)
	scripts/cpu_suite results/cpu

docs: $(READY)
	$(BIN)/mkdocs build --strict --quiet

audit: $(READY)
	scripts/audit $(BIN)

clean:
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache .hypothesis build dist site

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable '.[dev]'
	touch $@

$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints.txt uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --compile-bytecode \
	  --editable '.[dev]'
	touch $@
