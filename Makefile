# make demo: the default run on generated data. make test: all fast tests. Both run `setup` first.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
CORES  ?= all
# Number of tests that run at the same time.
TEST_JOBS ?= auto

.PHONY: help setup demo demo-full small-run test test-processors lint actions build container clean \
  stage-hashes config-docs site faults slurm-test view-test resume notebooks report-test gpu

help:
	@echo "make demo    set up, check and run the default config on generated data, show the scores"
	@echo "make demo-full  the long demo: everything that the report can show (config/demo-full.yaml)"
	@echo "make test    set up, run the tests (UNET_REAL_DATA=folder adds those on real images)"
	@echo "make test-processors  run the numerical tests with six CPU settings, in random order"
	@echo "make gpu     on a machine with a GPU: its tests, then its figures (minutes; benchmarks/gpu.py)"
	@echo "make faults  break runs on purpose and check that they recover (minutes; root tests more)"
	@echo "make slurm-test  run on a two-node SLURM on this machine (needs root and Debian packages)"
	@echo "make resume  resume a run that was killed, also on a cluster (ARGS=options of scripts/resume.py)"
	@echo "make view-test  install napari and test unet view with it (large: Qt comes with it)"
	@echo "make report-test  open report pages in headless Chromium (AXE=axe.min.js checks accessibility)"
	@echo "make setup   only set up: a virtual environment in $(VENV), pinned by requirements.lock"
	@echo "make lint    ruff, mypy, import-linter, snakefmt, snakemake --lint, and make actions"
	@echo "make actions  only yamllint, zizmor and the schema checks of .github and CITATION.cff"
	@echo "make small-run  run the config in .test/config (about a minute) and snakemake --report"
	@echo "make notebooks  run the notebooks in docs/notebooks on the results of the small run"
	@echo "make build   build the wheel into dist and test it"
	@echo "make container  build the container image"
	@echo "make config-docs  write the tables of config/README.md, the JSON schema, docs/commands.md"
	@echo "                  docs/datasets.md and config/examples/public"
	@echo "make site    build these pages as a website into site/ (a broken link is an error)"
	@echo "make clean   remove the results of the demos and the small run, and the built files"

# pip's output goes to a file; on an error, one line of it is shown.
define pip
@$(BIN)/python -m pip $(1) --disable-pip-version-check $(2) > $(VENV)/pip.log 2>&1 || { \
  if grep -aqE 'NewConnectionError|ConnectTimeout|NameResolution|ProxyError|Read timed out|from versions: none' $(VENV)/pip.log; \
  then what="pip cannot reach its package index (no network, or a proxy that pip is not configured for)"; \
  else what="pip: $$(grep -a -m 1 '^ *\(ERROR\|error\):' $(VENV)/pip.log || tail -n 1 $(VENV)/pip.log)"; fi; \
  echo "error: $$what; full output: $(VENV)/pip.log" >&2; exit 1; }
endef

# A stamp file: installs again only if the lock file, pyproject.toml or setup.py has changed.
$(VENV)/.stamp: requirements.lock pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; write make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the versions of requirements.lock into $(VENV)"
	$(call pip,install,--requirement requirements.lock)
	$(call pip,install,--no-deps --editable .)
	touch $@

setup: $(VENV)/.stamp

demo: setup
	$(BIN)/unet run config/config.yaml --cores $(CORES)

# The data stay as they are if they are there, so a corrected label is not overwritten.
# MORE_CONFIG: a file whose keys replace those of the config.
demo-full: setup
	$(BIN)/python benchmarks/demo_data.py results-full-data
	$(BIN)/unet run config/demo-full.yaml $(MORE_CONFIG) --cores $(CORES)

small-run: setup
	$(BIN)/snakemake --directory .test --cores $(CORES) --quiet rules
	$(BIN)/snakemake --directory .test --report results/report.zip

notebooks: setup
	@test -f .test/results/report.csv || { echo "error: .test/results: no report.csv; run make small-run first" >&2; exit 1; }
	UNET_RESULTS=$(CURDIR)/.test/results $(BIN)/python -m pytest --nbmake docs/notebooks

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

# The numerical tests, with the instruction sets and thread counts of other CPUs (as far as this CPU
# supports them).
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

# napari and Qt are added to the versions that requirements.lock does not name (hundreds of megabytes).
view-test: setup
	$(call pip,install,--constraint requirements.lock --editable '.[view]')
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest -ra tests/cli/test_view_command.py

# In headless Chromium; axe-core is a file of npm's package of that name.
report-test: setup
	UNET_AXE=$(AXE) $(BIN)/python -m pytest -m browser -ra tests/report

faults: setup
	$(BIN)/python -m pytest -m faults -ra -n $(TEST_JOBS) --dist worksteal tests/faults

# An old build/ folder would end up in the wheel.
# GPU_PYTHON names another Python, where there is no $(VENV). The figures follow in any case.
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) -m pytest -ra tests/gpu; tests=$$?; $(GPU_PYTHON) benchmarks/gpu.py && exit $$tests

build: setup
	rm -rf build dist
	$(call pip,wheel,--no-deps --wheel-dir dist .)
	rm -rf build
	UNET_WHEEL=$$(echo dist/*.whl) $(BIN)/python -m pytest -ra tests/project/test_wheel.py tests/project/test_walk_in.py

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

# Writes the tables of config/README.md and workflow/schemas from the keys' docstrings, and the
# sections of docs/commands.md from the commands' parsers.
config-docs: setup
	$(BIN)/python -m docs.config_docs
	$(BIN)/python -m docs.commands_docs
	$(BIN)/python -m docs.datasets_docs

# Needs no network. Material's note on the next MkDocs is left out.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

stage-hashes: setup
	$(BIN)/python -m tests.key_table
	$(BIN)/python -m tests.stage_hashes

clean:
	rm -rf results results-full results-full-data .test/results .test/.snakemake build dist site
