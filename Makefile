# k1s: `sudo make up` starts it, `make down` stops it; `make check` before a commit, `sudo make test` runs everything.
SHELL := /bin/sh
PYTHON := .venv/bin/python
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up install down purge check fix test unit root e2e build bench

help:
	@echo "make up | down | purge    start, stop, stop and delete all data (root)"
	@echo "make install              put k1s on this host and start nothing: a node then joins with k1s agent (root)"
	@echo "make check | fix          lint, types, layers, fast tests | repair what can be repaired"
	@echo "make test                 all tests, root ones included (root)"
	@echo "make build | bench        dist/k1s, the one executable | measure the budgets"

up:
	@sh packaging/prepare.sh run
	@sh packaging/up.sh

install:
	@sh packaging/prepare.sh run
	@sh packaging/install.sh

down:
	@sh packaging/down.sh

purge:
	@sh packaging/down.sh --purge

check:
	@sh packaging/prepare.sh check
	$(PYTHON) -m ruff format --check k1s tests bench packaging
	$(PYTHON) -m ruff check k1s tests bench packaging
	$(PYTHON) -m mypy
	$(PYTHON) packaging/flags_doc.py --check
	$(PYTHON) packaging/status_doc.py --check
	.venv/bin/lint-imports --config .importlinter --no-cache
	$(PYTHON) -m pytest -q -m "not root and not e2e" tests

fix:
	@sh packaging/prepare.sh check
	$(PYTHON) -m ruff format k1s tests bench packaging
	$(PYTHON) -m ruff check --fix k1s tests bench packaging
	$(PYTHON) packaging/flags_doc.py
	$(PYTHON) packaging/status_doc.py

# Two files at a time: most of these tests wait for clusters. Each half has clusters of its own.
test:
	@sh packaging/prepare.sh test
	$(PYTHON) -m pytest -q -n 2 --dist loadfile tests

unit:
	$(PYTHON) -m pytest -q -m "not root and not e2e" tests

root:
	$(PYTHON) -m pytest -q -m "root and not e2e" tests

e2e:
	@sh packaging/prepare.sh test
	$(PYTHON) -m pytest -q -m e2e tests

build:
	@sh packaging/prepare.sh run
	@sh packaging/build.sh

bench:
	@sh packaging/prepare.sh test
	$(PYTHON) -m bench
