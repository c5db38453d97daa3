package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/localfs"
)

func flip(t testing.TB, file string, off int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x55
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// tinyIndex returns an index whose header has a few hundred bytes.
func tinyIndex(t testing.TB) []byte {
	return writeIndex(t, []labels.Labels{
		labels.FromStrings(
			"__name__", "up", "job", "api", "pod", "api-0",
		), labels.FromStrings("__name__", "up", "job", "api", "pod", "api-1"),
		labels.FromStrings("__name__", "down", "job", "db"),
	})
}

// If any byte of a header file changes between two processes, or the file is cut anywhere, the
// answers stay right and the header is built again.
func TestDamagedFile(t *testing.T) {
	idx := tinyIndex(t)
	model := modelOf(t, idx)
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, idx)
	file := headerFile(dir, src.ID)
	write := func() {
		m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		if _, release, err := m.Acquire(context.Background(), src); err != nil {
			t.Fatal(err)
		} else {
			release()
		}
		m.waitPersisted(src)
		m.Close()
	}
	write()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, content []byte, rebuilt bool) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o666); err != nil {
			t.Fatal(err)
		}
		bkt.reads()
		m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt})
		if err != nil {
			t.Fatal(err)
		}
		h, release, err := m.Acquire(context.Background(), src)
		if err == nil {
			err = model.check(h, rand.New(rand.NewPCG(1, 1)))
			release()
		}
		m.waitPersisted(src)
		m.Close()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := len(bkt.reads()); (n > 0) != rebuilt {
			t.Errorf("%s: %d reads of the bucket", what, n)
		}
		if got, err := os.ReadFile(file); rebuilt && (err != nil || string(got) != string(whole)) {
			t.Errorf("%s: the file was not restored: %v", what, err)
		}
	}
	try("nothing", whole, false)
	for off := range whole {
		b := slices.Clone(whole)
		b[off] ^= 0x55
		// The head is for people and for `file`. larder does not read it.
		try(fmt.Sprintf("byte %d", off), b, off >= headSize)
	}
	for n := 0; n < len(whole); n += 5 {
		try(fmt.Sprintf("cut at %d", n), whole[:n], true)
	}
	try("longer", append(slices.Clone(whole), 0), true)
	try("twice", append(slices.Clone(whole), whole...), true)
}

// Blocks are damaged while a header is open. Each look-up still returns the right answers, even
// when damage comes in its middle.
func TestDamageWhileOpen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	idx := synthIndex(t, 30_000)
	model := modelOf(t, idx)
	for _, cache := range []int64{-1, 0} {
		dir := t.TempDir()
		bkt := newBucket()
		src := bkt.add(1, idx)
		reg := prometheus.NewRegistry()
		m := newManager(
			t, Options{Dir: localfs.At(dir), Bucket: bkt, Registerer: reg, BlockCacheBytes: cache},
		)
		h := acquire(t, m, src)
		file := headerFile(dir, src.ID)
		m.waitPersisted(src)
		r := h.cur.Load()
		names, err := filepath.Glob(file)
		if err != nil || len(names) != 1 {
			t.Fatalf("%v, %v", names, err)
		}

		// Values: the block after next is damaged during the first call of f, and another one
		// later, in the second reader of the same walk.
		i := 0
		values := model.values["pod"]
		err = h.Values(
			context.Background(),
			"pod",
			values[0],
			func(v []byte, l List) (bool, error) {
				if i == 10 {
					flip(t, file, r.valOff[5]+100)
				}
				if string(v) != values[i] || l != model.want("pod", values[i]) {
					return false, fmt.Errorf("value %d is %q at %v", i, v, l)
				}
				i++
				return true, nil
			},
		)
		if err != nil || i != len(values) {
			t.Fatalf("%d of %d values, %v", i, len(values), err)
		}
		if n := metric(t, reg, "larder_header_rebuilds_total"); n != 1 {
			t.Fatalf("%v rebuilds", n)
		}

		// The same values together.
		m.waitPersisted(src)
		flipped := false
		err = checkStrings(context.Background(), h, "pod", values, func() {
			if !flipped {
				flip(t, file, r.valOff[5]+100)
				flipped = true
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := metric(t, reg, "larder_header_rebuilds_total"); n != 2 {
			t.Fatalf("%v rebuilds", n)
		}

		// Symbols.
		m.waitPersisted(src)
		i = 0
		err = h.Symbols(context.Background(), model.refs, func(k int, s []byte) error {
			if i == 10 {
				flip(t, file, r.symOff[3]+100)
			}
			if k != i || string(s) != model.symbols[i] {
				return fmt.Errorf("symbol %d is %q", i, s)
			}
			i++
			return nil
		})
		if err != nil || i != len(model.refs) {
			t.Fatalf("%d of %d symbols, %v", i, len(model.refs), err)
		}
		if n := metric(t, reg, "larder_header_rebuilds_total"); n != 3 {
			t.Fatalf("%v rebuilds", n)
		}

		// Lists, in a block in the middle.
		m.waitPersisted(src)
		flip(t, file, r.valOff[len(r.valOff)/2]+50)
		if err := model.check(h, rnd); err != nil {
			t.Fatal(err)
		}
		if n := metric(t, reg, "larder_header_rebuilds_total"); n != 4 {
			t.Fatalf("%v rebuilds", n)
		}
		// The last file is intact.
		m.waitPersisted(src)
		if _, err := openWhole(file, src); err != nil {
			t.Fatal(err)
		}
	}
}

// Damage that a block's checksum does not show is found in the middle of the block. The walk
// continues after the last delivered value, and delivers none twice.
func TestDamageWithinBlock(t *testing.T) {
	idx := synthIndex(t, 5000)
	model := modelOf(t, idx)
	values := model.values["pod"]
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, idx)
	bad := headerBytes(t, idx)
	mem := new(memory)
	mem.Write(bad)
	r, err := open(mem, src, newLookups(0))
	if err != nil {
		t.Fatal(err)
	}
	k := r.first[r.nameIndex("pod")] + 1
	block := bad[r.valOff[k]:r.valOff[k+1]]
	c := new(valueCursor)
	if err := c.reset(block[:len(block)-crc32.Size], false, r.lists[k], r.lists[k+1]); err != nil {
		t.Fatal(err)
	}
	for range 101 {
		if ok, err := c.advance(); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	// The entry after next claims a longer shared prefix than possible.
	block[c.next] = 0x7f
	binary.BigEndian.PutUint32(
		block[len(block)-crc32.Size:], crc32.Checksum(block[:len(block)-crc32.Size], castagnoli),
	)
	each := func(h *Header) error {
		i := 0
		err := h.Values(context.Background(), "pod", "", func(v []byte, l List) (bool, error) {
			if string(v) != values[i] || l != model.want("pod", values[i]) {
				return false, fmt.Errorf("value %d is %q at %v", i, v, l)
			}
			i++
			return true, nil
		})
		if err == nil && i != len(values) {
			err = fmt.Errorf("%d of %d values", i, len(values))
		}
		return err
	}
	together := func(h *Header) error {
		return checkStrings(context.Background(), h, "pod", values, nil)
	}
	for _, walk := range []func(*Header) error{each, together} {
		if err := os.WriteFile(headerFile(dir, src.ID), bad, 0o666); err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt, Registerer: reg})
		if err := walk(acquire(t, m, src)); err != nil {
			t.Fatal(err)
		}
		if n := metric(t, reg, "larder_header_rebuilds_total"); n != 1 {
			t.Errorf("%v rebuilds", n)
		}
		m.waitPersisted(src)
	}
}

