# make demo: the default run on generated data.   make test: all fast tests.   Both set up first.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
CORES  ?= all
# Tests at once.
TEST_JOBS ?= auto

.PHONY: help setup demo small-run test test-processors lint actions build container clean \
  stage-hashes config-docs faults slurm-test resume

help:
	@echo "make demo    set up, run the default config on generated data, show the scores"
	@echo "make test    set up, run the tests (UNET_REAL_DATA=folder adds those on real images)"
	@echo "make test-processors  the tests that compute, on six kinds of arithmetic, in random order"
	@echo "make faults  break runs on purpose and see them go on (minutes; root sees more)"
	@echo "make slurm-test  run on a SLURM of two nodes on this machine (root; the Debian packages)"
	@echo "make resume  go on with a run that was killed, also on a cluster (ARGS=options of scripts/resume.py)"
	@echo "make setup   only set up: a virtual environment in $(VENV), pinned by requirements.lock"
	@echo "make lint    ruff, mypy, import-linter, snakefmt, snakemake --lint, and make actions"
	@echo "make actions  only yamllint, zizmor and the schemas of .github and CITATION.cff"
	@echo "make small-run  the config in .test/config, in about a minute, and snakemake --report"
	@echo "make build   the wheel, into dist, and a look into it; make container builds the image"
	@echo "make config-docs  write the tables of config/README.md and the JSON schema of the config"
	@echo "make clean   remove the results of the demo and of the small run, and what was built"

# What pip says goes into a file; of an error one line is shown.
define pip
@$(BIN)/python -m pip $(1) --disable-pip-version-check $(2) > $(VENV)/pip.log 2>&1 || { \
  if grep -aqE 'NewConnectionError|ConnectTimeout|NameResolution|ProxyError|Read timed out|from versions: none' $(VENV)/pip.log; \
  then what="pip cannot reach its package index (no network, or a proxy that it is not told of)"; \
  else what="pip: $$(grep -a -m 1 '^ *\(ERROR\|error\):' $(VENV)/pip.log || tail -n 1 $(VENV)/pip.log)"; fi; \
  echo "error: $$what; all that it said is in $(VENV)/pip.log" >&2; exit 1; }
endef

# A stamp, so that a second call does not install again; a changed lock does.
$(VENV)/.stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; write make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the versions of requirements.lock into $(VENV)"
	$(call pip,install,--requirement requirements.lock)
	$(call pip,install,--no-deps --editable .)
	touch $@

setup: $(VENV)/.stamp

demo: setup
	$(BIN)/snakemake --cores $(CORES) --quiet rules
	$(BIN)/python scripts/report.py --all --show --config config/config.yaml

small-run: setup
	$(BIN)/snakemake --directory .test --cores $(CORES) --quiet rules
	$(BIN)/snakemake --directory .test --report results/report.zip

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

# The tests that compute, as processors of other kinds compute them (those that can be played here).
test-processors: setup
	set -e; for kind in default:SSE41 avx2:AVX2 avx512:AVX512_CORE; do for threads in 1 2; do \
	  echo "== $$kind, $$threads threads"; \
	  ATEN_CPU_CAPABILITY=$${kind%:*} ONEDNN_MAX_CPU_ISA=$${kind#*:} OMP_NUM_THREADS=$$threads \
	  OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(TEST_JOBS) -p randomly \
	    -m 'not workflow and not faults and not slurm and not realdata' $(ARGS); \
	done; done

slurm-test: setup
	$(BIN)/python -m pytest -m slurm -ra tests/slurm

resume: setup
	$(BIN)/python scripts/resume.py $(ARGS)

faults: setup
	$(BIN)/python -m pytest -m faults -ra -n $(TEST_JOBS) --dist worksteal tests/faults

# What stands in build/ from before would get into the wheel.
build: setup
	rm -rf build dist
	$(call pip,wheel,--no-deps --wheel-dir dist .)
	rm -rf build
	UNET_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest -ra tests/project/test_wheel.py

container:
	docker build --tag unet .
	docker run --rm unet --version

lint: setup actions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

actions: setup
	$(BIN)/yamllint --strict .
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# The tables of config/README.md and workflow/schemas, from the keys' docstrings.
config-docs: setup
	$(BIN)/python -m docs.config_docs

stage-hashes: setup
	$(BIN)/python -m tests.key_table
	$(BIN)/python -m tests.stage_hashes

clean:
	rm -rf results .test/results .test/.snakemake build dist
