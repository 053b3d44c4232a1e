# make demo    an environment, the package, two pictures in outputs/
# make test    an environment, the package with its test extra, the tests
# make test-slow   what takes longer: kills, damage and several processes, with their counts
# make test-deepspeed   the same for DeepSpeed, in an environment that has it
# make check   the linters and the tests, as CI runs them
# make bench   an environment with the peers, this package against them: half an hour; bench-quick: tiny models
# make peers   an environment with imagen-pytorch and MinImagen, releases side by side; converted weights against them
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
BENCH_VENV ?= .venv-bench
PEERS_VENV ?= .venv-peers
DEEPSPEED_VENV ?= .venv-deepspeed
SOURCES = setup.cfg pyproject.toml constraints.txt

.PHONY: demo test test-slow test-deepspeed lint fix check clean bench bench-quick bench-environment peers

demo: $(VENV)/.installed
	$(BIN)/diffusers-imagen generate "一只戴着帽子的猫" "a cat wearing a hat" --output outputs/cat_with_hat.png --seed 0

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow -rP

test-deepspeed:
	$(PYTHON) -m venv $(DEEPSPEED_VENV)
	$(DEEPSPEED_VENV)/bin/python -m pip install -q -c constraints.txt -e ".[test,deepspeed]"
	$(DEEPSPEED_VENV)/bin/python -m pytest -m deepspeed -rP

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fix: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

bench: bench-environment
	$(BENCH_VENV)/bin/python benchmarks/run.py

bench-quick: bench-environment
	$(BENCH_VENV)/bin/python benchmarks/run.py --quick

bench-environment:
	$(PYTHON) benchmarks/environment.py $(BENCH_VENV)

peers:
	$(PYTHON) scripts/convert/peers/environment.py $(PEERS_VENV)
	$(PEERS_VENV)/bin/python scripts/convert/check_against_imagen_pytorch.py $(PEERS_VENV)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(PEERS_VENV) $(DEEPSPEED_VENV) outputs build dist

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@
