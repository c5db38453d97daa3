package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/benchmarks/dataset"
)

const (
	metaFile = "meta.json"
	// metaBytes is the size of the hostile meta.json documents.
	metaBytes = 15 << 20
	// fifos is the number of documents that are FIFOs and not files.
	fifos = 33
	// maxThreads is the maximum number of larder's threads during that attack.
	maxThreads = 100
)

// bucketAttacks are attacks 4 and 7: hostile contents of the bucket.
func bucketAttacks() []attack {
	few := func(i int) string {
		return fmt.Sprintf("%q:%q", fmt.Sprint("label", i),
			strings.Repeat("v", 1<<20))
	}
	many := func(i int) string { return fmt.Sprintf(`"l%07d":"v%07d"`, i, i) }
	metas := func(pair func(int) string) func(context.Context, *target) error {
		return func(_ context.Context, t *target) error { return t.addMetas(t.n(32, 16), pair) }
	}
	look := func(ctx context.Context, t *target) (string, error) {
		pause(ctx, time.Duration(t.n(10, 2))*time.Second)
		return fmt.Sprintf("%d blocks with %d MB of labels each, from the start on", t.n(32, 16),
			metaBytes>>20), nil
	}
	return []attack{
		{name: "meta-labels", number: "4", prepare: metas(many), run: look},
		{name: "meta-values", number: "4", prepare: metas(few), run: look},
		{name: "fifos", number: "7", prepare: func(_ context.Context, t *target) error {
			t.flags = []string{"--sync-block-duration=1s"}
			return nil
		}, run: runFIFOs},
		{name: "fifos-at-start", number: "7",
			prepare: func(_ context.Context, t *target) error { return t.addFIFOs() },
			run: func(ctx context.Context, t *target) (string, error) {
				u, err := t.larder.Usage()
				return fmt.Sprintf("%d blocks of FIFOs before the start: %d threads", fifos,
					u.Threads), err
			}},
	}
}

// blockID returns the ID of the n-th hostile block.
func (t *target) blockID(n int) string {
	var id ulid.ULID
	_ = id.SetTime(uint64(dataset.Epoch)) // the time fits
	id[6], id[14], id[15] = byte(t.conf.seed), byte(n>>8), byte(n)
	return id.String()
}

// addMetas adds blocks whose meta.json has many bytes of labels.
func (t *target) addMetas(n int, pair func(int) string) error {
	var labels strings.Builder
	for i := 0; labels.Len() < metaBytes-2<<20; i++ {
		if i > 0 {
			labels.WriteByte(',')
		}
		labels.WriteString(pair(i))
	}
	honest, err := dataset.ReadMeta(filepath.Join(t.bucket, t.block))
	if err != nil {
		return err
	}
	for i := range n {
		meta := *honest
		meta.ULID = ulid.MustParse(t.blockID(i))
		meta.MinTime, meta.MaxTime = dataset.Epoch-72*3_600_000, dataset.Epoch-70*3_600_000
		meta.Compaction.Sources = []ulid.ULID{meta.ULID}
		meta.Thanos.Labels = map[string]string{"a": "b"}
		text, err := json.Marshal(meta)
		if err != nil {
			return err
		}
		all := strings.Replace(string(text), `{"a":"b"}`, "{"+labels.String()+"}", 1)
		dir := filepath.Join(t.bucket, t.blockID(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, metaFile), []byte(all), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addFIFOs puts FIFOs, and a link to a device, in place of a block's documents.
func (t *target) addFIFOs() error {
	for i := range fifos {
		dir := filepath.Join(t.bucket, t.blockID(i))
		if err := os.MkdirAll(filepath.Join(dir, "chunks"), 0o755); err != nil {
			return err
		}
		for _, name := range []string{metaFile, "deletion-mark.json", "no-compact-mark.json",
			"index", "chunks/000001"} {
			if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
				return err
			}
		}
	}
	dir := filepath.Join(t.bucket, t.blockID(fifos))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, metaFile)); err != nil {
		return err
	}
	// The mark of the honest block is a FIFO.
	return syscall.Mkfifo(filepath.Join(t.bucket, t.block, "no-compact-mark.json"), 0o644)
}

// runFIFOs counts the threads of larder while it syncs with the bucket repeatedly.
func runFIFOs(ctx context.Context, t *target) (string, error) {
	if err := t.addFIFOs(); err != nil {
		return "", err
	}
	var seen []string
	most := int64(0)
	for range t.n(12, 4) {
		if !pause(ctx, time.Duration(t.n(10_000, 1000))*time.Millisecond) || t.larder.Ended() {
			break
		}
		u, err := t.larder.Usage()
		if err != nil {
			return "", err
		}
		most = max(most, u.Threads)
		seen = append(seen, fmt.Sprint(u.Threads))
	}
	if most > maxThreads {
		t.got("larder has %d threads", most)
	}
	return fmt.Sprintf("%d blocks of FIFOs, threads over time: %s", fifos,
		strings.Join(seen, " ")), nil
}
