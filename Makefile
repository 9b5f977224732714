.PHONY: check test race lint fmt fuzz bench docs tools providers

BIN := $(CURDIR)/bin

check: lint race

test:
	go test ./...

race:
	go test -race ./...

tools:
	go -C tools build -o $(BIN)/ tool

lint: tools
	test -z "$$($(BIN)/gofumpt -l .)"
	go vet ./...
	$(BIN)/golangci-lint run

fmt: tools
	$(BIN)/gofumpt -w .

fuzz:
	bash .ci/fuzz 30s

bench: tools
	go test -run '^$$' -bench . -count 6 ./tokens ./sessions ./engine | tee bench.out
	$(BIN)/benchstat bench.out

docs:
	go generate ./manifest ./schemas

# The providers that are modules of their own, which ./... does not reach.
# authz/oso/polar needs a C compiler and downloads 171 MB.
providers:
	set -e; for module in authz/cedar authz/oso/polar; do \
		go -C $$module mod tidy -diff; go -C $$module vet ./...; go -C $$module test -race ./...; \
	done
