# `make demo` shows the degradation and its cure; `make test` runs every check. Both set everything up first.
PYTHON ?= python3
DATA   ?= fashion-mnist
JOBS   ?= 2
BIN    := .venv/bin

.PHONY: demo test fast check other-processor floor coverage gpu lint slow clean
.DELETE_ON_ERROR:

demo: .venv/ready
	$(BIN)/deepres reproduce fig6 --scale quick --data $(DATA) $(if $(SIZE),--image-size $(SIZE)) --out runs

test: .venv/ready lint  # all tests; each worker begins with half of them, and who is done takes from the other
	$(BIN)/pytest -n $(JOBS) --dist worksteal --durations 15

fast: .venv/ready  # all but tests that train, start processes, compile or export for more than about two seconds
	$(BIN)/pytest -m "not slow and not long" -n $(JOBS) --dist worksteal

check: .venv/ready lint
	$(BIN)/pytest -m "not slow" -n $(JOBS) --dist worksteal --durations 15

other-processor: .venv/ready  # `check` on the other kind: with products of bf16 if this one has none, without if it has
	env $$($(BIN)/python tools/other_processor.py) $(BIN)/pytest -m "not slow" -n $(JOBS) --dist worksteal --durations 15

floor: .venv-floor/ready  # `check` with the lowest versions that pyproject.toml admits, in an environment of their own
	.venv-floor/bin/pytest -m "not slow" -n $(JOBS) --dist worksteal

coverage: .venv/ready  # counting lines makes the tests half as long again
	$(BIN)/pytest -m "not slow" -n $(JOBS) --dist worksteal --cov --cov-report=term

slow: .venv/ready
	$(BIN)/pytest -m slow -n $(JOBS) --dist worksteal

gpu: .venv/ready  # tests marked gpu, contests, exact resume; TABLE6=MINUTES trains rows of Table 6, and goes on with them
	$(BIN)/python benchmarks/gpu.py $(if $(PARTS),--parts $(PARTS)) $(if $(TABLE6),--table6 $(TABLE6))

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docs.py

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-floor/ready: pyproject.toml tools/floor.py
	$(PYTHON) -m venv .venv-floor
	.venv-floor/bin/python tools/floor.py > .venv-floor/constraints.txt
	.venv-floor/bin/python -m pip install --quiet --constraint .venv-floor/constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-floor build dist .coverage .pytest_cache .ruff_cache
