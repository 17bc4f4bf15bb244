# The newcomer's two commands are `make run` and `make test`; `make help` has the others.
.DEFAULT_GOAL := help
.PHONY: help run test deny faults soak conformance bench bench-pieces fuzz mutants setup build image dist clean

# rustup's cargo, where the shell does not know it yet
export PATH := $(PATH):$(HOME)/.cargo/bin

# More arguments for run, faults, soak, bench and conformance, as in `make run ARGS="--port 7000"`.
ARGS ?=
# For `make fuzz`: how long each target runs.
SECONDS ?= 60
# For `make image`: its name, and the platforms if not only this machine's.
IMAGE ?= slotway:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
PLATFORMS ?=

help:
	@echo 'make run     a local Redis Cluster and slotway in front of it, on 127.0.0.1:6380'
	@echo '             (make run ARGS="--port 0 --admin 127.0.0.1:0 --primaries 5 --replicas 5");'
	@echo '             ARGS="--kind standalone" or "--kind sentinel" for one server with replicas'
	@echo 'make test    everything CI runs'
	@echo 'make deny    the dependencies against deny.toml (cargo-deny), known vulnerabilities included:'
	@echo '             needs GitHub, where their database is; make test checks all the rest'
	@echo 'make faults  what clients notice of each fault, into docs/reliability.md (ten minutes;'
	@echo '             ARGS="frozen-3 resharding" for some, ARGS="--list" for their names)'
	@echo 'make soak    all kinds of clients and faults for half an hour (ARGS="--minutes 5 --seed 7")'
	@echo 'make conformance  redis-py'\''s own tests, straight to a server and through slotway, both modes, with'
	@echo '             Redis 7.0, Redis 8.2 and Valkey 9.1, and the whole differential test with each'
	@echo '             (ARGS="--server valkey --protocol 3 commands" for a part of redis-py'\''s)'
	@echo 'make bench   what is shipped beside its peers: speed and CPU per command (ARGS="...")'
	@echo 'make bench-pieces  what scanning, routing and merging cost, one by one (ARGS="scan")'
	@echo 'make fuzz    every fuzz target for a minute (SECONDS=10; ARGS="replies" for only one)'
	@echo 'make mutants which flips of the retry policy and its like no unit test notices (cargo-mutants)'
	@echo 'make setup   install what run and test need; they do it themselves as well'
	@echo 'make build   the release binary, target/release/slotway'
	@echo 'make image   the container image, with docker (PLATFORMS=linux/amd64,linux/arm64 ARGS=--push)'
	@echo 'make dist    a tarball and a Debian package of a static binary, in target/dist'
	@echo 'make clean   remove everything that was built or installed in this folder'

# exec: Ctrl-C and SIGTERM are slotway's to handle.
run:
	@scripts/setup.sh run
	@cargo build --release --bin slotway
	@exec target/release/slotway sandbox --config proxy.toml --set transactions.cross_slot=split $(ARGS)

test:
	@scripts/test.sh

deny:
	@scripts/setup.sh deny
	@scripts/deny.sh $(ARGS)

faults:
	@scripts/setup.sh faults
	@tests/faults/run.sh $(ARGS)

soak:
	@scripts/setup.sh faults
	@tests/faults/run.sh --soak $(ARGS)

conformance:
	@scripts/setup.sh conformance
	@cargo build --release --bin slotway
	@.venv/bin/python tests/conformance/run.py $(ARGS)
	@$(if $(ARGS),:,DIFF_THOROUGH=1 cargo test --test integration differential::)

bench:
	@scripts/setup.sh bench
	@exec .venv/bin/python benches/compare/run.py --slotway "$$(scripts/shipped.sh)" $(ARGS)

bench-pieces:
	@cargo bench --bench pieces -- $(ARGS)

fuzz:
	@fuzz/run.sh $(SECONDS) $(ARGS)

mutants:
	@tests/mutants/run.sh $(ARGS)

setup:
	@scripts/setup.sh test

build:
	@cargo build --release --bin slotway

# docker buildx; one platform is loaded into docker, several can only be pushed: ARGS=--push
image:
	@docker buildx build --file deploy/Dockerfile --tag $(IMAGE) \
		$(if $(PLATFORMS),--platform $(PLATFORMS),--load) $(ARGS) .

dist:
	@scripts/dist.sh

clean:
	cargo clean
	rm -rf .venv tests/node/node_modules .pytest_cache
