# run: start sipgw with its own configuration (or ARGS='-c my.cfg')     test: the whole suite     check: types and lint
# bench: CPU per operation, Kamailio beside it    nightly: the suite at full length    compiled: a build by mypyc, and its tests
# demo-sms: two phones and a mobile in this terminal; demo-xmpp: a phone and a Jabber client (DEMO_ONCE=1: by itself)

PYTHON ?= python3
BIN = .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
READY = .venv/ready
READY_DEV = .venv/ready-dev
TESTS ?= tests
PHONES = for pair in sip-tester=sipp baresip-core=baresip linphone-cli=linphonec tmux=tmux openssh-client=ssh tshark=tshark zsh=zsh; do tests/install.sh $$pair || true; done
SERVERS = for pair in postgresql=pg_ctlcluster mariadb-server=mariadbd redis-server=redis-server redis-sentinel=redis-sentinel \
	slapd=slapd ldap-utils=ldapsearch freeradius=freeradius kannel=bearerbox kannel-extras=drive_smpp rabbitmq-server=rabbitmqctl \
	prosody=prosody go-sendxmpp=go-sendxmpp ejabberd=ejabberdctl; do \
	PATH="$$PATH:/usr/sbin:/usr/lib/kannel/test" tests/install.sh $$pair || true; done
NODE = if command -v npm >/dev/null && [ ! -d .venv/node/node_modules/smpp ]; then npm install --silent --no-audit --no-fund \
	--prefix .venv/node smpp@0 >/dev/null || true; fi
ARGS ?=

.PHONY: run test check bench nightly compiled demo-sms demo-xmpp clean

run: $(READY)
	@echo "Softphone: registrar and proxy 127.0.0.1, port 5060, UDP; user 1000, with the password that the first start tells below."
	@echo "Another:   $(BIN)/sipgw user add 1001@127.0.0.1 asks for a password. Then call 1001 from 1000."
	@echo "Look at:   this terminal, which shows each registration and call; end it with Ctrl-C."
	@echo "Edit:      $(BIN)/sipgw config > my.cfg, change it, $(BIN)/sipgw check my.cfg, $(BIN)/sipgw run -c my.cfg"
	@$(BIN)/sipgw run $(ARGS)

test: $(READY_DEV)
	@$(PHONES)
	@$(SERVERS)
	@$(NODE)
	$(BIN)/trial --rterrors $(TESTS)

check: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY_DEV)
	@tests/install.sh kamailio=kamailio || true
	$(BIN)/python -m bench

demo-sms: $(READY)
	@PYTHONPATH=. $(BIN)/python examples/sms/demo.py

demo-xmpp: $(READY_DEV)
	@tests/install.sh prosody=prosody
	@PYTHONPATH=. $(BIN)/python examples/xmpp/demo.py

nightly: $(READY_DEV)
	@$(PHONES)
	@$(SERVERS)
	@$(NODE)
	SIPGW_NIGHTLY=1 $(BIN)/trial --rterrors $(TESTS)

compiled: $(READY_DEV)
	SIPGW_NIGHTLY=1 $(BIN)/trial --rterrors tests.test_compiled

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sipgw needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tests/install.sh python3-venv=
	$(PYTHON) -m venv .venv

$(READY): .venv/bin/pip setup.cfg pyproject.toml
	$(INSTALL) -e .
	@touch $@

$(READY_DEV): .venv/bin/pip setup.cfg pyproject.toml
	$(INSTALL) -e '.[dev]'
	@touch $(READY) $@

clean:
	rm -rf .venv build *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis twisted/plugins/dropin.cache
