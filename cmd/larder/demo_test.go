package main

import (
	"strings"
	"testing"
)

// TestDemo runs the demo twice over one folder: the second time finds the bucket, the headers and the catalog of the first.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	for _, begins := range []string{"Writing a bucket of 20 blocks", "Found a bucket of 20 blocks"} {
		var stdout, stderr strings.Builder
		if code := execute([]string{"demo", "--once", "--dir=" + dir}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Fatalf("exit code %d, stderr:\n%s\nstdout:\n%s", code, &stderr, &stdout)
		}
		out := stdout.String()
		if !strings.HasPrefix(out, begins) {
			t.Errorf("does not begin with %q:\n%s", begins, out)
		}
		// The last question but one asks for most of what there is.
		if !strings.Contains(out, "everything of the last two hours\n") || strings.Contains(out, "FAILED") {
			t.Errorf("answers are missing:\n%s", out)
		}
	}
}

func TestDemoRefusesATakenPort(t *testing.T) {
	l, err := listen("grpc-address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	var stdout, stderr strings.Builder
	code := execute([]string{"demo", "--once", "--dir=" + dir, "--grpc-address=" + l.Addr().String()}, &stdout, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "--grpc-address") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
