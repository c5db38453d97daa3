# What a developer types. `make test` is everything that must hold before a change is taken; .ci/run calls it.

GO       ?= go
# Time that each fuzz target gets in `make test`. `make fuzz FUZZTIME=10m` for an evening.
FUZZTIME ?= 10s
# Fuzz targets that run side by side.
FUZZJOBS ?= 2
# Packages that are tested a second time with the race detector, in their short form: all but those that start processes.
RACE     ?= $(filter-out %/lint,$(shell $(GO) list ./internal/...)) ./indexcache/... ./chunkcache/... ./store/...
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS   = -s -w \
	-X github.com/prometheus/common/version.Version=$(VERSION) \
	-X github.com/prometheus/common/version.Branch=$(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)

.PHONY: setup demo build test check unit race fuzz chaos attack interop interop-short compare memory-bound bench lint vulncheck proto image

# A bucket with generated blocks, served, asked and timed.
demo:
	$(GO) run ./cmd/larder demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/larder ./cmd/larder

test: setup check unit race fuzz interop-short

# What the tests need is installed where that may be done (root on Debian); else all that is missing is named in one line, before anything runs.
setup:
	@./tools/setup.sh

# What needs no test to run. internal/lint, the rules of this repository, is among the unit tests.
check:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd interop && $(GO) vet -tags slicelabels ./...
	cd interop/servers && $(GO) vet ./...

# What a test needs and is missing fails it: memcached, strace, and root for the file systems of its own. With LARDER_LONG=1 tests that kill a
# process at some of its writes do so at all of them.
unit:
	LARDER_REQUIRE=1 $(GO) test -timeout 20m ./...

race:
	LARDER_REQUIRE=1 $(GO) test -race -short -timeout 20m $(RACE)

# Every fuzz target of every package, FUZZJOBS at a time.
fuzz:
	@for pkg in $$(git ls-files -co --exclude-standard '*_test.go' | grep -v '^interop/' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do \
	  grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | cut -d' ' -f2 | sed "s|^|./$$pkg |"; \
	done | GO='$(GO)' xargs -P $(FUZZJOBS) -n 2 sh -c 'exec ./tools/fuzz.sh "$$0" "$$1" $(FUZZTIME)'

# Everything that larder depends on is broken, one thing after the other, while it is asked; then the stress of one gateway in one process with
# the race detector. Some ten minutes on two cores. What failed is run again with its seed: make chaos CHAOS='--seed=7 --fault=kill-9'. Hours of
# it: make chaos CHAOS='--soak=20m'. The short forms are part of `make test`.
CHAOS    ?=
STRESS   ?= 60s
chaos:
	$(GO) run ./benchmarks/chaos $(CHAOS)
	LARDER_STRESS=$(STRESS) $(GO) test -race -count=1 -timeout 20m -run 'Stress' -v ./store

# A hostile client, bucket, page and local user against a real process with 1 GiB, and an honest client beside them: peak memory, honest requests
# and a verdict for each attack. Some ten minutes on two cores. One of them, or an older build: make attack ATTACK='--attack=gzip-one --binary=old'.
ATTACK   ?=
attack:
	$(GO) run ./benchmarks/attack $(ATTACK)

# larder with its real neighbours, each a process of its own: Thanos's components, Prometheus, object stores. The module stands apart, see
# interop/go.mod. A program that a test needs and that is missing fails it. The short form is part of `make test`.
interop-short: interop/servers/node_modules
	cd interop && INTEROP_REQUIRE=1 $(GO) test -tags slicelabels -timeout 20m ./...

# The whole: every test in its long form, and the table of what was proven with which system. Some twenty minutes on two cores.
interop: interop/servers/node_modules
	cd interop && INTEROP_REQUIRE=1 INTEROP_FULL=1 $(GO) test -tags slicelabels -timeout 120m -count=1 -json ./... | $(GO) run -tags slicelabels ./cmd/table

# larder beside Thanos's store gateway and the least that a gRPC server can do: docs/performance.md. The first run makes the data sets. One row in a
# minute: make compare COMPARE='--queries=Q1 --modes=fs --starts=false'. What there is: make compare COMPARE=--list.
COMPARE  ?=
compare:
	cd interop && $(GO) run -tags slicelabels ./cmd/compare $(COMPARE)

# Azurite, the Azure server that the tests talk to, in the versions of the lock file. Scripts of packages are not run.
interop/servers/node_modules: interop/servers/package-lock.json
	npm ci --prefix interop/servers --no-audit --no-fund --ignore-scripts
	touch $@

# One process with 1 GiB is asked for all of a block of a million series, 64 times at once, and for more beside it. Some five minutes on two cores.
memory-bound:
	$(GO) run ./benchmarks/bounded

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The linters of .golangci.yml, beyond what `make test` runs: building them takes two minutes the first time.
lint:
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

# Known vulnerabilities of what is linked and called. It needs vuln.go.dev.
vulncheck:
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

proto:
	./store/storepb/generate.sh

image:
	docker build --build-arg VERSION=$(VERSION) -t larder:$(or $(VERSION),dev) .
