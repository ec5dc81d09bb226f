# Two commands for a user: `make run` and `make test`. Both install what they need, once, into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check format lint types protos bench clean

run: .venv/installed
	$(BIN)/shardsgd train examples/digits.toml

test: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile

# What a change must pass before it is committed.
check: format lint types test

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# mypy cannot see through the folder mapping of pyproject.toml, so it gets the package as it is installed: as a tree.
types: .venv/installed-dev
	rm -rf build/types
	mkdir -p build/types/shardsgd
	ln -s $(CURDIR)/client/* $(foreach folder,coordinator model protos workers,$(CURDIR)/$(folder)) build/types/shardsgd/
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p shardsgd

# The committed modules of protos/training.proto; a test fails where they are not what this makes.
protos: .venv/installed-dev
	rm -f protos/*_pb2*
	mkdir -p build
	$(BIN)/python -m grpc_tools.protoc -Ishardsgd/protos=protos --python_out=build --pyi_out=build --grpc_python_out=build shardsgd/protos/training.proto
	mv build/shardsgd/protos/* protos/

# Peers and us in one alternating run: writes benchmarks/RESULTS.md. Takes long; benchmarks/README.md says how to run a part.
bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info runs .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which with make PYTHON=…" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing shardsgd into .venv (a minute or two, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@
