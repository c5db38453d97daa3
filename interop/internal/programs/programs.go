// Package programs finds or builds the programs that the tests run beside larder.
//
// Go programs are `tool` lines of this module's go.mod, or object store servers of
// interop/servers/go.mod. The go command builds them, once per build cache. Programs of Debian
// (prometheus, nginx, node) must be installed. If one is missing, the test is skipped with the
// package's name; with INTEROP_REQUIRE, as in `make test`, it fails.
package programs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Thanos builds the thanos binary of the version in go.mod and returns its path.
func Thanos(t testing.TB) string {
	t.Helper()
	return tool(t, "", "github.com/thanos-io/thanos/cmd/thanos")
}

// S3 builds the S3 server of interop/servers and returns its path.
func S3(t testing.TB) string {
	t.Helper()
	return tool(t, servers(t), "larder/interop/servers/s3")
}

// GCS builds fake-gcs-server in the version of interop/servers/go.mod and returns its path.
func GCS(t testing.TB) string {
	t.Helper()
	return tool(t, servers(t), "github.com/fsouza/fake-gcs-server")
}

// Azurite returns the command that runs Azurite's blob service.
func Azurite(t testing.TB) (bin string, args []string) {
	t.Helper()
	bin = Debian(t, "node", "nodejs")
	main := filepath.Join(servers(t), "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if _, err := os.Stat(main); err != nil {
		Missing(t, "Azurite is not installed: make interop/servers/node_modules")
	}
	return bin, []string{main}
}

// servers is the folder of the module of the object store servers, beside this module's go.mod.
func servers(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "servers")
}

// built has the paths of tools by package, for one test binary: linking Thanos takes seconds.
var built struct {
	sync.Mutex
	path map[string]string
}

// tool builds a `tool` of the go.mod in dir ("" for the tests' own) with the build tags of its
// authors, which `go tool` does not accept. `go run` links it into the build cache; instead of
// running it, echo prints its path. The first time that path is in a folder that is then removed,
// later it is in the cache.
func tool(t testing.TB, dir, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if p := built.path[pkg]; p != "" {
		return p
	}
	for range 2 {
		var stderr bytes.Buffer
		cmd := exec.Command("go", "run", "-tags=slicelabels", "-exec=echo", pkg)
		cmd.Dir = dir
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go run %s: %v\n%s", pkg, err, stderr.String())
		}
		p := strings.TrimSpace(string(out))
		if _, err := os.Stat(p); err != nil {
			continue
		}
		if built.path == nil {
			built.path = map[string]string{}
		}
		built.path[pkg] = p
		return p
	}
	t.Fatalf("go run %s: the program is not in the build cache", pkg)
	return ""
}

// Debian returns the path of a program of a Debian package.
func Debian(t testing.TB, program, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} { // not on every user's PATH
			if q, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
				return q
			}
		}
		Missing(t, fmt.Sprintf("%s is not installed: apt-get install %s", program, pkg))
	}
	return p
}

// Missing skips the test with a reason. With INTEROP_REQUIRE it fails the test.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("INTEROP_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
