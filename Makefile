# Everything needs only git, python3 (3.10 to 3.13), g++ and make: each target makes its own virtual environment,
# installs TensorFlow into it and builds the op library.
#
#   make din      trains DIN on generated click logs and prints its AUC beside the best reachable
#   make din-ps   the same on parameter servers: a cluster of processes on this machine
#   make notebook runs examples/din/din.ipynb and writes its outputs into it; make notebook-quick a part of it, writing nothing
#   make test     runs all tests
#   make test-crash   kills processes that save, damages files, fills disks
#   make test-cluster   kills workers, servers and chiefs of clusters
#   make test-sanitizers   runs the tests of cc/lib under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
#   make test-asan-ops   runs the tests of the ops on a library that is built with AddressSanitizer
#   make fuzz     fuzzes cc/lib, FUZZ_SECONDS=60 each target (installs Debian's clang if there is none)
#   make test-matrix   runs all tests on the oldest and the newest TensorFlow, on every Python found, and installs the wheels
#   make test-systems  the same in other Debians and Ubuntus, for the Pythons that this machine lacks (as root)
#   make bazel    builds the op library with Debian's Bazel and runs the op tests on it
#   make mutants  puts bugs into a copy of the sources, one by one, and reports those that no test finds
#   make stress   a minute of everything at once on each storage, 10,000 tables made and dropped, tensors of 9 GB, and tables
#                 that can take no more memory
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

.PHONY: din din-ps test test-cc test-crash test-cluster test-sanitizers test-asan-ops fuzz fuzz-corpus build \
  lint format bench bench-quick wheel clean stress test-matrix test-systems bazel mutants notebook notebook-quick

din: build
	$(BIN)/python examples/din/train.py

din-ps: build
	$(BIN)/python examples/din/train_ps.py

# On the Amazon Video Games files where DATA_DIR names their folder, else on generated data.
notebook: build $(VENV)/.notebook
	$(BIN)/python examples/din/run_notebook.py

notebook-quick: build $(VENV)/.notebook
	$(BIN)/python examples/din/run_notebook.py --quick

# The tests of a file run in one process, so that what its fixtures start is started once.
test: build test-cc
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/cluster

test-cc:
	$(MAKE) --jobs=$$(nproc) build/plain/cc_tests
	build/plain/cc_tests

test-crash: build
	CRASH_KILLS=60 CRASH_DAMAGES=200 $(BIN)/python -m pytest -q -s tests/crash

test-cluster: build
	$(BIN)/python -m pytest -q tests/cluster

test-sanitizers:
	$(MAKE) --jobs=$$(nproc) build/asan/cc_tests build/tsan/cc_tests
	UBSAN_OPTIONS=print_stacktrace=1 build/asan/cc_tests
	build/tsan/cc_tests

# In a copy, because objects and library are not those of other targets. The tests that are named run ops; leaks are left
# out, because Python and TensorFlow give back little at exit. The C++ library is loaded beside the sanitizer's, which looks
# for it when the program starts, and Python does not bring it; pytest must not catch the report.
ASAN_OPS := build/asan_ops
OPS_TESTS ?= $(wildcard tests/test_embedding_*.py) tests/test_variable.py tests/test_storages.py tests/test_lookup_tables.py \
  tests/test_multi_feature_ops.py tests/test_key_dedup_by_table.py tests/test_key_counts.py tests/test_table_methods.py \
  tests/test_threads.py tests/test_snapshots.py tests/test_saving_table_files.py tests/test_incremental_checkpoint.py

