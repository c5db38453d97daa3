// Package programs finds or builds the programs that the tests run beside larder.
//
// Go programs are `tool` lines of this module's go.mod and are built by the go command, once per build cache. Debian's programs (prometheus,
// nginx) are looked up; where one is missing the test skips with the package's name, and fails where INTEROP_REQUIRE is set, as `make test`
// does: a run that counts must not pass by leaving something out.
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
	return tool(t, "github.com/thanos-io/thanos/cmd/thanos")
}

// built holds the paths of tools by package, per test binary: linking Thanos takes seconds.
var built struct {
	sync.Mutex
	path map[string]string
}

// tool builds a `tool` of go.mod with the tags that its authors build it with, which `go tool` does not take. `go run` links it into the build
// cache and, instead of running it, has echo say where it is: the first time in a folder that is gone afterwards, then in the cache.
func tool(t testing.TB, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if p := built.path[pkg]; p != "" {
		return p
	}
	for range 2 {
		var stderr bytes.Buffer
		cmd := exec.Command("go", "run", "-tags=slicelabels", "-exec=echo", pkg)
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

// Missing skips the test with a reason, or fails it where INTEROP_REQUIRE says that nothing may be left out.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("INTEROP_REQUIRE") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
