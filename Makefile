# Two commands for a fresh machine with Python 3.11, make and a C compiler: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# tests share the processors, so threads within one would wait for each other; they start many processes, which need not compile the package again each time
ALONE := OMP_NUM_THREADS=1 PROBEGYM_THREADS=1 PYTHONDONTWRITEBYTECODE=
.PHONY: demo test coverage data docs smoke clean

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch $@

demo: $(VENV)/.installed-train
	$(BIN)/probegym demo --out runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check probegym tests benchmarks notebooks docs
	$(BIN)/python -m mypy
	$(ALONE) $(BIN)/python -m pytest -n 3 --dist loadgroup

coverage: $(VENV)/.installed-dev  # how much of physics, rewards and hardware_bridge the tests run
	rm -rf runs/coverage && mkdir -p runs/coverage
	$(ALONE) $(BIN)/python -m coverage run -m pytest -n 3 --dist loadgroup
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

data: $(VENV)/.installed-dev  # the small data sets for offline learning
	$(BIN)/probegym record build --out runs/data

docs: $(VENV)/.installed-dev  # the site, in runs/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

smoke: $(VENV)/.installed-dev  # sdist and wheel, each installed alone in an environment of its own, and tried
	rm -rf runs/smoke
	$(BIN)/python -m build --outdir runs/smoke/dist .
	set -e; for file in $(CURDIR)/runs/smoke/dist/*; do \
		$(PYTHON) -m venv --clear runs/smoke/venv; \
		runs/smoke/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $$file; \
		cd runs/smoke; venv/bin/python ../../tests/smoke.py; cd ../..; done

clean:
	rm -rf $(VENV) runs
