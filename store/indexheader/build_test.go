package indexheader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"larder/internal/bucket/retry"
	"larder/internal/localfs"
	"larder/internal/tsdbfmt"
)

// smallIndexBytes returns an index of a few series.
func smallIndexBytes(t testing.TB) []byte {
	return writeIndex(t, randomSeries(rand.New(rand.NewPCG(0, 7)))[:50])
}

func metric(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range fams {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				sum += m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				sum += m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				sum += float64(m.GetHistogram().GetSampleCount())
			}
		}
		return sum
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// headerFiles returns the names of the files in the directory.
func headerFiles(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A build asks for the size if that is unknown. It reads a small index with one request, and of a
// large one both ends and the parts between them.
func TestBuildRequests(t *testing.T) {
	small := smallIndexBytes(t)
	large := synthIndex(t, 40_000)
	toc, err := tsdbfmt.ParseTOC(large, large, int64(len(large)))
	if err != nil {
		t.Fatal(err)
	}
	if len(large) <= wholeIndex || toc.Series-5 < 3*probeSize ||
		int64(len(large))-toc.PostingsTable < 3*probeSize {
		t.Fatalf("the large index has %d bytes, %+v", len(large), toc)
	}
	const part = 256 << 10
	size := int64(len(large))
	split := func(off, end int64) (gets []get) {
		for ; off < end; off += part {
			gets = append(gets, get{"", off, min(part, end-off)})
		}
		return gets
	}
	wantLarge := append(
		[]get{{"", 0, probeSize}, {"", size - probeSize, probeSize}},
		split(probeSize, toc.Series)...)
	wantLarge = append(wantLarge, split(toc.PostingsTable, size-probeSize)...)

	for _, tc := range []struct {
		name  string
		idx   []byte
		known bool
		attrs int
		gets  []get
	}{
		{"small", small, true, 0, []get{{"", 0, int64(len(small))}}},
		{"small, size unknown", small, false, 1, []get{{"", 0, int64(len(small))}}},
		{"large", large, true, 0, wantLarge},
	} {
		bkt := newBucket()
		src := bkt.add(1, tc.idx)
		if !tc.known {
			src.IndexSize = 0
		}
		m := newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt, PartSize: part})
		h := acquire(t, m, src)
		if err := modelOf(t, tc.idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Fatal(err)
		}
		attrs, got := bkt.attrs(), bkt.reads()
		for i := range got {
			got[i].Name = ""
		}
		slices.SortFunc(got, func(a, b get) int { return int(a.Off - b.Off) })
		slices.SortFunc(tc.gets, func(a, b get) int { return int(a.Off - b.Off) })
		if !slices.Equal(got, tc.gets) || attrs != tc.attrs {
			t.Errorf("%s: %d attributes, reads\n%v, want\n%v", tc.name, attrs, got, tc.gets)
		}
	}
}

// A build over internal/bucket/retry survives one failed read of any kind, at the price of one
// more request.
func TestBuildSurvivesOneFault(t *testing.T) {
	idx := synthIndex(t, 40_000)
	bkt := newBucket()
	src := bkt.add(1, idx)
	m := newManager(t, Options{Bucket: bkt, PartSize: 512 << 10})
	acquire(t, m, src)
	reads := bkt.count()
	if reads < 5 {
		t.Fatalf("only %d reads", reads)
	}
	faults := map[string]func(g get) (io.ReadCloser, error){
		"error": func(get) (io.ReadCloser, error) { return nil, errors.New("503 slow down") },
		"short": func(g get) (io.ReadCloser, error) {
			return body(idx[g.Off : g.Off+g.Len/2]), nil
		},
		"empty":     func(get) (io.ReadCloser, error) { return body(nil), nil },
		"all of it": func(get) (io.ReadCloser, error) { return body(idx), nil },
		"cut": func(g get) (io.ReadCloser, error) {
			return io.NopCloser(
				io.MultiReader(bytes.NewReader(idx[g.Off:g.Off+7]), errReader{}),
			), nil
		},
		"error and reader": func(get) (io.ReadCloser, error) {
			return body(nil), errors.New("503 slow down")
		},
	}
	model := modelOf(t, idx)
	for name, fail := range faults {
		for n := range reads {
			if name == "all of it" && n == 0 {
				continue // the first read of the whole object is no fault
			}
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				t.Parallel()
				bkt := newBucket()
				src := bkt.add(1, idx)
				bkt.setFault(func(_ context.Context, g get, call int) (io.ReadCloser, error, bool) {
					if call != n {
						return nil, nil, false
					}
					rc, err := fail(g)
					return rc, err, true
				})
				m := newManager(t, Options{
					Dir:      localfs.At(t.TempDir()),
					Bucket:   retry.Wrap(bkt, retry.Options{MinBackoff: time.Millisecond}),
					PartSize: 512 << 10,
				})
				h := acquire(t, m, src)
				if n%3 == 0 {
					if err := model.check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
						t.Fatal(err)
					}
				}
				if got := bkt.count(); got != reads+1 {
					t.Errorf("%d reads, want %d", got, reads+1)
				}
			})
		}
	}
}

