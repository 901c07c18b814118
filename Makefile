# Each target is one line that calls `python -m w2s_lib VERB`; `make help` lists them.
# Parameters are passed on by their names: make book CHAPTERS=pgr PROFILE=gpu SEEDS=0,1 WORKERS=2

PYTHON ?= python3
RUN = .venv/bin/python -m w2s_lib $@ $(filter-out PYTHON=%,$(MAKEOVERRIDES))

.PHONY: help book test retrain records serve lab clean
help book retrain records serve lab clean: .venv/book.stamp ; @$(RUN)
test: .venv/test.stamp ; @$(RUN)

.venv/book.stamp: pyproject.toml book/constraints.txt
	@echo "Installing the book's packages into .venv, once (a few minutes on a slow network) ..."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check -c book/constraints.txt -e '.[book]'
	@touch $@

.venv/test.stamp: .venv/book.stamp
	@.venv/bin/pip install -q --disable-pip-version-check -c book/constraints.txt -e '.[book,test]'
	@touch $@
