# Commands for developers; `make help` lists them. `make test` is what CI runs, see .ci/run.

GO       ?= go
# Time for each fuzz target. A longer run: make fuzz FUZZTIME=10m.
FUZZTIME ?= 10s
# Number of fuzz targets that run in parallel.
FUZZJOBS ?= 2
# Packages whose short tests run again with the race detector: all with goroutines that start no
# processes. The longest one is first, so that the others run beside it.
RACE     ?= ./store ./store/... ./indexcache/... ./chunkcache/... ./shard/membership \
	$(filter-out %/lint,$(shell $(GO) list ./internal/...))
BRANCH    = $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS   = -s -w \
	-X github.com/prometheus/common/version.Version=$(VERSION) \
	-X github.com/prometheus/common/version.Revision=$(REVISION) \
	-X github.com/prometheus/common/version.Branch=$(BRANCH)

.PHONY: help setup demo build test check unit race fuzz chaos soak attack interop interop-short
.PHONY: compare performance trips memory-bound sampling bench lint vulncheck proto image manifests dashboards

help: ## List the commands.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' Makefile

demo: ## Serve generated blocks, query them and print the times.
	$(GO) run ./cmd/larder demo

build: ## Build bin/larder.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/larder ./cmd/larder

test: setup check unit race fuzz interop-short ## Run all checks and tests, as CI does.

# Only root on Debian may install. For other users it lists what is missing, and fails.
setup: ## Install the programs that the tests need.
	@./tools/setup.sh

# The rules of this repository, internal/lint, are unit tests.
check: ## Check the format of Go files, and run go vet.
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd interop && $(GO) vet -tags slicelabels ./...
	cd interop/servers && $(GO) vet ./...
	cd interop/chart && $(GO) vet ./...
	cd deploy/image && $(GO) vet ./...
	cd deploy/grafana && $(GO) vet ./...

# Prints how many states of shards were explored. A test fails if memcached, strace or root (to
# mount file systems) is missing. With LARDER_LONG=1, tests that kill a process at some of its
# writes do so at all of them.
unit: ## Run the tests of this module, and those of the image and the dashboards.
	LARDER_REQUIRE=1 $(GO) test -timeout 20m $(filter-out larder/shard,$(shell $(GO) list ./...))
	@log=$$(mktemp); $(GO) test -v -timeout 20m ./shard >$$log 2>&1; code=$$?; \
	  if [ $$code = 0 ]; then grep -E ' states| worlds|^ok' $$log; else cat $$log; fi; \
	  rm $$log; exit $$code
	cd deploy/image && LARDER_REQUIRE=1 $(GO) test -timeout 20m ./...
	cd deploy/grafana && $(GO) test ./...

race: ## Run the short tests with the race detector.
	LARDER_REQUIRE=1 $(GO) test -race -short -timeout 30m $(RACE)

