# make demo: the default run on generated data.   make test: all fast tests.   Both set up first.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
CORES  ?= all
# Tests at once.
TEST_JOBS ?= auto

.PHONY: help setup demo test test-all lint clean stage-hashes report faults slurm-test resume

help:
	@echo "make demo    set up, run the default config on generated data, show the scores"
	@echo "make test    set up, run the tests (UNET_REAL_DATA=folder adds those on real images)"
	@echo "make faults  break runs on purpose and see them go on (minutes; root sees more)"
	@echo "make slurm-test  run on a SLURM of two nodes on this machine (root; the Debian packages)"
	@echo "make resume  go on with a run that was killed, also on a cluster (ARGS=options of scripts/resume.py)"
	@echo "make setup   only set up: a virtual environment in $(VENV), pinned by requirements.lock"
	@echo "make lint    ruff, mypy, snakefmt, snakemake --lint"
	@echo "make clean   remove the demo's results"

# A stamp, so that a second call does not install again; a changed lock does.
$(VENV)/.stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else "Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; write make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

setup: $(VENV)/.stamp

demo: setup
	$(BIN)/snakemake --cores $(CORES) --quiet rules
	$(BIN)/python scripts/report.py --all --show --config config/config.yaml

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

slurm-test: setup
	$(BIN)/python -m pytest -m slurm -ra tests/slurm

resume: setup
	$(BIN)/python scripts/resume.py $(ARGS)

faults: setup
	$(BIN)/python -m pytest -m faults -ra -n $(TEST_JOBS) --dist worksteal tests/faults

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

stage-hashes: setup
	$(BIN)/python -m tests.stage_keys
	$(BIN)/python -m tests.stage_hashes

clean:
	rm -rf results
