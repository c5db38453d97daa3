package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"larder/internal/memcached/memcachedtest"
)

func runDemo(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errOut strings.Builder
	cmd := larder(ctx, nil, append([]string{"demo", "--once"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// TestDemo runs the demo twice over one folder: the second run finds the bucket, the headers and
// the catalog of the first. Then it runs the demo twice with memcached and without the data
// directory, so that the second run can only use the bucket and memcached. With a disk cache,
// which keeps its files in the data directory, the second run reads from there.
func TestDemo(t *testing.T) {
	const pieces = `Pieces of blocks read \(16 KiB of indexes, 8 KiB of chunks\): ` +
		`[1-9]\d* from memory, `
	dir := t.TempDir()
	f := func(t *testing.T, begins, ends string, args ...string) {
		t.Helper()
		stdout, stderr, err := runDemo(t, append(args, "--dir="+dir)...)
		if err != nil || stderr != "" {
			t.Fatalf("%v, stderr:\n%s\nstdout:\n%s", err, stderr, stdout)
		}
		if !strings.HasPrefix(stdout, begins) ||
			!regexp.MustCompile(ends+"\n$").MatchString(stdout) {
			t.Errorf("does not begin with %q and end with %q:\n%s", begins, ends, stdout)
		}
		// The last question but one asks for most of the data.
		if !strings.Contains(stdout, "everything of the last two hours\n") ||
			strings.Contains(stdout, "FAILED") {
			t.Errorf("answers are missing:\n%s", stdout)
		}
	}
	f(t, "Writing a bucket of 20 blocks", "")
	f(t, "Found a bucket of 20 blocks", "")
	t.Run("disk", func(t *testing.T) {
		for _, pages := range []string{
			`\d+ from disk, \d+ from memcached, [1-9]\d* from the bucket`,
			`[1-9]\d* from disk, \d+ from memcached, \d+ from the bucket`,
		} {
			f(
				t, "Found a bucket of 20 blocks",
				pieces+pages+`\.`,
				"--disk-cache-size=1GB",
			)
		}
	})
	t.Run("memcached", func(t *testing.T) {
		server := memcachedtest.Start(t, memcachedtest.Options{})
		for _, pages := range []string{`0 from disk, 0 from memcached, [1-9]\d* from the bucket`,
			`0 from disk, [1-9]\d* from memcached, 0 from the bucket`} {
			if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
				t.Fatal(err)
			}
			f(
				t, "Found a bucket of 20 blocks",
				pieces+pages+`\.`,
				"--memcached="+server.Addr,
			)
		}
	})
}

func TestDemoTakenPort(t *testing.T) {
	dir := t.TempDir()
	_, stderr, err := runDemo(t, "--dir="+dir, "--grpc-address="+listenLocal(t))
	if err == nil || !strings.Contains(stderr, "--grpc-address") ||
		strings.Count(stderr, "\n") != 1 {
		t.Errorf("%v, stderr:\n%s", err, stderr)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "bucket", "*")); len(found) > 0 {
		t.Errorf("the bucket was written first: %s", found)
	}
}

// TestDemoSaysWhatToTryNext checks that the commands that the demo prints have its addresses.
func TestDemoSaysWhatToTryNext(t *testing.T) {
	var out strings.Builder
	printNext(&out, "127.0.0.1:1", "127.0.0.1:2")
	for _, want := range []string{
		"http://127.0.0.1:2/\n",
		"grpcurl -plaintext 127.0.0.1:1 thanos.info.Info/Info\n",
		"--endpoint=127.0.0.1:1 ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not print %q:\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String() + legend + meaning) {
		if len(line) > 101 {
			t.Errorf("line is longer than 100 columns: %s", line)
		}
	}
}
