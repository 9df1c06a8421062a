# `make` by itself says what there is. Needed beforehand: make, a POSIX shell, Python 3.11 or later.
# Everything else goes into .venv, at the versions and hashes of requirements/*.lock.

PYTHON ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# An environment that was moved with the tree, or whose Python was uninstalled, is made again.
ifneq ($(wildcard $(VENV)),)
  $(shell test -x $(BIN)/python && test "$$(cat $(VENV)/made-for 2>/dev/null)" = "$(CURDIR)" \
    || rm -f $(VENV)/made-for $(VENV)/has-run $(VENV)/has-dev $(VENV)/has-riskhub)
endif

.DEFAULT_GOAL := help
.PHONY: help run test test-prod lint bench lock clean
.DELETE_ON_ERROR:
.NOTPARALLEL: # one pip at a time

help: ## this list
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON=/path/to/python3]'
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1	/p' Makefile | while IFS='	' read -r target what; do \
	  printf '  %-9s %s\n' "$$target" "$$what"; done

run: $(VENV)/has-run $(VENV)/has-riskhub ## start the demo: API, Dagster and a seeded store
	@exec $(BIN)/riskhub up --demo $(ARGS)

# Three workers, also on two cores, because the end-to-end tests mostly wait; a file stays with one of
# them. In the order of the files: by default those of few tests come last, which are the long ones.
test: $(VENV)/has-dev $(VENV)/has-riskhub ## all tests; ARGS="-k budget -x" goes to pytest
	@exec $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Ten minutes of it are chaos: RISKHUB_CHAOS_SECONDS=60 make test-prod is a short one.
test-prod: $(VENV)/has-dev $(VENV)/has-riskhub ## production, whole, on real services: about 16 minutes
	@exec $(BIN)/python -m pytest tests/prod -s -v $(ARGS)

lint: $(VENV)/has-dev $(VENV)/has-riskhub ## ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/has-dev $(VENV)/has-riskhub ## what is claimed about speed, measured here
	@exec $(BIN)/python -m benchmarks $(ARGS)

# Versions already in a lock stay; ARGS=--upgrade or ARGS="--upgrade-package NAME" moves them on.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header $(ARGS)

lock: $(VENV)/has-dev ## make requirements/*.lock again from pyproject.toml
	@$(LOCK) pyproject.toml -o requirements/run.lock
	@$(LOCK) pyproject.toml --extra dev --extra bench -c requirements/run.lock \
	  -o requirements/dev.lock
	@$(LOCK) requirements/build.in -c requirements/dev.lock -o requirements/build.lock

clean: ## remove .venv and the caches, keep .riskhub (its data is yours)
	@rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------

# Finds the first Python of 3.11 to 3.14 that runs (a version manager's shim may not) and that can
# make a virtual environment (Debian splits that off); says which of the two is wanting otherwise.
# 3.14 comes late: on macOS one of the locked packages has no wheel for it and would be compiled.
define find_python
found=; bare=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3.14 python3); do \
  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
    >/dev/null 2>&1 || continue; \
  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; \
    then found=$$candidate; break; else bare=$${bare:-$$candidate}; fi; \
done; \
if [ -z "$$found" ] && [ -n "$$bare" ]; then \
  package=$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
  echo "riskhub needs the venv module, and $$bare has none: sudo apt install $$package" >&2; exit 1; \
elif [ -z "$$found" ]; then \
  echo "riskhub needs Python 3.11 to 3.14, and $(or $(PYTHON),the PATH) has none: install one, or" \
    "name one with make PYTHON=/path/to/python3" >&2; exit 1; \
fi
endef

# $(call logged,COMMAND): its output only if it fails.
logged = $(1) >$(LOG) 2>&1 || { code=$$?; cat $(LOG) >&2; exit $$code; }

# $(call install,LOCK FILES): exactly what they pin, and nothing they do not.
define install
echo "installing $$(sort -u $(1) | grep -c '^[a-z].*==[^;]*$$') packages into $(VENV)" \
  "(about a minute the first time)…"; \
$(call logged,$(PIP) install --no-deps --require-hashes $(foreach lock,$(1),-r $(lock)))
endef

# An environment somebody made by hand is kept if its Python runs and is recent enough.
$(VENV)/made-for:
	@if $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && grep -qF "$(CURDIR)/$(VENV)" $(BIN)/activate; then :; else \
	  $(find_python); \
	  rm -rf $(VENV); mkdir $(VENV); \
	  $(call logged,"$$found" -m venv $(VENV)); \
	fi
	@printf '%s\n' "$(CURDIR)" >$@

$(VENV)/has-run: requirements/run.lock requirements/build.lock | $(VENV)/made-for
	@$(call install,requirements/run.lock requirements/build.lock)
	@touch $@

# The development lock is a superset of the other at the same versions.
$(VENV)/has-dev: requirements/dev.lock requirements/build.lock | $(VENV)/made-for
	@$(call install,requirements/dev.lock requirements/build.lock)
	@touch $@ $(VENV)/has-run

# Editable, so that only a change of pyproject.toml (an entry point, say) asks for it again. The
# build backend is the pinned one in .venv: an isolated build would download another.
$(VENV)/has-riskhub: pyproject.toml | $(VENV)/has-run
	@$(call logged,$(PIP) install --no-deps --no-build-isolation --editable .)
	@touch $@