var errBroken = errors.New("connection reset by peer")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

// A failed build returns the right error and leaves no file, and the next Acquire builds again.
func TestBuildFails(t *testing.T) {
	good := smallIndexBytes(t)
	damagedAt := func(off int) []byte {
		b := bytes.Clone(good)
		b[off] ^= 1
		return b
	}
	toc, err := tsdbfmt.ParseTOC(good, good, int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		idx  []byte
		want error
		gets int
	}{
		{"no index", nil, ErrNotFound, 1},
		{"denied", good, errDenied, 1},
		{"broken", good, errBroken, 1}, // internal/bucket/retry alone repeats reads
		{"magic", damagedAt(0), tsdbfmt.ErrCorrupt, 2},
		{"symbol", damagedAt(int(toc.Symbols) + 20), tsdbfmt.ErrChecksum, 2},
		{"offset table", damagedAt(int(toc.PostingsTable) + 4 + 4 + 1), tsdbfmt.ErrCorrupt, 2},
		{"last list", damagedAt(len(good) - tsdbfmt.TOCSize - 5), tsdbfmt.ErrCorrupt, 2},
		{"checksum of the offset table", damagedAt(len(good) - tsdbfmt.TOCSize - 1),
			tsdbfmt.ErrChecksum, 2},
		{"toc", damagedAt(len(good) - 10), tsdbfmt.ErrChecksum, 2},
		{"tiny", []byte("not an index"), tsdbfmt.ErrCorrupt, 0},
		{"shorter than it should be", good[:len(good)-1], errLength, 1},
		{"longer than its range", good, errTooLong, maxReads},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			bkt := newBucket()
			src := bkt.add(1, tc.idx)
			switch tc.want {
			case errDenied, errBroken:
				bkt.setFault(func(context.Context, get, int) (io.ReadCloser, error, bool) {
					return nil, tc.want, true
				})
			case errTooLong:
				bkt.setFault(func(context.Context, get, int) (io.ReadCloser, error, bool) {
					return body(append(bytes.Clone(good), 'x')), nil, true
				})
			}
			if tc.idx == nil {
				bkt.remove(src.IndexObject)
				src.IndexSize = 100
			}
			if tc.want == errLength {
				src.IndexSize = int64(len(good))
			}
			reg := prometheus.NewRegistry()
			m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt, Registerer: reg})
			for round := 1; round <= 2; round++ {
				_, _, err := m.Acquire(context.Background(), src)
				if !errors.Is(err, tc.want) {
					t.Fatalf("got %v, want %v", err, tc.want)
				}
				if got := bkt.count(); got != round*tc.gets {
					t.Errorf("%d reads, want %d", got, round*tc.gets)
				}
			}
			if names := headerFiles(t, dir); len(names) != 0 {
				t.Errorf("files remain: %v", names)
			}
			if f := metric(t, reg, "thanos_bucket_store_block_load_failures_total"); f != 2 {
				t.Errorf("got %v failed loads, want 2", f)
			}
			if f := metric(t, reg, "larder_header_build_failures_total"); f != 2 {
				t.Errorf("%v failures counted", f)
			}
			// The failure is not remembered.
			bkt.setFault(nil)
			bkt.set(src.IndexObject, good)
			src.IndexSize = int64(len(good))
			m2 := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
			h := acquire(t, m2, src)
			if err := modelOf(t, good).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Tables that are damaged in transit are read again.
