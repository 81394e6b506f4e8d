# Needs Python 3.11 or newer and make; everything else comes with the targets. Java comes as a wheel.
#   make demo     the main job on real data          make test    every check that a change must pass
#   make test-flavors   those of models of heavy libraries
#   make test-azure     those of tables in Azure's storage, at a server that needs Node and npm
#   make lint  make types  make contracts            the single checks      make coverage  lines tests reach
#   make bench    rows/s/core beside the peers       make clean   remove all that make has made here

SHELL  := /bin/sh
PYTHON ?= python3

VENV   := .venv
PEER   := .venv-mlflow
PEER2  := .venv-mlflow2
PEER312 := .venv-mlflow312
RIVALS := .venv-bench
HEAVY  := .venv-flavors
BIN    := $(VENV)/bin
# Two, since most tests wait for one thread of a JVM; each process has a Spark session of its own.
# The order of the files is that of tests/conftest.py.
PROCESSES ?= 2

# Without a home that can be written to, downloads are kept below the checkout.
ifneq ($(shell [ -n "$$HOME" ] && mkdir -p "$$HOME/.cache" 2>/dev/null && [ -w "$$HOME/.cache" ] && echo yes),yes)
export XDG_CACHE_HOME ?= $(CURDIR)/.cache
endif
# uv does not read pip's variables: a company's mirror must count for both.
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# A network that is slow for pip is slow for uv.
export UV_HTTP_TIMEOUT ?= 300

# $(call install,ENVIRONMENT,WHAT): by uv, or by pip where uv is not to be had.
install = if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --python $(1)/bin/python $(2); \
	else $(1)/bin/python -m pip install $(2); fi
# A comma in an argument of `install`.
COMMA := ,
# Packages that travel between two environments need the same libraries in both.
SHARED = ^(catboost|cloudpickle|lightgbm|numpy|onnx|onnxruntime|pandas|pyarrow|pyspark|scikit-learn|scipy|skops|statsmodels|xgboost-cpu)==

.DELETE_ON_ERROR:
.PHONY: demo test coverage test-flavors test-azure lint types contracts setup bench clean

demo: $(VENV)/local.stamp
	$(BIN)/sparkscore demo

test: lint types contracts setup $(PEER)/stamp $(PEER2)/stamp $(PEER312)/stamp
	SPARKSCORE_MLFLOW_PYTHON=$(CURDIR)/$(PEER)/bin/python \
	SPARKSCORE_MLFLOW2_PYTHON=$(CURDIR)/$(PEER2)/bin/python \
	SPARKSCORE_MLFLOW312_PYTHON=$(CURDIR)/$(PEER312)/bin/python $(BIN)/python -m pytest \
		--numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder $(TESTS)

# Watching each line costs a third of the time again.
coverage: TESTS := --cov=sparkscore --cov-report=term:skip-covered
coverage: test

test-flavors: $(HEAVY)/stamp $(PEER)/heavy.stamp
	SPARKSCORE_MLFLOW_PYTHON=$(CURDIR)/$(PEER)/bin/python $(HEAVY)/bin/python -m pytest tests/heavy_flavors

test-azure: setup
	$(BIN)/python -m pytest tests/azure

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/test.stamp
	$(BIN)/mypy

contracts: $(VENV)/test.stamp
	$(BIN)/lint-imports

setup: $(VENV)/test.stamp
	$(BIN)/sparkscore setup

bench: setup $(RIVALS)/stamp
	$(BIN)/python -m benchmarks.main_job --peers-python $(RIVALS)/bin/python $(BENCH)

clean:
	rm -rf $(VENV) $(PEER) $(PEER2) $(PEER312) $(RIVALS) $(HEAVY) .cache demo dist build spark-warehouse metastore_db derby.log \
		.coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sparkscore needs \
	Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true); install one and \
	name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet uv || echo "uv is not to be had; pip does its work"
	touch $@

$(VENV)/local.stamp: $(VENV)/stamp pyproject.toml
	$(call install,$(VENV),-e '.[local]')
	touch $@

$(VENV)/test.stamp: $(VENV)/stamp pyproject.toml
	$(call install,$(VENV),-e '.[test]')
	touch $@

$(PEER)/stamp: tests/interop/mlflow-requirements.txt tests/interop/peer-libraries.txt
$(PEER2)/stamp: tests/interop/mlflow2-requirements.txt tests/interop/peer-libraries.txt
$(PEER312)/stamp: tests/interop/mlflow312-requirements.txt
$(RIVALS)/stamp: benchmarks/peers-requirements.txt
$(PEER)/stamp $(PEER2)/stamp $(PEER312)/stamp $(RIVALS)/stamp: %/stamp: $(VENV)/test.stamp
	$(PYTHON) -m venv --clear $*
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '$(SHARED)' > $*/shared.txt
	$(call install,$*,-r $(filter %-requirements.txt,$^) -c $*/shared.txt)
	touch $@

$(HEAVY)/stamp: $(VENV)/stamp pyproject.toml
	$(PYTHON) -m venv --clear $(HEAVY)
	$(call install,$(HEAVY),-e '.[test$(COMMA)prophet$(COMMA)pytorch$(COMMA)tensorflow$(COMMA)transformers]')
	touch $@

$(PEER)/heavy.stamp: $(PEER)/stamp $(HEAVY)/stamp
	$(HEAVY)/bin/python -m pip freeze --exclude-editable | \
		grep -E '^(keras|prophet|tensorflow-cpu|torch|transformers)==' > $(PEER)/heavy.txt
	$(call install,$(PEER),-r $(PEER)/heavy.txt -c $(PEER)/shared.txt)
	touch $@
