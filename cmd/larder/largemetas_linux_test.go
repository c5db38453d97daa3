package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
)

// TestLargeMetasAtAStart has many blocks with megabytes of labels. The process stays within its
// memory for documents, serves the other block and names these.
func TestLargeMetasAtAStart(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	text.WriteString(`{"version": 1, "minTime": 0, "maxTime": 1, "thanos": {"labels": {"a": ""`)
	for i := 0; text.Len() < 6<<20; i++ {
		fmt.Fprintf(&text, `,"l%d":"v"`, i)
	}
	text.WriteString("}}}")
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		block := filepath.Join(dir, ulid.MustNew(uint64(i+1), nil).String())
		if err := errors.Join(os.Mkdir(block, 0o755),
			os.Link(large, filepath.Join(block, "meta.json"))); err != nil {
			t.Fatal(err)
		}
	}
	putMeta(t, dir, ulid.MustNew(1000, nil))
	p := startLarder(t, []string{"GOMEMLIMIT=1GiB"}, "store", "--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0",
		"--objstore.config="+folder(dir))
	p.await("msg=synced.*component=catalog") // after the metrics of the sync were set
	if peak := p.peakRSS() >> 20; peak > 256 {
		t.Errorf("a peak of %d MiB", peak)
	}
	if _, metrics := p.get("/metrics"); !strings.Contains(metrics,
		`thanos_blocks_meta_synced{state="corrupted-meta-json"} 32`) {
		t.Error("the blocks are not counted")
	}
}
