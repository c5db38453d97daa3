package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"larder/benchmarks/dataset"
	"larder/store/inspection"
)

func runInspect(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := larder(ctx, nil, append([]string{"inspect"}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// TestInspect reports on the bucket of the demo, with a broken block and a partial upload.
func TestInspect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	end := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	metas, err := dataset.Demo(1, end).Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	broken, partial := metas[0].ULID.String(), metas[1].ULID.String()
	sound := metas[2].ULID.String()
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, broken, "meta.json"), []byte("{"), 0o600),
		os.Remove(filepath.Join(dir, partial, "meta.json")))
	if err != nil {
		t.Fatal(err)
	}
	bucket := "--objstore.config=" + folder(dir)

	// Tables.
	f := func(code int, want []string, not string, args ...string) {
		t.Helper()
		stdout, stderr, got := runInspect(t, append(args, bucket)...)
		if got != code {
			t.Errorf("%q: exit code %d, want %d\n%s", args, got, code, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("%q: want %q in\n%s%s", args, w, stdout, stderr)
			}
		}
		if not != "" && strings.Contains(stdout+stderr, not) {
			t.Errorf("%q: got %q in\n%s%s", args, not, stdout, stderr)
		}
	}
	f(0, []string{"rendezvous, 3 shards", "From rendezvous 3 to rendezvous 5", broken},
		"reading meta.json", "shards", "--shards=3", "--to=5")
	f(0, []string{"reading meta.json: 20 of 20\n", "rendezvous, 3 shards"}, "",
		"shards", "--shards=3", "--progress")
	f(0, []string{"Gaps: ", "Blocks without a meta.json: 1", partial + "  upload",
		"Bad blocks: 1", "broken meta.json of block " + broken, "Irregular blocks: none"},
		"", "bucket", "--check-indexes")
	f(0, []string{"Largest of ", "__name__", "all series of the index", "(measured: "},
		"incomplete", "block", sound)
	lacking := metas[3].ULID.String()
	if err := os.RemoveAll(filepath.Join(dir, lacking, "chunks")); err != nil {
		t.Fatal(err)
	}
	f(0, []string{"incomplete", "0 chunk files in the listing, meta.json states 1",
		"Largest of ", "all series of the index"}, "", "block", lacking)
	if err := os.Remove(filepath.Join(dir, lacking, "index")); err != nil {
		t.Fatal(err)
	}
	f(0, []string{"incomplete", "no index in the listing; 0 chunk files in the listing"},
		"Largest of ", "block", lacking)

	// Mistakes and errors.
	f(1, []string{"--shards: give the number of shards"}, "", "shards")
	f(1, []string{`"nonsense" is not the ULID of a block`}, "", "block", "nonsense")
	f(1, []string{"has no block 01J00000000000000000000000"}, "",
		"block", "01J00000000000000000000000")
	f(1, []string{"broken meta.json of block " + broken}, "", "block", broken)
	f(1, []string{"--min-time 2026-01-02T00:00:00Z is after"}, "", "bucket",
		"--min-time=2026-01-02T00:00:00Z", "--max-time=2026-01-01T00:00:00Z")

	// JSON.
	stdout, _, code := runInspect(t, "shards", "--shards=3", "--output=json", bucket)
	var r inspection.ShardsReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v:\n%s", code, err, stdout)
	}
	if r.Selected.Blocks != 18 || len(r.Schemes) != 1 || len(r.Bad) != 2 || !r.Complete {
		t.Errorf("got %+v", r)
	}
	// A bucket that does not answer.
	stdout, stderr, code := runInspect(t, "bucket", "--objstore.config="+
		"{type: S3, config: {bucket: metrics, endpoint: '127.0.0.1:1', insecure: true, "+
		"access_key: a, secret_key: s3cr3tKey}}")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "list blocks: ") ||
		strings.Contains(stderr, "s3cr3tKey") {
		t.Errorf("no bucket: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// TestProgressTellsTheRemainingTime: at most a line a second, and none for a short stage.
func TestProgressTellsTheRemainingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := newProgressLines(&out, true)
		p.forced = false
		p.report("short", 1, 2)
		p.report("short", 2, 2)
		for n := range 40 {
			time.Sleep(100 * time.Millisecond)
			p.report("long", n+1, 40)
		}
		p = newProgressLines(&out, true)
		p.report("forced", 2, 2)
		newProgressLines(io.Discard, false).report("none", 2, 2)
		want := `long: 11 of 40, 3s left
long: 21 of 40, 2s left
long: 31 of 40, 1s left
long: 40 of 40
forced: 2 of 2
`
		if out.String() != want {
			t.Errorf("got\n%s", &out)
		}
	})
}