test-asan-ops: build
	mkdir -p $(ASAN_OPS)
	cp -Rpu cc tf_sparse_emb tests examples setup.py pyproject.toml README.md LICENSE $(ASAN_OPS)
	cd $(ASAN_OPS) && CXXFLAGS="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address" LDFLAGS=-fsanitize=address \
	  $(abspath $(BIN))/python setup.py -q build_ext --inplace
	cd $(ASAN_OPS) && LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(abspath $(ASAN_OPS)) \
	  $(abspath $(BIN))/python -m pytest -q --capture=sys $(OPS_TESTS)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(notdir $(wildcard tests/fuzz/corpus/*))

# What is found on the way is kept in build/fuzz/found, and beside its folder a failing input as
# <target>-crash-*.
fuzz: build/fuzz/cc_fuzzer
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p build/fuzz/found/$$target && echo "== $$target" && \
	  FUZZ_TARGET=$$target build/fuzz/cc_fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -len_control=0 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=build/fuzz/found/$$target- build/fuzz/found/$$target \
	    tests/fuzz/corpus/$$target || exit 1; \
	done

# Adds to the corpus the fewest and shortest of build/fuzz/found that reach all edges which these reach.
fuzz-corpus: build/fuzz/cc_fuzzer
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p tests/fuzz/corpus/$$target && \
	  FUZZ_TARGET=$$target build/fuzz/cc_fuzzer -set_cover_merge=1 -use_counters=0 -max_len=600 -verbosity=0 \
	    tests/fuzz/corpus/$$target build/fuzz/found/$$target || exit 1; \
	done

stress: build
	STRESS_SECONDS=60 LEAK_CYCLES=10000 HUGE_TENSORS=1 $(BIN)/python -m pytest -q -s tests/test_concurrency.py \
	  tests/test_leaks.py tests/test_huge_tensors.py tests/test_out_of_memory.py

# MATRIX has its flags: make test-matrix MATRIX="--python 3.13 --tensorflow 2.20 2.21"
test-matrix:
	$(PYTHON) tests/versions/run.py $(MATRIX)

test-systems:
	$(PYTHON) tests/versions/systems.py $(MATRIX)

# The op tests run on a copy of the package with Bazel's library in it.
BAZEL_PACKAGES := bazel-bootstrap bazel-rules-java bazel-rules-proto
STAGE := $(abspath build/bazel)
OP_TESTS := $(wildcard tests/test_embedding_*.py) tests/test_variable.py tests/test_storages.py tests/test_optimizers.py
bazel: $(INSTALLED)
	dpkg -s $(BAZEL_PACKAGES) > /dev/null 2>&1 || { apt-get update -q && apt-get install -qy $(BAZEL_PACKAGES); }
	bazel build --config=debian --override_repository=rules_cc=$(CURDIR)/bazel/rules_cc \
	  --repo_env=TF_PYTHON=$(abspath $(BIN)/python) //:op_library
	rm -rf $(STAGE) && mkdir -p $(STAGE) && cp -r tf_sparse_emb $(STAGE)
	cp -f build/bazel-bin/_ops.so build/bazel-bin/_build_info.py $(STAGE)/tf_sparse_emb
	cd $(STAGE) && $(abspath $(BIN))/python -c "import tf_sparse_emb as t; print(t.__file__); assert t.__file__.startswith('$(STAGE)')"
	PYTHONPATH=$(STAGE) $(BIN)/pytest -q $(OP_TESTS)

mutants: build build/plain/cc_tests
	$(BIN)/python tests/mutants/run.py

build: $(VENV)/.built

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'cc/*.h' 'cc/*.cc' 'tests/*.cc' 'tests/*.h' 'benchmarks/*.cc')

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'cc/*.h' 'cc/*.cc' 'tests/*.cc' 'tests/*.h' 'benchmarks/*.cc')

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
	$(PIP) install "$(TENSORFLOW)" "setuptools>=64" wheel pytest pytest-xdist hypothesis pyarrow pyyaml tensorboard \
	  "ruff==0.17.*" "clang-format==23.*"
	@# tf_keras has TensorFlow's minor version, and requires the package `tensorflow`, which need not be the one here.
	$(PIP) install --no-deps "tf_keras==$$($(BIN)/python -c \
	  'from tensorflow import version; print(*version.VERSION.split(".")[:2], sep=".")').*"
	touch $@

$(VENV)/.notebook: $(INSTALLED)
	$(PIP) install nbclient ipykernel matplotlib
	touch $@

$(VENV)/.built: $(INSTALLED) $(SOURCES)
	$(PIP) install --no-build-isolation --no-deps --editable .
	touch $@

# The tests of cc/lib, built in several ways: build/$(1)/$(2) of the sources $(3), by the compiler $(4) with the flags $(5).
define cc_program
build/$(1)/%.o: %.cc
	@mkdir -p $$(@D)
	$(4) $(CC_FLAGS) $(5) -MMD -MP -c -o $$@ $$<

build/$(1)/$(2): $(3:%.cc=build/$(1)/%.o)
	$(4) $(5) -pthread -o $$@ $$^

-include $(3:%.cc=build/$(1)/%.d)
endef

CC_FLAGS := -std=c++17 -g -ffp-contract=off -Wall -Wextra -Wno-sign-compare -I. -pthread
SANITIZE := -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=address,undefined
CC_LIB := $(wildcard cc/lib/*.cc) $(filter-out %/fuzzer.cc %_test.cc,$(wildcard tests/fuzz/*.cc))
CC_TESTS := $(wildcard tests/cc/*.cc tests/fuzz/*_test.cc) $(CC_LIB)
CC_THREADS := $(patsubst %,tests/cc/%.cc,main testing block_stream_test dedup_lookup_test duplicate_test fair_lock_test in_turn_test \
  isa_test key_dedup_test table_load_test shared_loop_test table_chunks_test table_test table_threads_test update_rules_test) \
  $(wildcard cc/lib/*.cc)
CC_FUZZER := tests/fuzz/fuzzer.cc tests/cc/testing.cc $(CC_LIB)

$(eval $(call cc_program,plain,cc_tests,$(CC_TESTS),$(CXX),-O2 -Werror))
$(eval $(call cc_program,asan,cc_tests,$(CC_TESTS),$(CXX),$(SANITIZE)))
$(eval $(call cc_program,tsan,cc_tests,$(CC_THREADS),$(CXX),-O1 -fsanitize=thread))
$(eval $(call cc_program,fuzz,cc_fuzzer,$(CC_FUZZER),clang++,$(SANITIZE) -fsanitize=fuzzer))

$(CC_FUZZER:%.cc=build/fuzz/%.o): | build/fuzz/.clang
build/fuzz/.clang:
	@mkdir -p $(@D)
	command -v clang++ || apt-get install -y --no-install-recommends clang libclang-rt-14-dev
	touch $@
