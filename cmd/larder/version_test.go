package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestChooseVersion(t *testing.T) {
	f := func(linked, recorded, want string) {
		t.Helper()
		info := &debug.BuildInfo{Main: debug.Module{Version: recorded}}
		if got := chooseVersion(linked, info); got != want {
			t.Errorf("linked %q, recorded %q: got %q, want %q", linked, recorded, got, want)
		}
	}
	f("", "", "dev")
	f("", "(devel)", "dev")
	f("", "v1.2.3", "v1.2.3")
	f("", "v0.0.0-20261130222526-4f539e978b1c+dirty", "v0.0.0-20261130222526-4f539e978b1c+dirty")
	f("v1", "v1.2.3", "v1")
}

// TestPlainBuild: a binary of a plain `go build` in a clone shows its commit, in the version and as
// the revision. Without a clone, as in an archive, there is no commit to show. The go command also
// finds none in a worktree of git, where .git is a file.
func TestPlainBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("links larder")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	vcs, want := "false", ""
	if info, err := os.Stat("../../.git"); err == nil && info.IsDir() {
		commit, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Output()
		if err != nil {
			t.Fatalf("git rev-parse: %v", err)
		}
		vcs, want = "true", strings.TrimSpace(string(commit))
	}
	bin := filepath.Join(t.TempDir(), "larder")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs="+vcs, "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, bin, "--version")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("--version: %v\n%s", err, out)
	}
	version, revision := `dev`, `unknown`
	if want != "" {
		version, revision = `v\S*`, want+`(-modified)?`
	}
	line := regexp.MustCompile(
		`(?m)^larder, version ` + version + ` \(branch: , revision: ` + revision + `\)$`)
	if !line.Match(out) {
		t.Errorf("--version does not match %s:\n%s", line, out)
	}
}