func TestBuildReadsDamagedTablesAgain(t *testing.T) {
	idx := smallIndexBytes(t)
	bkt := newBucket()
	src := bkt.add(1, idx)
	bkt.setFault(func(_ context.Context, _ get, call int) (io.ReadCloser, error, bool) {
		if call != 0 {
			return nil, nil, false
		}
		b := bytes.Clone(idx)
		b[40] ^= 0x10
		return body(b), nil, true
	})
	h := acquire(t, newManager(t, Options{Dir: localfs.At(t.TempDir()), Bucket: bkt}), src)
	if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	if n := bkt.count(); n != 2 {
		t.Errorf("%d reads", n)
	}
}

// An offset table with a valid checksum and impossible contents is rejected.
func TestBuildRefusesNonsense(t *testing.T) {
	f := footer{indexSize: 10_000, toc: tsdbfmt.TOC{Version: 2, Symbols: 5, PostingsTable: 9000}}
	add := func(want error, entries ...func(w *writer) error) {
		t.Helper()
		w, err := newWriter(new(memory), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err == nil {
				err = e(w)
			}
		}
		if err == nil {
			err = w.close()
		}
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	e := func(name, value string, off int64) func(*writer) error {
		return func(w *writer) error {
			return w.addValue([]byte(name), []byte(value), List{Off: off})
		}
	}
	add(nil, e("", "", 100), e("a", "", 112), e("a", "x", 200), e("b", "", 8988))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 100), e("a", "x", 200))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 100), e("a", "w", 200))
	add(tsdbfmt.ErrCorrupt, e("b", "x", 100), e("a", "y", 200))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 100), e("a", "y", 100))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 100), e("a", "y", 111))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 4))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 9989))
	add(tsdbfmt.ErrCorrupt, e("a", "x", 8989))
	add(tsdbfmt.ErrCorrupt, e("a", "x", -1))
}

// lines receives log lines as they are written.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// A failing disk fails no look-up: the header is built in memory, and saved once the disk works.
func TestBuildWithoutDisk(t *testing.T) {
	idx := smallIndexBytes(t)
	for _, large := range []bool{false, true} {
		bkt := newBucket()
		dir := filepath.Join(t.TempDir(), "headers")
		reg := prometheus.NewRegistry()
		logged := make(lines, 16)
		m := newManager(
			t,
			Options{
				Dir:        localfs.At(dir),
				Bucket:     bkt,
				Registerer: reg,
				Logger:     slog.New(slog.NewTextHandler(logged, nil)),
				SaveRetry:  time.Millisecond,
			},
		)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		src := bkt.add(1, idx)
		if large {
			src.IndexSize = 0 // a header of unknown size is written while it is built
		}
		h := acquire(t, m, src)
		check := func() {
			t.Helper()
			if err := modelOf(t, idx).check(h, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
		}
		check()
		if line := <-logged; !strings.Contains(line, "open index header") {
			t.Errorf("logged %q", line)
		}
		if n := metric(t, reg, "larder_header_local_failures_total"); n == 0 {
			t.Error("no local failures")
		}

		// The disk works again.
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if line := <-logged; !strings.Contains(line, "written to disk again") {
			t.Errorf("logged %q", line)
		}
		m.waitPersisted(src)
		if names := headerFiles(t, dir); len(names) != 1 || names[0] != src.ID.String()+fileSuffix {
			t.Errorf("files: %v", names)
		}
		check()

		// The files of a running process are removed.
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		check()
		for {
			if _, err := os.Stat(headerFile(dir, src.ID)); err == nil {
				break
			}
			<-time.After(time.Millisecond)
		}
		check()
	}
}
