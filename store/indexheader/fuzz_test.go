package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"testing"
)

// fixSums writes the right checksums into mutated bytes, of the footer, the sparse tables and every
// block in them, so that the fuzzer reaches the code after these checks.
func fixSums(b []byte) []byte {
	b = bytes.Clone(b)
	be := binary.BigEndian
	n := int64(len(b))
	if n < headSize+footerSize {
		return b
	}
	foot := b[n-footerSize:]
	be.PutUint64(foot[footerSize-tailSize-8:], uint64(n)) // the size
	be.PutUint32(foot[footerSize-tailSize:], formatVersion)
	copy(foot[footerSize-len(magic):], magic)
	sum := footerSize - len(magic) - crc32.Size
	be.PutUint32(foot[sum:], crc32.Checksum(foot[:sum], castagnoli))
	f, err := parseFooter(foot, n)
	if err != nil {
		return b
	}
	fix := func(from, to int64) {
		if from >= 0 && to-from >= crc32.Size && to <= n {
			be.PutUint32(b[to-crc32.Size:], crc32.Checksum(b[from:to-crc32.Size], castagnoli))
		}
	}
	fix(f.symSparse, f.valSparse)
	fix(f.valSparse, n-footerSize)
	mem := new(memory)
	mem.Write(b)
	if r, err := open(mem, Source{ID: f.id}, newLookups(0)); err == nil {
		for i := range r.symFirst {
			fix(r.symOff[i], r.symOff[i+1])
		}
		for i := range len(r.valOff) - 1 {
			fix(r.valOff[i], r.valOff[i+1])
		}
	}
	return b
}

// headerBytes builds the header of an index in memory and returns its bytes.
func headerBytes(t testing.TB, idx []byte) []byte {
	t.Helper()
	bkt := newBucket()
	src := bkt.add(1, idx)
	m, err := New(Options{Bucket: bkt})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	h, release, err := m.Acquire(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	return bytes.Join(h.cur.Load().st.(*memory).chunks, nil)
}

// FuzzOpen: for any bytes, open and look-ups do not panic, do not loop, and allocate in proportion
// to the file.
func FuzzOpen(f *testing.F) {
	f.Add(headerBytes(f, tinyIndex(f)))
	v1 := tinyIndex(f)
	v1[4] = 1
	f.Add(headerBytes(f, v1))
	f.Add(headerBytes(f, writeIndex(f, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fixed := fixSums(b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tryAll(b)
		tryAll(fixed)
		runtime.ReadMemStats(&after)
		// Some values of each name are kept and looked up.
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20+4096*uint64(len(b)) {
			t.Errorf("opening and look-ups of a header of %d bytes allocated %d", len(b), n)
		}
	})
}

func tryAll(b []byte) {
	src := Source{}
	if n := len(b); n >= footerSize {
		copy(src.ID[:], b[n-footerSize:])
	}
	mem := new(memory)
	mem.Write(b)
	r, err := open(mem, src, newLookups(0))
	if err != nil {
		return
	}
	ctx := context.Background()
	var refs []uint32
	for i := range uint32(300) {
		refs = append(refs, i)
	}
	for _, refs := range [][]uint32{refs, {1<<32 - 1}, r.symFirst} {
		for i := 0; i < len(refs); i++ {
			i, _ = r.symbols(ctx, refs, i, func(int, []byte) error { return nil })
		}
	}
	for n := range r.names {
		if int64(r.counts[n]) > r.size {
			panic("more values than bytes")
		}
		var some []string
		var p progress
		r.valuesOf(ctx, n, "", &p, func(v []byte, l List) (bool, error) {
			if len(some) < 50 {
				some = append(some, string(v), string(v)+"x")
			}
			return true, nil
		})
		r.listsOf(ctx, n, some, nil)
		r.listsOf(ctx, n, []string{"", "a", "up"}, nil)
	}
}
