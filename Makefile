# Everything needs only git, python3 (3.10 to 3.13), g++ and make: each target makes its own virtual environment,
# installs TensorFlow into it and builds the op library.
#
#   make din      trains DIN on generated click logs and prints its AUC beside the best reachable
#   make din-ps   the same on parameter servers: a cluster of processes on this machine
#   make test     runs all tests
#   make test-crash   kills processes that save, damages files, fills disks
#   make test-cluster   kills workers, servers and chiefs of clusters
#   make build    builds the op library in place
#   make lint     checks style
#   make bench    runs the benchmarks beside FBGEMM, PyTorch, TFRA and Keras (an hour or so); make bench-quick a part of each
#
# PYTHON chooses the interpreter, TENSORFLOW the package: make test PYTHON=python3.12 TENSORFLOW="tensorflow==2.20.*"

PYTHON ?= python3
TENSORFLOW ?= tensorflow-cpu>=2.18,<2.22
VENV ?= .venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find cc -name '*.cc' -o -name '*.h') setup.py pyproject.toml

# Written anew when PYTHON or TENSORFLOW differ from those that the environment was made with.
CONFIG := $(PYTHON) $(TENSORFLOW)
ifneq ($(CONFIG),$(file < $(VENV)/.config))
.PHONY: $(VENV)/.config
endif

.PHONY: din din-ps test test-cc test-crash test-cluster build lint format bench bench-quick wheel clean

din: build
	$(BIN)/python examples/din/train.py

din-ps: build
	$(BIN)/python examples/din/train_ps.py

test: build test-cc
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup --ignore tests/cluster

test-cc: build/cc_tests
	build/cc_tests

test-crash: build
	CRASH_KILLS=60 CRASH_DAMAGES=200 $(BIN)/python -m pytest -q -s tests/crash

test-cluster: build
	$(BIN)/python -m pytest -q tests/cluster

build: $(VENV)/.built

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'cc/*.h' 'cc/*.cc' 'tests/cc/*.cc' 'tests/cc/*.h' 'benchmarks/*.cc')

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'cc/*.h' 'cc/*.cc' 'tests/cc/*.cc' 'tests/cc/*.h' 'benchmarks/*.cc')

# BENCH has more flags: make bench-quick BENCH="--workload bag wide --peers fbgemm". The peers' environments are made
# under build/bench.
bench: build
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(BIN)/python benchmarks/run.py --workload scale
	$(BIN)/python benchmarks/apply_gradients.py
	$(BIN)/python benchmarks/saving.py

bench-quick: build
	$(BIN)/python benchmarks/run.py --quick $(BENCH)

wheel: build
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV)

$(VENV)/.config:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@printf '%s' '$(CONFIG)' > $@

$(INSTALLED): pyproject.toml Makefile $(VENV)/.config
	$(PIP) install "$(TENSORFLOW)" "setuptools>=64" wheel pytest pytest-xdist pyarrow pyyaml tensorboard \
	  "ruff==0.17.*" "clang-format==23.*"
	@# tf_keras has TensorFlow's minor version, and requires the package `tensorflow`, which need not be the one here.
	$(PIP) install --no-deps "tf_keras==$$($(BIN)/python -c \
	  'from tensorflow import version; print(*version.VERSION.split(".")[:2], sep=".")').*"
	touch $@

$(VENV)/.built: $(INSTALLED) $(SOURCES)
	$(PIP) install --no-build-isolation --no-deps --editable .
	touch $@

build/cc_tests: $(wildcard tests/cc/*.cc tests/cc/*.h) $(wildcard cc/lib/*)
	@mkdir -p build
	$(CXX) -std=c++17 -O2 -g -ffp-contract=off -Wall -Wextra -Werror -Wno-sign-compare -I. -pthread -o $@ \
	  tests/cc/*.cc cc/lib/*.cc
