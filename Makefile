# `make tables` and `make test` do everything on a machine with Python 3.11+, pip and make.
PYTHON ?= python3
CORES ?= $(shell nproc)
ACTIVATE := . .venv/bin/activate
READY := .venv/.ready

# Quiet, offline, repeatable: no telemetry, no progress bars in logs.
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
# uv does not read pip's own variable for local wheels.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: tables test test-docs test-distributed fuzz kills slurm cluster lint docs ui bench scale measure verify sbom audit setup lock clean

tables: $(READY)
	@$(ACTIVATE) && snakemake --quiet progress --cores $(CORES) all

test: $(READY)
	@$(ACTIVATE) && python -m pytest

# The commands of the documentation, in a pipeline at the smoke preset.
test-docs: $(READY)
	@$(ACTIVATE) && python -m pytest -n 0 -m documentation

# Trainings and evaluations as 1, 2, 3 and 4 processes, killed and started again as others.
test-distributed: $(READY)
	@$(ACTIVATE) && python -m pytest -n 0 -m distributed

# Damaged and hostile files for every reader, other ones each time. CASES is their number a reader;
# SEED repeats a run.
fuzz: CASES ?= 5000
fuzz: SEED := $(or $(SEED),$(shell date +%s))
fuzz: $(READY)
	@echo "make fuzz CASES=$(CASES) SEED=$(SEED)"
	@$(ACTIVATE) && HMDIFF_FUZZ=$(CASES) HMDIFF_FUZZ_SEED=$(SEED) \
		python -m pytest tests/test_fuzz.py --dist load -rA

lint: $(READY)
	@$(ACTIVATE) && ruff check . && ruff format --check .

# The site in site/, with warnings as errors and without a network.
docs: $(READY)
	@$(ACTIVATE) && NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

ui: $(READY)
	@$(ACTIVATE) && mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

# What `make tables` costs from here on; from an empty checkout: the whole run.
measure: $(READY)
	@$(ACTIVATE) && hmdiff measure --out results/cost.json -- $(MAKE) --no-print-directory tables

# All results once more, from an empty cache in a temporary clone, against the committed dvc.lock.
verify: $(READY)
	@$(ACTIVATE) && hmdiff verify

# The smoke pipeline, killed at random moments and started again, against one that was left alone.
ENGINE ?= snakemake
KILLS ?= 50
kills: $(READY)
	@$(ACTIVATE) && python tests/kills.py --engine $(ENGINE) --kills $(KILLS)

# The smoke pipeline as jobs of a real Slurm that runs on this machine meanwhile.
slurm: $(READY)
	@$(ACTIVATE) && python tests/slurm.py $(if $(OUT),--out $(OUT))

# What submits jobs to Slurm, beside the packages of the lock.
cluster: $(READY)
	@$(ACTIVATE) && uv pip install --quiet --constraint requirements.lock --no-build-isolation \
		--editable '.[cluster]'

bench: $(READY)
	@$(ACTIVATE) && hmdiff bench

# Time and memory up to 400,000 generated records, after `make tables`; WORK holds 15 GB for a while.
WORK ?= $(or $(TMPDIR),/tmp)/hmdiff-scale
scale: $(READY)
	@$(ACTIVATE) && hmdiff scale --work $(WORK)

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.lock)"
	# Compiled once: an interpreter told to write no bytecode would compile torch in every stage.
	$(ACTIVATE) && uv pip sync --quiet --compile-bytecode requirements.lock
	$(ACTIVATE) && uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Resolve the ranges of pyproject.toml anew.
lock:
	$(ACTIVATE) && uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra docs \
		--no-emit-index-url --generate-hashes pyproject.toml -o requirements.lock

# What the lock pins, as CycloneDX; the tool that reads the lock is no part of it.
SBOM_TOOL := cyclonedx-bom==7.5.0
sbom: $(READY)
	@$(ACTIVATE) && uv tool run --quiet --from $(SBOM_TOOL) cyclonedx-py requirements \
		--output-reproducible --output-format JSON requirements.lock | python tests/sbom.py

# What is known against the pins, asked of PyPI; without internet of ADVISORIES, a git checkout of
# pypa/advisory-database. Ends with an error where something is.
AUDIT_TOOL := pip-audit==2.10.1
audit: $(READY)
	@$(ACTIVATE) && python tests/audit.py $(AUDIT_TOOL) \
		$(if $(ADVISORIES),--advisories '$(ADVISORIES)')

clean:
	rm -rf .venv .snakemake logs site
