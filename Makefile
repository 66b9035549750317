# Every command of the project. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -Eeuo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(CURDIR)/node_modules/.bin:$(PATH)
export PYTHONPATH := $(CURDIR)
# jsii's banner about Node versions it has not tested is noise in every command.
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
PYTHON := $(VENV)/bin/python
# Programs read the names of proxy variables in lower case, upper case or both.
PROXIES := http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,PYTHONPATH,OPENQA_CACHE,CI,$(PROXIES))

ENV ?=
ENVIRONMENTS ?=
DELEGATION ?=
M ?= smoke
OS ?= debian
N ?= 5
SEED ?= 1
TWO := --numprocesses=2 --no-loadscope-reorder
context = -c env=$(ENV) $(if $(ENVIRONMENTS),-c environments=$(ENVIRONMENTS))
# Checked before anything is set up.
ifneq ($(filter synth diff deploy destroy,$(MAKECMDGOALS)),)
$(if $(ENV),,$(error name the environment: make $(MAKECMDGOALS) ENV=NAME (see environments/)))
endif

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: local
local: setup machine ## Deploy the whole of openQA on this machine and run the sample job
	$(SUDO) $(PYTHON) -m localcloud deploy local

.PHONY: local-down
local-down: setup ## Stop the local deployment and remove all of it
	$(SUDO) $(PYTHON) -m localcloud down

.PHONY: test
test: setup machine check golden ## Run every check and every test, the local deployment included
	@# Separately, because the local cloud changes moto for a whole process. Two modules at a time, because a
	@# deployment mostly waits.
	$(SUDO) $(PYTHON) -m pytest tests --ignore=tests/localcloud $(TWO) --dist=loadfile --durations=20 --durations-min=20
	$(SUDO) $(PYTHON) -m pytest tests/localcloud $(TWO) --dist=loadfile --durations=20 --durations-min=20

.PHONY: test-fast
test-fast: setup ## Run the unit and template tests only
	$(PYTHON) -m pytest tests/unit tests/templates

.PHONY: test-local
test-local: setup machine golden ## Run the local cloud's tests of one pytest marker: make test-local M=smoke
	$(SUDO) $(PYTHON) -m pytest tests/backup tests/localcloud -m "$(M)"

.PHONY: test-faults
test-faults: setup machine golden ## Break backups and lose hosts at random: make test-faults N=20 SEED=7
	$(SUDO) FAULTS=$(N) SEED=$(SEED) $(PYTHON) -m pytest tests/backup tests/localcloud/test_heal.py -k random_faults -s

.PHONY: check
check: setup ## Check lint, formats, types and shell scripts
	ruff check .
	ruff format --check .
	mypy .
	tools/shell-check.sh

.PHONY: synth
synth: setup ## Synthesize the templates of an environment, offline: make synth ENV=production
	cdk synth --quiet --no-notices $(context)

.PHONY: diff
diff: setup ## Show what a deploy would change: make diff ENV=production
	cdk diff $(context)

.PHONY: deploy
deploy: setup ## Deploy an environment to AWS: make deploy ENV=production
	cdk deploy --all $(context)

.PHONY: destroy
destroy: setup ## Delete a dev environment from AWS, backups included: make destroy ENV=NAME
	$(PYTHON) -m ops --env $(ENV) $(if $(ENVIRONMENTS),--environments $(ENVIRONMENTS)) remove \
		--yes-delete-results-and-backups $(if $(filter removed,$(DELEGATION)),--delegation-removed)
	cdk destroy --all --force $(context)

.PHONY: images
images: setup machine ## Build the container images and the sample's disk image: make images OS=fedora
	$(SUDO) $(PYTHON) -m images build --os $(OS)

.PHONY: golden
golden: setup machine ## Build the machine image of local instances, and all that goes into it
	$(SUDO) $(PYTHON) -m images golden

.PHONY: snapshots
snapshots: setup ## Rewrite the template snapshots after a reviewed change
	$(PYTHON) -m pytest tests/templates --update-snapshots -q

.PHONY: picture
picture: setup ## Take the README's picture from the running local deployment (needs chromium)
	tools/picture.sh https://localhost:8443 docs/pictures/webui.png

.PHONY: requirements
requirements: setup ## Compile the two requirements files from their .in files
	uv pip compile -q --generate-hashes --universal --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile -q --generate-hashes --universal --python-version 3.11 requirements-dev.in -o requirements-dev.txt

.PHONY: setup
setup: $(VENV)/.complete node_modules/.complete ## Install the Python requirements and the CDK CLI

$(VENV)/.complete: requirements.txt requirements-dev.txt
	@tools/prerequisites.sh python
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements.txt -r requirements-dev.txt
	touch $@

node_modules/.complete: package.json package-lock.json $(VENV)/.complete
	npm ci --loglevel=error --no-audit --no-fund
	touch $@

.PHONY: machine
machine: ## Install the Debian packages that the local cloud needs
	@$(SUDO) tools/prerequisites.sh machine
