package indexheader

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"larder/internal/localfs"
)

// The contents of a block are replaced while its header is in use. Callers keep the old header, new
// requests get the new one, and requests for the old contents get ErrReplaced.
func TestABlockWithOtherContent(t *testing.T) {
	before, after := tinyIndex(t), synthIndex(t, 500)
	bkt, reg := newBucket(), prometheus.NewRegistry()
	old := bkt.add(1, before)
	m := newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt, Registerer: reg})
	h, release, err := m.Acquire(context.Background(), old)
	if err != nil {
		t.Fatal(err)
	}
	m.waitPersisted(old)
	cur := bkt.add(1, after)
	cur.Content, cur.Number = old.Content+1, old.Number+1
	for range 2 {
		if err := modelOf(t, after).
			check(acquire(t, m, cur), rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Errorf("the new one: %v", err)
		}
		if err := modelOf(t, before).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Errorf("the old one, in use: %v", err)
		}
		if _, _, err := m.Acquire(context.Background(), old); !errors.Is(err, ErrReplaced) {
			t.Errorf("the old one, requested again: %v", err)
		}
	}
	release()
	m.waitPersisted(cur)
	if n := metric(t, reg, "larder_header_open"); n != 1 {
		t.Errorf("%v headers are open", n)
	}
	if _, err := openWhole(headerFile(m.opts.Dir.String(), cur.ID), cur); err != nil {
		t.Errorf("the file: %v", err)
	}
}

// A file of earlier contents or of an earlier format is built again without an error.
func TestStaleFiles(t *testing.T) {
	idx := tinyIndex(t)
	for name, change := range map[string]func(file []byte, src *Source){
		"content": func(_ []byte, src *Source) { src.Content++ },
		"format":  func(file []byte, _ *Source) { file[len(file)-tailSize+3] = formatVersion - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			dir, bkt, reg := t.TempDir(), newBucket(), prometheus.NewRegistry()
			src := bkt.add(1, idx)
			file := headerBytes(t, idx)
			change(file, &src)
			if err := os.WriteFile(headerFile(dir, src.ID), file, 0o600); err != nil {
				t.Fatal(err)
			}
			m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt, Registerer: reg})
			if err := modelOf(t, idx).
				check(acquire(t, m, src), rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Error(err)
			}
			m.waitPersisted(src)
			now, err := os.ReadFile(headerFile(dir, src.ID))
			if err != nil || bytes.Equal(now, file) {
				t.Errorf("the file has not changed, %v", err)
			}
			if n := metric(t, reg, "larder_header_rebuilds_total"); n != 1 {
				t.Errorf("%v rebuilds", n)
			}
		})
	}
}
