# make demo    an environment, the package, two pictures in outputs/
# make test    an environment, the package with its test extra, the tests
# make test-slow   what takes longer: kills, damage and several processes, with their counts
# make test-deepspeed   the same for DeepSpeed, in an environment that has it
# make check   the linters and the tests, as CI runs them
# make bench   an environment with the peers, this package against them: half an hour; bench-quick: tiny models
# make emoji-data   the pictures that the built-in cascade learned from, in $(RUNS)/data: 9 minutes; needs npm
# make peers   an environment with imagen-pytorch and MinImagen, releases side by side; converted weights against them
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
BENCH_VENV ?= .venv-bench
PEERS_VENV ?= .venv-peers
DEEPSPEED_VENV ?= .venv-deepspeed
RUNS ?= runs
EMOJI = $(BIN)/python examples/emoji
SOURCES = setup.cfg pyproject.toml constraints.txt

.PHONY: demo test test-slow test-deepspeed lint fix check clean bench bench-quick bench-environment emoji-data peers

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

# Each command goes on where it was stopped; examples/emoji/README.md, section 2, says what they make.
emoji-data: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt pyarrow resvg-py
	$(EMOJI)/fetch_art.py --out $(RUNS)/art --styles fluent-3d fluent-flat noto
	$(EMOJI)/make_dataset.py --preset first-singles --art $(RUNS)/art --out $(RUNS)/data/singles_128 --num-images 24000 --workers 2
	$(EMOJI)/make_dataset.py --art $(RUNS)/art --out $(RUNS)/data/scenes_256 --num-images 40000 --size 256 --seed 21 --workers 2 \
		--kinds "single=6,wear=4,color=3,count=3,pair=2,color pair=2,relation=3,size=1.5,hold=1.5,scene=1" \
		--styles fluent-3d=8,fluent-flat,noto --backgrounds white=0.7
	$(EMOJI)/make_dataset.py --art $(RUNS)/art --out $(RUNS)/data/layout_128 --num-images 40000 --seed 31 --workers 2 \
		--kinds "relation=9,pair=2,color pair=2,count=4,size=2.5,single=2,wear=3,scene=2,color=1.5,hold=0.5"
	$(EMOJI)/make_dataset.py --art $(RUNS)/art --out $(RUNS)/data/styles_128 --num-images 16000 --seed 41 --workers 2 \
		--kinds "single=8,wear=2,color=2,count=3,pair=1,color pair=1,relation=2,size=1,hold=1,scene=1" \
		--styles fluent-3d=0.3,fluent-flat,noto
	$(EMOJI)/join.py $(addprefix $(RUNS)/data/,scenes_256 singles_128 layout_128) --out $(RUNS)/data/mixed
	$(EMOJI)/join.py $(RUNS)/data/scenes_256 --first 6000 --out $(RUNS)/data/scenes_256_part
	$(EMOJI)/describe.py $(RUNS)/data/singles_128 --out $(RUNS)/data/described_128
	$(EMOJI)/join.py $(RUNS)/data/layout_128 --out $(RUNS)/data/layout_again
	$(EMOJI)/join.py $(addprefix $(RUNS)/data/,singles_128 described_128 styles_128) --first 12000 --out $(RUNS)/data/few
	$(EMOJI)/join.py $(addprefix $(RUNS)/data/,scenes_256 layout_128 layout_again few) --out $(RUNS)/data/described

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
