# make demo     the pipeline on this machine, without any server (needs Python 3.11 or newer, nothing else)
# make test     every test, on real services (also wants Java 17 and Maven, and installs them where it can)
# make check    lint, types, layers, unit tests: seconds, no server, no network
# make golden   every golden table through every store and back, GOLDEN=folder; ARGS=--no-spark is faster by minutes
# make bench    the benchmarks, as JSON lines; ONLY=commit.postgres runs a part, SECONDS=5 less long, CORES=2 on two cores
# make soak     half an hour of what shows rarely: a thousand kills of the mirror, of committers and of servers under them
# make services fetches and caches the test services
# make images   container images of the project and of every server, without an image registry; images-clean removes them
# make test-containers  the tests on servers in containers, and those of the whole stack in them
# make engine-stop  ends the container engine that make images has started, if it has
# make lock     resolves the dependencies again; UPGRADE=--upgrade takes the newest
# make clean    removes what make made here; the cache shared by all clones stays

SHELL := /bin/sh
.DEFAULT_GOAL := check
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test check golden bench soak services images images-clean engine-stop test-containers lock clean tools

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/deltalakedb
VENV  := .venv
# One more than there are processors: part of every test's time is waiting, for servers and for what it kills.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)))

# Tests start hundreds of processes: each would compile all that it imports, which takes most of a second.
unexport PYTHONDONTWRITEBYTECODE

# The first Python on PATH that is new enough; PYTHON=/path/to/python goes before all.
PYTHON := $(shell for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$python" && break; done)

# What is installed is stamped with the checksum of the lock it came from, so that a new lock is noticed and a
# fresh checkout of the same one is not.
checksum = $(shell cat $(1) | cksum | tr ' ' -)
UV      := $(CACHE)/uv-$(call checksum,requirements/uv.txt)/bin/uv
PROJECT := $(VENV)/.installed/project-$(call checksum,pyproject.toml)
DEMO    := $(VENV)/.installed/demo-$(call checksum,requirements/build.txt requirements/demo.txt)
IMAGES  := $(VENV)/.installed/containers-$(call checksum,requirements/build.txt requirements/containers.txt)
TEST    := $(VENV)/.installed/test-$(call checksum,requirements/build.txt requirements/test.txt)

demo: $(if $(wildcard $(TEST)),$(TEST),$(DEMO)) $(PROJECT)
	@$(VENV)/bin/deltalakedb demo $(ARGS)

# What is measured runs by itself, after everything else; ARGS, such as a file's name, asks for one run of just that.
test: tools $(TEST) $(PROJECT) services
ifdef ARGS
	@$(VENV)/bin/pytest -n $(WORKERS) $(ARGS)
else
	@$(VENV)/bin/pytest -n $(WORKERS) -m "not performance and not soak"
	@$(VENV)/bin/pytest -m performance
endif

check: $(TEST) $(PROJECT)
	@$(VENV)/bin/ruff check --output-format concise
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/pytest -q -n $(WORKERS) tests/unit

golden: tools $(TEST) $(PROJECT) services
	@$(VENV)/bin/python -m tests.golden_tables $(GOLDEN) $(ARGS)

bench: tools $(TEST) $(PROJECT) services
	@$(VENV)/bin/python -m bench $(if $(ONLY),--only '$(ONLY)') $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CORES),--cores $(CORES))

soak: tools $(TEST) $(PROJECT) services
	@$(VENV)/bin/pytest -n $(WORKERS) -m soak $(ARGS)
ifndef ARGS
	@$(VENV)/bin/pytest -n $(WORKERS) --hypothesis-profile=new tests/properties
endif

services: tools $(TEST) $(UV)
	@$(VENV)/bin/python -m tests.services.fetch $(UV)

images: tools $(TEST) $(IMAGES) $(PROJECT) services
	@$(VENV)/bin/python -m tests.containers.images

# What only needs servers by their addresses, on containers; then the stack, which wants the machine for itself.
test-containers: images
ifdef ARGS
	@$(VENV)/bin/pytest --services=containers $(ARGS)
else
	@$(VENV)/bin/pytest --services=containers -n 2 tests/integration/test_client.py tests/integration/test_client_s3.py \
	    tests/integration/test_roles.py tests/integration/test_importing_services.py tests/contracts/test_commit_store.py
	@$(VENV)/bin/pytest --services=containers tests/containers
endif

engine-stop: $(TEST)
	@$(VENV)/bin/python -m tests.containers.engine stop

images-clean: $(TEST) $(IMAGES)
	@$(VENV)/bin/python -m tests.containers.engine remove

# Before the minutes of fetching: what the system lacks is installed, or said, at once.
tools: .python
	@$(PYTHON) -m tests.services.tools

.PHONY: .python
.python:
	@test -n "$(PYTHON)" || { echo "deltalakedb needs Python 3.11 or newer as python3 on PATH; here is" \
	    "$$(python3 --version 2>/dev/null || echo none). Install it, or say make PYTHON=/path/to/python." >&2; exit 1; }

$(UV): | .python
	@echo "uv: installing the pinned version" >&2
	@$(PYTHON) requirements/install_uv.py $(abspath $(dir $@)..)

$(VENV)/.installed: | .python $(UV)
	@$(UV) venv -q --allow-existing --python $(PYTHON) $(VENV)
	@mkdir -p $@

INSTALL := $(UV) pip install -q --python $(VENV)/bin/python --no-build-isolation

$(DEMO) $(TEST) $(IMAGES): | $(VENV)/.installed
	@echo "$(VENV): installing what requirements/$(firstword $(subst -, ,$(notdir $@))).txt pins" >&2
	@$(INSTALL) --require-hashes -r requirements/build.txt
	@$(INSTALL) --require-hashes -r requirements/$(firstword $(subst -, ,$(notdir $@))).txt
	@touch $@

$(PROJECT): | $(VENV)/.installed
	@$(INSTALL) --require-hashes -r requirements/build.txt
	@$(INSTALL) --no-deps -e .
	@touch $@

# Neither an index nor a download address is recorded: the hashes say what is meant, wherever it comes from.
COMPILE = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url $(UPGRADE)

lock: $(UV)
	@$(COMPILE) --all-extras --group test --group lint --group build -o requirements/test.txt pyproject.toml
	@$(COMPILE) --extra demo -c requirements/test.txt -o requirements/demo.txt pyproject.toml
	@$(COMPILE) --group pyproject.toml:build -c requirements/test.txt -o requirements/build.txt
	@$(COMPILE) --group pyproject.toml:go -o requirements/go.txt
	@$(COMPILE) --extra kafka --extra postgres --extra s3 --extra services -c requirements/test.txt \
	    -o requirements/services.txt pyproject.toml
	@$(COMPILE) --group pyproject.toml:containers -c requirements/test.txt -o requirements/containers.txt

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
