#!/bin/sh
# Generates the Go code of the .proto files beside this script. The generated files are committed, so only a change of a .proto
# file needs this. It needs protoc with its well-known types (Debian: protobuf-compiler and libprotobuf-dev); the plugins are
# built here, at the versions that the module's libraries have, so that everybody generates the same bytes.
set -eu

cd "$(dirname "$0")/../.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$bin go install ./store/storepb/protocgen
GOBIN=$bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

# --go_opt=module strips the import path, and files land beside their sources.
# protocgen calls protoc-gen-go; its doc says why. Service code depends on no syntax.
PROTOC_GEN_GO=$bin/protoc-gen-go protoc -I . \
  --plugin=protoc-gen-go="$bin/protocgen" --go_out=. --go_opt=module=larder \
  --plugin=protoc-gen-go-grpc="$bin/protoc-gen-go-grpc" --go-grpc_out=. --go-grpc_opt=module=larder \
  store/storepb/types.proto store/storepb/rpc.proto store/storepb/hints.proto store/storepb/info.proto