// openWhole opens a header file as another process would, and reads every block.
func openWhole(file string, src Source) (n int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	mem := new(memory)
	mem.Write(b)
	r, err := open(mem, src, newLookups(0))
	if err != nil {
		return 0, err
	}
	for i := range r.names {
		var p progress
		if err := r.valuesOf(context.Background(), i, "", &p, func([]byte, List) (bool, error) {
			n++
			return true, nil
		}); err != nil {
			return n, err
		}
	}
	return n, nil
}

// waitPersisted waits until the file of the header of src is saved.
func (m *Manager) waitPersisted(src Source) {
	m.Wait(context.Background(), []ulid.ULID{src.ID})
}

// Damage is an error while the bucket cannot be read, and none after that.
func TestDamageIsNotSticky(t *testing.T) {
	idx := synthIndex(t, 5000)
	model := modelOf(t, idx)
	dir := t.TempDir()
	bkt := newBucket()
	src := bkt.add(1, idx)
	m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt, BlockCacheBytes: -1})
	h := acquire(t, m, src)
	m.waitPersisted(src)
	r := h.cur.Load()
	flip(t, headerFile(dir, src.ID), r.valOff[r.first[r.nameIndex("pod")]]+10)
	down := errors.New("503 slow down")
	bkt.setFault(
		func(context.Context, get, int) (io.ReadCloser, error, bool) { return nil, down, true },
	)
	some := []string{model.values["pod"][0]}
	_, err := h.Lists(context.Background(), "pod", some, nil)
	if !errors.Is(err, down) || !errors.Is(err, errChecksum) {
		t.Fatalf("got %v", err)
	}
	bkt.setFault(nil)
	if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
}

// An error of f is returned unchanged.
func TestCallbackErrors(t *testing.T) {
	idx := tinyIndex(t)
	bkt := newBucket()
	h := acquire(
		t, newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt}), bkt.add(1, idx),
	)
	for _, want := range []error{errors.New("enough"), &damageError{what: "of another header",
		err: errChecksum}} {
		if err := h.Symbols(context.Background(), []uint32{0, 1}, func(int, []byte) error {
			return want
		}); err != want {
			t.Errorf("got %v", err)
		}
		if err := h.Values(context.Background(), "job", "", func([]byte, List) (bool, error) {
			return true, want
		}); err != want {
			t.Errorf("got %v", err)
		}
	}
	n := 0
	stop := func([]byte, List) (bool, error) { n++; return false, nil }
	if err := h.Values(context.Background(), "job", "", stop); err != nil ||
		n != 1 {
		t.Errorf("%d calls, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Values(ctx, "job", "", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := h.Lists(ctx, "job", []string{"a"}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := h.Symbols(ctx, []uint32{0}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestLinkInPlaceOfAFile: the file behind a link is neither read nor changed, and a new header
// replaces the link. A link with a temporary name is removed at the start.
func TestLinkInPlaceOfAFile(t *testing.T) {
	dir, bkt := t.TempDir(), newBucket()
	idx := tinyIndex(t)
	src := bkt.add(1, idx)
	outside := filepath.Join(t.TempDir(), "file")
	whole := headerBytes(t, idx)
	if err := os.WriteFile(outside, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(dir, src.ID.String()+fileSuffix+".1.tmp")
	for _, name := range []string{headerFile(dir, src.ID), temp} {
		if err := os.Symlink(outside, name); err != nil {
			t.Fatal(err)
		}
	}
	m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link under a temporary name: %v", err)
	}
	acquire(t, m, src)
	m.waitPersisted(src)
	if is, err := os.Lstat(headerFile(dir, src.ID)); err != nil || !is.Mode().IsRegular() {
		t.Errorf("%v, %v, want a file", is, err)
	}
	if len(bkt.reads()) == 0 {
		t.Error("the file behind the link was used")
	}
	if now, err := os.ReadFile(outside); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("the file behind the link has changed, %v", err)
	}
}
