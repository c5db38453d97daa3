package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
	"golang.org/x/sync/semaphore"

	"larder/internal/tsdbfmt"
)

// fixIndex writes the magic and the checksums of an index into mutated bytes, so that the fuzzer
// reaches the code after these checks.
func fixIndex(b []byte) []byte {
	b = bytes.Clone(b)
	be := binary.BigEndian
	n := int64(len(b))
	if n < tsdbfmt.IndexHeaderSize+tsdbfmt.TOCSize {
		return b
	}
	be.PutUint32(b, 0xBAAAD700)
	body := b[n-tsdbfmt.TOCSize : n-crc32.Size]
	be.PutUint32(b[n-crc32.Size:], crc32.Checksum(body, castagnoli))
	toc, err := tsdbfmt.ParseTOC(b, b, n)
	if err != nil {
		return b
	}
	for _, off := range []int64{toc.Symbols, toc.PostingsTable} {
		if off == 0 || off+8 > n {
			continue
		}
		if end := off + 4 + int64(be.Uint32(b[off:])); end+crc32.Size <= n-tsdbfmt.TOCSize {
			be.PutUint32(b[end:], crc32.Checksum(b[off+4:end], castagnoli))
		}
	}
	return b
}

// buildHeader builds a header in memory from the bytes of an index.
func buildHeader(idx []byte) (*reader, error) {
	bkt := newBucket()
	src := bkt.add(1, idx)
	f := &fetcher{
		bkt:      bkt,
		partSize: 1 << 10,
		timeout:  time.Minute,
		bytes:    semaphore.NewWeighted(1 << 20),
	}
	mem := new(memory)
	if err := build(context.Background(), f, src, false, mem); err != nil {
		return nil, err
	}
	st, err := mem.finish()
	if err != nil {
		return nil, err
	}
	return open(st, src, newLookups(0))
}

// prometheusRanges returns the ranges of the posting lists of an index according to Prometheus, nil
// if Prometheus does not open the index.
func prometheusRanges(idx []byte) (ranges map[labels.Label]index.Range) {
	defer func() {
		if recover() != nil {
			ranges = nil // Prometheus trusts the index
		}
	}()
	r, err := index.NewReader(rawBytes(idx), index.DecodePostingsRaw)
	if err != nil {
		return nil
	}
	if ranges, err = r.PostingsRanges(); err != nil {
		return nil
	}
	return ranges
}

// FuzzBuild: a build returns a header or an error of the index. The header opens, its values
// ascend, look-ups of single values agree with a walk over all, and the lists start where
// Prometheus says.
func FuzzBuild(f *testing.F) {
	idx := tinyIndex(f)
	f.Add(idx)
	f.Add(asV3(idx))
	v1 := bytes.Clone(idx)
	v1[4] = 1
	f.Add(v1)
	f.Add(writeIndex(f, nil))
	f.Fuzz(func(t *testing.T, idx []byte) {
		if len(idx) > 1<<20 {
			return
		}
		for _, idx := range [][]byte{idx, fixIndex(idx)} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := buildHeader(idx)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20+32*uint64(len(idx)) {
				t.Errorf("building from an index of %d bytes allocated %d", len(idx), n)
			}
			if err != nil {
				if !errors.Is(err, tsdbfmt.ErrCorrupt) && !errors.Is(err, tsdbfmt.ErrChecksum) {
					t.Fatalf("not an error of the index: %v", err)
				}
				continue
			}
			if err := selfConsistent(r, prometheusRanges(idx)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// selfConsistent compares all ways to ask a header for its values with each other and, unless it is
// nil, with theirs.
func selfConsistent(r *reader, theirs map[labels.Label]index.Range) error {
	ctx := context.Background()
	for n, name := range r.names {
		var values []string
		var lists []List
		var p progress
		err := r.valuesOf(ctx, n, "", &p, func(v []byte, l List) (bool, error) {
			if k := len(values); k > 0 && values[k-1] >= string(v) {
				return false, fmt.Errorf("label %q: value %q follows %q", name, v, values[k-1])
			}
			values, lists = append(values, string(v)), append(lists, l)
			return true, nil
		})
		if err != nil {
			return err
		}
		if len(values) != int(r.counts[n]) {
			return fmt.Errorf("label %q: %d values of %d", name, len(values), r.counts[n])
		}
		got, err := r.listsOf(ctx, n, values, nil)
		if err != nil {
			return err
		}
		for i, v := range values {
			if got[i] != lists[i] || !got[i].plausible(r.indexSize) {
				return fmt.Errorf(
					"label %q, value %q: list %v, and %v in a walk", name, v, got[i], lists[i],
				)
			}
			if rng, ok := theirs[labels.Label{Name: name, Value: v}]; theirs != nil &&
				(!ok || rng.Start-4 != got[i].Off) {
				return fmt.Errorf(
					"label %q, value %q: list %v, Prometheus has %v, %v", name, v, got[i], rng, ok,
				)
			}
		}
	}
	return nil
}