fuzz: ## Run every fuzz target for FUZZTIME, FUZZJOBS at a time.
	@for pkg in $$(git ls-files -co --exclude-standard '*_test.go' | grep -v '^interop/' | \
	  xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do \
	  grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | cut -d' ' -f2 | sed "s|^|./$$pkg |"; \
	done | GO='$(GO)' xargs -P $(FUZZJOBS) -n 2 sh -c 'exec ./tools/fuzz.sh "$$0" "$$1" $(FUZZTIME)'

# Takes about ten minutes on two cores, the stress test of one gateway with the race detector
# included. To repeat a failure: make chaos CHAOS='--seed=7 --fault=kill-9'. For a long run:
# make chaos CHAOS='--soak=20m'. The short forms are part of `make test`.
CHAOS    ?=
STRESS   ?= 60s
chaos: ## Break everything that larder depends on, under load.
	$(GO) run ./benchmarks/chaos $(CHAOS)
	LARDER_STRESS=$(STRESS) $(GO) test -race -count=1 -timeout 20m -run 'Stress' -v ./store

# The disk cache is smaller than what is asked for. Prints where pages came from, what was written
# and what the process holds, every minute. The short form is part of `make test`.
SOAK     ?= 10m
soak: ## Ask for ten minutes with a disk cache that is too small.
	$(GO) run ./benchmarks/chaos --disk-soak=$(SOAK) --size=8 --questions=400

# Takes about ten minutes on two cores. Prints peak memory, honest requests and a verdict for each
# attack. One attack, or an older build: make attack ATTACK='--attack=gzip-one --binary=old'.
ATTACK   ?=
attack: ## Attack a process with 1 GiB by hostile clients, buckets, pages and users.
	$(GO) run ./benchmarks/attack $(ATTACK)

# interop/ is a module of its own, see interop/go.mod; so are interop/servers and interop/chart. A
# test fails if a program that it needs is missing. The short form is part of `make test`.
interop-short: interop/servers/node_modules ## Test with Thanos, Prometheus and object stores.
	cd interop && INTEROP_REQUIRE=1 $(GO) test -tags slicelabels -timeout 20m ./...
	cd interop/chart && $(GO) test -timeout 10m ./...

# Takes about twenty minutes on two cores.
interop: interop/servers/node_modules ## Run the long form, and print which systems were tested.
	cd interop && INTEROP_REQUIRE=1 INTEROP_FULL=1 \
	  $(GO) test -tags slicelabels -timeout 120m -count=1 -json ./... | \
	  $(GO) run -tags slicelabels ./cmd/table
	cd interop/chart && INTEROP_FULL=1 $(GO) test -timeout 30m -count=1 ./...

# See docs/performance.md. The first run generates the data sets. One row in a minute:
# make compare COMPARE='--queries=Q1 --modes=fs --starts=false'. List the rows:
# make compare COMPARE=--list.
COMPARE  ?=
compare: ## Compare larder with Thanos's store gateway and a minimal gRPC server.
	cd interop && $(GO) run -tags slicelabels ./cmd/compare $(COMPARE)

# Measure twice on a quiet machine and write docs/performance.md: its tables and plots from the
# second run, and how the figures moved from the first. Each run takes about 25 minutes, and before
# the first one some minutes to make the data sets. If a run fails, its results.json holds what it
# has measured.
COMPARE_DIR ?= /tmp/larder-performance
performance: ## Compare twice and write docs/performance.md.
	mkdir -p $(COMPARE_DIR)/first $(COMPARE_DIR)/second
	cd interop && $(GO) run -tags slicelabels ./cmd/compare $(COMPARE) --out=$(COMPARE_DIR)/first \
		--docs=../docs/performance.md
	cd interop && $(GO) run -tags slicelabels ./cmd/compare $(COMPARE) --out=$(COMPARE_DIR)/second \
		--against=$(COMPARE_DIR)/first/results.json --docs=../docs/performance.md

# The tests fail if the figures differ from the committed tables. Review the diff of the tables like
# code: every read that a cold query waits for is in them.
trips: ## Write the tables of what queries cost, benchmarks/trips/testdata.
	$(GO) test ./benchmarks/trips -update

# Azurite, the Azure server of the tests, in the versions of the lock file. Scripts of packages do
# not run.
interop/servers/node_modules: interop/servers/package-lock.json
	npm ci --prefix interop/servers --no-audit --no-fund --ignore-scripts
	touch $@

# The test fails if the files differ from what the chart renders.
manifests: ## Render deploy/manifests from the Helm chart.
	cd interop/chart && CHART_REWRITE=1 $(GO) test -count=1 -run TestManifests .

# The test fails if the files differ from what the program writes.
dashboards: ## Write the dashboards of deploy/helm/larder/files/dashboards.
	cd deploy/grafana && $(GO) run .

# Takes about five minutes on two cores.
memory-bound: ## Request a block of a million series 64 times at once, within 1 GiB.
	$(GO) run ./benchmarks/bounded

# Prints what tracing adds to warm requests, in percent of their processor time.
SAMPLING ?= 200s
sampling: ## Measure what tracing costs.
	LARDER_SAMPLING=$(SAMPLING) $(GO) test -count=1 -run TestSamplingCost -v ./cmd/larder

bench: ## Run the Go benchmarks.
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The first run builds the linters, which takes two minutes.
lint: ## Run the linters of .golangci.yml, which `make test` does not run.
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

vulncheck: ## Look for known vulnerabilities in linked code. Needs vuln.go.dev.
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

proto: ## Generate the code of the protobuf messages.
	./store/storepb/generate.sh

# An OCI layout in bin/image, to push with a tool such as crane. Needs no container engine. Equal
# commits and versions of Go make equal digests. One platform, for a quick look:
# make image PLATFORMS=linux/amd64
PLATFORMS ?= linux/amd64,linux/arm64
CREATED    = $(shell git log -1 --format=%ct 2>/dev/null)
image: ## Build the container image for amd64 and arm64.
	cd deploy/image && $(GO) run . --root=../.. --out=../../bin/image \
	  --platforms=$(PLATFORMS) --version=$(or $(VERSION),dev) \
	  --revision=$(or $(REVISION),unknown) --created=$(or $(CREATED),0)
