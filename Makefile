# Commands for a fresh machine: make demo, make page (needs Node.js 20 or newer), make test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := out/demo

.PHONY: demo page test clean

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
	$(RUN) -m pytest -n 2 --dist loadfile

page: page/dist/index.html
	$(RUN) -m camo page

page/dist/index.html: $(wildcard page/*.* page/src/* page/public/*.*) page/node_modules/.package-lock.json page/public/networks/networks.json
	cd page && npm run --silent build -- --logLevel warn
	touch $@

page/node_modules/.package-lock.json: page/package-lock.json
	cd page && npm ci --silent --ignore-scripts
	touch $@

page/public/networks/networks.json: $(wildcard checkpoints/*.safetensors camo/export/*.py camo/filter/*.py) $(VENV)/installed-onnx
	$(RUN) -m camo export --what page --out $(@D) --overwrite

$(VENV)/installed-onnx: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet -e '.[onnx]'
	touch $@

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	$(RUN) -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out page/dist page/node_modules page/public/networks
