# Each target is one line that calls `python -m w2s_lib VERB`, in an environment that is made on first use.
# Parameters are passed on by their names: make book CHAPTERS=pgr PROFILE=gpu SEEDS=0,1 WORKERS=2

PYTHON ?= python3
RUN = -m w2s_lib $@ $(filter-out PYTHON=%,$(MAKEOVERRIDES))
# Not compiled: of 23,000 modules that takes 40 seconds, and most of them are never imported.
PIP = .venv/bin/pip install -q --disable-pip-version-check --no-compile -c book/constraints.txt

# .venv is ours to write to: where nothing compiled is kept, each process reads PyTorch's sources anew, for 10 s more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help book test try torture rehearsal verify audit retrain plan run records gpu-check serve pdf publish lab clean
help clean: ; @$(PYTHON) $(RUN)
book verify audit retrain plan run records serve pdf publish: .venv/book.stamp ; @.venv/bin/python $(RUN)
lab: .venv/lab.stamp ; @.venv/bin/python $(RUN)
test: .venv/test.stamp ; @.venv/bin/python -m tests
try: .venv/book.stamp ; @.venv/bin/python -m tests $@ $(filter-out PYTHON=%,$(MAKEOVERRIDES))
rehearsal torture gpu-check: .venv/test.stamp ; @.venv/bin/python -m tests $@ $(filter-out PYTHON=%,$(MAKEOVERRIDES))

.venv/book.stamp: pyproject.toml book/constraints.txt
	@echo "Installing the book's packages into .venv, once; with PyTorch among them this takes a few minutes."
	@$(PYTHON) -m venv .venv
	@$(PIP) -e '.[book]'
	@touch $@

.venv/lab.stamp: .venv/book.stamp
	@echo "Installing JupyterLab into .venv, once."
	@$(PIP) -e '.[lab]'
	@touch $@

.venv/test.stamp: .venv/book.stamp
	@$(PIP) -e '.[book,test]'
	@touch $@
