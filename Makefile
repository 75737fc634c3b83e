# Two commands for a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := out/demo

.PHONY: demo test clean

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(RUN) train.py --preset demo --out $(DEMO)/run
	$(RUN) infer.py data/sample/test --checkpoint $(DEMO)/run/best.safetensors --out $(DEMO)/filtered
	$(RUN) infer.py data/sample/test --out $(DEMO)/filtered-by-shipped
	$(RUN) -m camo export --checkpoint $(DEMO)/run/best.safetensors --out $(DEMO)/export
	$(RUN) -m camo evaluate data/sample/test $(DEMO)/filtered $(DEMO)/filtered-by-shipped --quick --out $(DEMO)/evaluation

test: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out
