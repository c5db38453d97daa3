package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func runDemo(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errOut strings.Builder
	cmd := larder(ctx, nil, append([]string{"demo", "--once"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// TestDemo runs the demo twice over one folder: the second time finds the bucket, the headers and the catalog of the first.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	for _, begins := range []string{"Writing a bucket of 20 blocks", "Found a bucket of 20 blocks"} {
		stdout, stderr, err := runDemo(t, "--dir="+dir)
		if err != nil || stderr != "" {
			t.Fatalf("%v, stderr:\n%s\nstdout:\n%s", err, stderr, stdout)
		}
		if !strings.HasPrefix(stdout, begins) {
			t.Errorf("does not begin with %q:\n%s", begins, stdout)
		}
		// The last question but one asks for most of what there is.
		if !strings.Contains(stdout, "everything of the last two hours\n") || strings.Contains(stdout, "FAILED") {
			t.Errorf("answers are missing:\n%s", stdout)
		}
	}
}

func TestDemoTakenPort(t *testing.T) {
	dir := t.TempDir()
	_, stderr, err := runDemo(t, "--dir="+dir, "--grpc-address="+listenLocal(t))
	if err == nil || !strings.Contains(stderr, "--grpc-address") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%v, stderr:\n%s", err, stderr)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "bucket", "*")); len(found) > 0 {
		t.Errorf("the bucket was written first: %s", found)
	}
}
