# Chancery: `make demo` shows it, `make test` checks it. Both install what they need.

export PATH := $(CURDIR)/.tools/bin:$(PATH)
CARGO ?= cargo
# The tests' builds can be told to kill themselves (docs/chaos.md); `make demo` and `make build` cannot.
FAILPOINTS = --features chancery/failpoints,chancery-front/failpoints,chancery-validator/failpoints

.PHONY: help clients-chroot demo build test lint unit fmt bench-acme bench-revocation bench-isolation chaos race fuzz clean

help:
	@echo "make demo        install what is missing, build, start the whole CA on SoftHSM and SQLite, get certificates"
	@echo "make test        everything that CI runs: format, lints, unit, contract, tidy and end-to-end tests"
	@echo "make build       the programs, optimised, in target/release"
	@echo "make bench-acme  certificates a second over the whole path, beside the ceilings of this machine"
	@echo "make bench-revocation  CRLs of a million entries, OCSP answers a second, and how long a revocation takes to be seen"
	@echo "make bench-isolation  what clients feel while others send slowly, too much, floods, or names that nobody answers for"
	@echo "make chaos       kills every process at every failpoint, over and over; goes on where the last run ended (docs/chaos.md)"
	@echo "make race        two signers revoke 10,000 certificates of the same shards on PostgreSQL; every CRL is looked at"
	@echo "make clients-chroot  ACME clients of a newer Debian, which it makes in .tools/chroot (as root; docs/clients.md)"
	@echo "make fuzz        what strangers send and what is written, under libFuzzer, 20 minutes a target"
	@echo "make fmt lint    format; clippy with warnings as errors"

demo:
	@.ci/setup demo
	$(CARGO) build --locked -p chancery
	@target/debug/chancery demo

build:
	@.ci/setup demo
	$(CARGO) build --locked --release -p chancery -p chancery-front -p chancery-validator -p chancery-status

test:
	@.ci/setup test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace $(FAILPOINTS) --all-targets --quiet -- -D warnings
	$(CARGO) build --locked --workspace $(FAILPOINTS) --bins
	$(CARGO) nextest run --locked --workspace $(FAILPOINTS) --no-run
	.ci/isolated $(CARGO) nextest run --locked --offline --workspace $(FAILPOINTS)
	target/debug/conformance
	.ci/isolated $(CARGO) test --locked --offline --workspace $(FAILPOINTS) --doc --quiet

unit:
	$(CARGO) nextest run --locked --workspace $(FAILPOINTS) --exclude e2e

lint:
	$(CARGO) clippy --locked --workspace $(FAILPOINTS) --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

bench-acme:
	@.ci/setup bench
	$(CARGO) build --quiet --locked --release -p chancery -p benches -p hsm --bins --example bare_sign
	@.ci/isolated target/release/bench-acme $(BENCH)

# BENCH="--parts crl --entries 10000 --rounds 1" and the like.
bench-revocation:
	@.ci/setup bench
	$(CARGO) build --quiet --locked --release -p chancery -p benches -p hsm --bins --example bare_sign
	@.ci/isolated target/release/bench-revocation $(BENCH)

bench-isolation:
	@.ci/setup bench
	$(CARGO) build --quiet --locked --release -p chancery -p benches -p hsm --bins --example bare_sign
	@.ci/isolated target/release/bench-isolation $(BENCH)

# CHAOS="--kills 20000 --minutes 240" and the like.
chaos:
	@.ci/setup test
	$(CARGO) build --quiet --locked --workspace $(FAILPOINTS) --bins
	@.ci/isolated target/debug/chaos $(CHAOS)

clients-chroot:
	@.ci/setup chroot
	$(CARGO) build --locked --workspace $(FAILPOINTS) --bins
	$(CARGO) nextest run --locked --workspace $(FAILPOINTS) --test matrix --no-run
	.ci/isolated $(CARGO) nextest run --locked --offline --workspace $(FAILPOINTS) --test matrix \
		--ignore-default-filter -E 'test(/^chroot::/)'

race:
	@.ci/setup test
	CHANCERY_RACE=10000 .ci/isolated $(CARGO) nextest run --locked --offline -p signer -E 'test(two_signers_race)'

# FUZZ="--minutes 20 --targets ocsp_request,crl" and the like.
fuzz:
	@.ci/setup fuzz
	@$(CARGO) run --quiet --locked -p fuzz -- $(FUZZ)

clean:
	$(CARGO) clean
	rm -rf .tools
