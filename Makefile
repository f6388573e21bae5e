# Everything runs in .venv, which `make setup` builds from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test bench lint docs

setup: $(STAMP)

$(STAMP): pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch torchvision
	$(BIN)/python -m pip install -q -c constraints.txt -e './runtime[text,image]' -e '.[dev,text]'
	touch $(STAMP)

demo: setup
	$(BIN)/fastness demo

test: setup  # a process a core; a file's tests share what they make
	$(BIN)/python -m pytest -n $(shell nproc) --dist loadfile

# make bench NAME=pretrain_throughput [SIZE=quick]
bench: setup
	@test -n "$(NAME)" || { echo "make bench NAME=... : $$(cd benchmarks && ls *.py | grep -v common | sed s/.py// | xargs)"; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py $(if $(SIZE),--$(SIZE))

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python docs/draw.py --check
	$(BIN)/python docs/reference.py --check

docs: setup  # docs/figure.py makes the README's picture after a demo
	$(BIN)/python docs/draw.py
	$(BIN)/python docs/reference.py
