# One profile, `demo` in Cargo.toml, for build, test and lint: all three share what they compile.
# The page comes before cargo everywhere, because the binary holds web/dist.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Two cargos wait for each other's lock, and the order of the test's steps is part of its meaning.
.NOTPARALLEL:

export CARGO_TARGET_DIR ?= $(HOME)/.cache/zeta/target
PROFILE := --profile demo
ZETA := $(CARGO_TARGET_DIR)/demo/zeta

# Wrapped around cargo, not put into its configuration: so what is built is the same with mold and without it.
# Looked up late, because `setup` may have just installed it.
BUILD_CARGO = $(if $(shell command -v mold),mold -run )cargo

SERVICES := kafka kafka-zookeeper hdfs nginx

.PHONY: help setup build demo test fuzz planted simulate chaos chaos-parquet chaos-network soak release bench-windows lint format web clean demo-tools test-tools rust-tools

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: test-tools web/node_modules/.installed tests/oracle/node_modules/.installed ## get everything that tests need: system packages, npm packages, jars
	@for service in $(SERVICES); do tests/services/$$service.sh setup; done

build: demo-tools web/dist/index.html ## build the page and the binary
	$(BUILD_CARGO) build $(PROFILE)

demo: build ## build Zeta and run it on data that it makes itself
	$(ZETA) demo

test: setup rust-tools web/dist/index.html ## run all checks and all tests
	cd web && npm run check && npm test
	cargo fmt --all --check
	$(BUILD_CARGO) clippy $(PROFILE) --workspace --all-targets -- -D warnings
	$(BUILD_CARGO) test $(PROFILE) --workspace --no-run
	cargo test $(PROFILE) --workspace

fuzz: rust-tools web/dist/index.html ## check N random queries against stock DataFusion (N=100000 takes more than an hour)
	ZETA_CASES=$(or $(N),10000) $(BUILD_CARGO) test $(PROFILE) --test it equivalence:: -- --nocapture

planted: rust-tools web/dist/index.html ## plant bugs of other engines, and see that random queries and simulated faults find each of them
	$(BUILD_CARGO) test $(PROFILE) --features planted-bugs --test it planted:: -- --nocapture
	$(BUILD_CARGO) test $(PROFILE) --features planted-bugs --lib simulation::planted -- --nocapture

simulate: rust-tools web/dist/index.html ## run the engine in N simulated worlds that fail (N=100000 takes about 25 minutes)
	ZETA_SEEDS=$(or $(N),10000) ZETA_SEED=$(or $(SEED),1) $(BUILD_CARGO) test $(PROFILE) --lib simulation::every_row -- --nocapture

chaos: rust-tools web/dist/index.html ## kill a pipeline with sinks N times at random, and count lost and duplicated rows (adds to chaos.csv)
	ZETA_KILLS=$(or $(N),100) ZETA_SEED=$(or $(SEED),$(shell date +%s)) ZETA_CHAOS_CSV=$(CURDIR)/chaos.csv $(BUILD_CARGO) test $(PROFILE) --test it sink::killed_at_any_moment -- --nocapture

chaos-parquet: rust-tools web/dist/index.html ## the same with sinks into files, on disk and on HDFS, counted by DuckDB (adds to chaos-parquet.csv)
	ZETA_KILLS=$(or $(N),100) ZETA_SEED=$(or $(SEED),$(shell date +%s)) ZETA_CHAOS_CSV=$(CURDIR)/chaos-parquet.csv $(BUILD_CARGO) test $(PROFILE) --test it parquet_sink::killed -- --nocapture --test-threads 1

chaos-network: rust-tools web/dist/index.html ## hold the ends of N transactions until their sinks have given them up, flip a bit in N answers, and count what is torn or wrong
	ZETA_HOLDS=$(or $(N),100) ZETA_WIRE_FLIPS=$(or $(N),100) ZETA_BLACK_HOLES=2 $(BUILD_CARGO) test $(PROFILE) --test it fault::network -- --nocapture

soak: rust-tools web/dist/index.html ## run a pipeline at full rate for MINUTES (30) with a fault every ten seconds; what it holds must not grow
	ZETA_SOAK_MINUTES=$(or $(MINUTES),30) $(BUILD_CARGO) test $(PROFILE) --test it soak:: -- --nocapture

release: demo-tools web/dist/index.html ## build the optimised binary (half an hour on two cores)
	$(BUILD_CARGO) build --release

bench-windows: rust-tools web/dist/index.html ## rows per second and core of the operators, in the optimised build
	$(BUILD_CARGO) bench --bench windows

lint: rust-tools web/dist/index.html ## run the linters: clippy, and shellcheck and cargo-deny where installed
	cargo fmt --all --check
	$(BUILD_CARGO) clippy $(PROFILE) --workspace --all-targets -- -D warnings
	cd web && npm run check
	if command -v shellcheck >/dev/null; then shellcheck -x tests/services/*.sh .ci/run; fi
	if command -v cargo-deny >/dev/null; then cargo deny check; fi

format: rust-tools ## format the Rust sources
	cargo fmt --all

web: demo-tools web/dist/index.html ## build the page into web/dist

clean: ## remove what was built here (not the jars in ~/.cache/zeta)
	cargo clean
	rm -rf web/dist web/node_modules tests/oracle/node_modules

demo-tools:
	@tests/services/packages.sh demo

test-tools:
	@tests/services/packages.sh test

rust-tools:
	@cargo fmt --version >/dev/null && cargo clippy --version >/dev/null || \
	    { echo 'error: rustfmt or clippy is missing; run: rustup component add rustfmt clippy' >&2; exit 1; }

# A stamp newer than the lock file says that node_modules is what the lock file asks for.
%/node_modules/.installed: %/package-lock.json
	cd $* && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

WEB_SOURCES := $(shell find web -type f -not -path '*/node_modules/*' -not -path 'web/dist/*' -not -path 'web/tests/*' 2>/dev/null)
web/dist/index.html: web/node_modules/.installed $(WEB_SOURCES)
	cd web && npm run build
	touch $@
