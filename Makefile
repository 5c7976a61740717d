# Two environments: .venv is what a user gets (no torch), .venv-dev adds what export, training and the tests need.
PYTHON ?= python3
RUN := .venv/bin
DEV := .venv-dev/bin
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint reliability serve proto clean

demo: .venv/ready
	$(RUN)/colorflow demo --out demo

# SERVE is what colorflow-server is told: make serve SERVE="--pack mini --port 50051 --metrics-port 9464"
SERVE ?= --pack mini --host 127.0.0.1 --port 50051

serve: .venv/server
	$(RUN)/colorflow-server $(SERVE)

# Generated code of the protocol, committed; tests/test_proto.py compares.
proto: .venv-dev/ready
	$(DEV)/python -m grpc_tools.protoc -Icolorflow_server/pb=proto/colorflow/v1 --python_out=server \
	  --grpc_python_out=server --pyi_out=server proto/colorflow/v1/colorflow.proto

test: .venv-dev/ready
	$(DEV)/python -m pytest -m "not alone" -n 2 --dist loadfile --no-loadscope-reorder
	$(DEV)/python -m pytest -m alone

lint: .venv-dev/ready
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy

# The long campaigns: hundreds of kills. Each keeps its state under .reliability/ and goes on where it stopped.
reliability: .venv-dev/ready
	mkdir -p .reliability
	$(DEV)/python benchmarks/reliability_refs.py --kills 200 --json .reliability/refs.json
	$(DEV)/python benchmarks/reliability_refs.py --sweep --json .reliability/refs-sweep.json
	$(DEV)/python benchmarks/reliability_refs_add.py --kills 200 --json .reliability/refs-add.json
	$(DEV)/python benchmarks/reliability_damage.py --rounds 10000 --json .reliability/damage.json
	$(DEV)/python benchmarks/reliability_colorize.py --kills 200 --json .reliability/colorize.json
	$(DEV)/python benchmarks/reliability_cancels.py --cancels 10000 --json .reliability/cancels.json
	$(DEV)/python benchmarks/reliability_serving.py drain --rounds 20 --json .reliability/drain.json
	$(DEV)/python benchmarks/reliability_serving.py kill --rounds 200 --json .reliability/kill.json
	$(DEV)/python benchmarks/reliability_serving.py fuzz --rounds 20000 --json .reliability/fuzz.json
	$(DEV)/python benchmarks/reliability_clients.py --json .reliability/clients.json
	$(DEV)/python benchmarks/reliability_overload.py --json .reliability/overload.json
	$(DEV)/python benchmarks/reliability_soak.py --minutes 30 --json .reliability/soak.json

.venv/ready: pyproject.toml constraints.txt | compiler
	$(PYTHON) -m venv .venv
	$(RUN)/pip install $(PIP_FLAGS) .
	touch $@

.venv/server: .venv/ready
	$(RUN)/pip install $(PIP_FLAGS) '.[server]'
	touch $@

.venv-dev/ready: pyproject.toml constraints.txt | compiler
	$(PYTHON) -m venv .venv-dev
	$(DEV)/pip install $(PIP_FLAGS) -e '.[export,server,tracing,dev]'
	touch $@

.PHONY: compiler
compiler:
	@command -v c++ >/dev/null || { echo "error: hnswlib is built from source and needs a C++ compiler: install one (Debian: apt-get install g++) and run make again" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed: run make PYTHON=python3.11" >&2; exit 1; }

clean:
	rm -rf .venv .venv-dev demo .reliability
