# make setup | demo | check | test | test-slow | bench; each does all the set-up it needs, once.
PYTHON ?= $(shell command -v python3.11 2>/dev/null || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo demo-rec demo-det check test test-slow test-wheel bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make setup       make $(VENV) and install the package with the tested versions"
	@echo "make demo        compress the classifier that ships, from sensitivity scan to int8 file and report"
	@echo "make demo-rec    the same for the text recogniser that ships"
	@echo "make demo-det    the same for the text detector that ships"
	@echo "make test        the quick tests        make test-slow   the long ones"
	@echo "make test-wheel  build the wheel, and run its demo in an environment of its own"
	@echo "make check       style, types, docs in step with the program, and figures marked where code has changed since"
	@echo "make bench       time and score the models that ship: fp32, int8 by other tools, and ours; into docs/benchmarks.md"

setup: $(STAMP)

# Redone only when the dependencies change. The package itself is installed in place (-e).
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No python3 found. Install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old. Use Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) runs/demo_data/.rendered
	$(BIN)/compress run recipes/demo_cls.yaml

demo-rec: $(STAMP) runs/demo_data/.rendered
	$(BIN)/compress run recipes/demo_rec.yaml

demo-det: $(STAMP) runs/demo_scenes/.rendered
	$(BIN)/compress run recipes/demo_det.yaml

# Seeded, so everyone's demo sees the same images.
runs/demo_data/.rendered: | $(STAMP)
	$(BIN)/compress render --out runs/demo_data
	@touch $@

runs/demo_scenes/.rendered: | $(STAMP)
	$(BIN)/compress render --kind scenes --out runs/demo_scenes
	@touch $@

# Bytecode is kept even where the environment says otherwise: compiling every test anew costs each worker seconds.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m slow -n auto --dist worksteal

# The wheel, in an environment and a folder that know nothing of this repository; its dependencies are those of $(VENV).
test-wheel: $(STAMP)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m venv --without-pip build/wheel/venv
	$(BIN)/python -m pip --disable-pip-version-check --quiet --python build/wheel/venv install --no-deps build/wheel/*.whl
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(build/wheel/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/dependencies.pth"
	cd build/wheel && venv/bin/compress --version && venv/bin/compress demo --set finetune.epochs=1 \
		--set sensitivity.images=32 --set compare.rounds=3 --set quantize.epochs=0 --set quantize.optimize=size \
		--set gates.metric_drop=0.2
	build/wheel/venv/bin/python -I -c "import compress; assert 'build/wheel' in compress.__file__, compress.__file__"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy compress
	$(BIN)/python scripts/write_cli_docs.py --check
	$(BIN)/python scripts/check_figures.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: $(STAMP)
	$(BIN)/python scripts/write_cli_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The site: build/site/index.html"

# Runs what the demos run, anew each time; NNCF goes into runs/peers_venv, an environment of its own.
bench: $(STAMP) runs/demo_data/.rendered runs/demo_scenes/.rendered
	rm -rf runs/bench_demos  # what the demo recipes make is made anew, by the code as it is
	$(BIN)/python -m benchmarks.bench_models --docs docs/benchmarks.md --readme README.md \
		$(foreach name,det rec cls,--set $(name).out=runs/bench_demos/$(name))

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
