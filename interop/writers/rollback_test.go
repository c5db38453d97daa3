package writers

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/programs"
	"larder/interop/internal/samples"
)

// file is the part of a file that the other gateway must not change.
type file struct {
	modified time.Time
	inode    uint64
	content  string
}

// files reads a data-dir: larder's files, or all other files, by path, with exceptions.
func files(t *testing.T, dataDir string, larders bool, but ...string) map[string]file {
	t.Helper()
	out := map[string]file{}
	err := filepath.WalkDir(dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dataDir, path)
		if err != nil {
			return err
		}
		if mine := strings.HasPrefix(name, "larder"+string(filepath.Separator)); mine != larders ||
			slices.Contains(but, name) {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out[name] = file{info.ModTime(), info.Sys().(*syscall.Stat_t).Ino, string(b)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unchanged reports in what two readings of a data-dir differ.
func unchanged(t *testing.T, what string, before, after map[string]file) {
	t.Helper()
	for name, b := range before {
		a, ok := after[name]
		switch {
		case !ok:
			t.Errorf("%s: %s is gone", what, name)
		case a.content != b.content:
			t.Errorf("%s: %s has other bytes", what, name)
		case a.inode != b.inode || !a.modified.Equal(b.modified):
			t.Errorf("%s: %s was rewritten", what, name)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s is new", what, name)
		}
	}
}

// sameAnswer fails the test unless two answers have the same series with the same chunks.
func sameAnswer(t *testing.T, what string, want, got *answer.Answer) {
	t.Helper()
	if len(want.Series) == 0 || len(want.Series) != len(got.Series) {
		t.Errorf("%s: %d series, want %d", what, len(got.Series), len(want.Series))
		return
	}
	for i, w := range want.Series {
		g := got.Series[i]
		same := w.Labels.String() == g.Labels.String() &&
			slices.EqualFunc(w.Chunks, g.Chunks, func(a, b answer.Chunk) bool {
				return a.MinTime == b.MinTime && a.MaxTime == b.MaxTime &&
					bytes.Equal(a.Parts[0].Data, b.Parts[0].Data)
			})
		if !same {
			t.Errorf("%s: series %d, %s, differs from %s", what, i, g.Labels, w.Labels)
			return
		}
	}
}

// turn runs one of the two gateways for one answer.
type turn struct {
	t     *testing.T
	b     gateway.Bucket
	truth samples.Set
	// larder and thanos are the binaries.
	larder, thanos string
}

func (x *turn) ask(addr string) *answer.Answer {
	x.t.Helper()
	c := dial(x.t, addr)
	got, a, err := raw(x.t.Context(), c)
	if err != nil {
		x.t.Fatal(err)
	}
	if d := x.truth.Diff(got); d != "" {
		x.t.Fatalf("the samples differ: %s", d)
	}
	return a
}

func (x *turn) startThanos() *neighbour.Component {
	x.t.Helper()
	c, err := neighbour.StartStore(x.t.Context(), x.thanos, x.b)
	if err != nil {
		x.t.Fatal(err)
	}
	return c
}

func (x *turn) startLarder() *gateway.Larder {
	x.t.Helper()
	l, err := gateway.StartLarder(x.t.Context(), x.larder, x.b)
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

func (x *turn) close(what string, c interface{ Close() error }) {
	x.t.Helper()
	if err := c.Close(); err != nil {
		x.t.Errorf("%s: %v", what, err)
	}
}

// awaitHeaders waits until larder has saved n index headers: it saves them after they are built,
// and a header that is not saved when larder stops is built again.
func (x *turn) awaitHeaders(l *gateway.Larder, data string, n int) {
	x.t.Helper()
	saved := 0
	err := l.Wait(x.t.Context(), func(context.Context) bool {
		found, err := filepath.Glob(filepath.Join(data, "larder", "headers", "*.header"))
		if err != nil {
			x.t.Fatal(err)
		}
		saved = len(found)
		return saved >= n
	})
	if err != nil {
		x.t.Fatalf("larder has saved %d index headers, want %d: %v", saved, n, err)
	}
}

// reach waits until a metric has reached a value.
func (x *turn) reach(l *gateway.Larder, name string, want float64) {
	x.t.Helper()
	last := 0.0
	err := l.Wait(x.t.Context(), func(context.Context) bool {
		last = metric(x.t, l.HTTPAddr, name)
		return last >= want
	})
	if err != nil {
		x.t.Fatalf("%s is %v, want %v: %v", name, last, want, err)
	}
}

// TestRollbackSharesADataDir: an operator switches from thanos store to larder and back, twice, on
// one data-dir, and runs both side by side on it. Neither changes a file of the other, both reuse
// their index headers, and all give the same answers.
func TestRollbackSharesADataDir(t *testing.T) {
	t.Parallel()
	x := &turn{
		t:      t,
		b:      emptyBucket(t),
		truth:  samples.Set{},
		larder: larder(t),
		thanos: programs.Thanos(t),
	}
	data := filepath.Join(x.b.DataDir, "data")
	const h = 60 * 60 * 1000
	from := time.Now().UnixMilli()/day*day - 2*day
	pair := twoClusters()
	blocks := 0
	for _, p := range pair {
		for i := range int64(3) {
			b := p.block(from+i*2*h, from+(i+1)*2*h)
			if _, err := b.Write(t.Context(), x.b.Dir); err != nil {
				t.Fatal(err)
			}
			blocks++
		}
		for i, ls := range p.series {
			for at := from; at < from+6*h; at += step {
				x.truth.Add(p.full(ls), samples.Point{T: at, V: value(i, at)})
			}
		}
	}

	thanos := x.startThanos()
	want := x.ask(thanos.Addr)
	const downloads = "thanos_bucket_store_indexheader_download_duration_seconds_count"
	if n := metric(t, thanos.HTTPAddr, downloads); n != float64(blocks) {
		t.Errorf("thanos store reports %v downloaded index headers of %d blocks", n, blocks)
	}
	x.close("thanos store", thanos)
	theirs := files(t, data, false)
	headers := 0
	for name := range theirs {
		if strings.HasSuffix(name, "/index-header") {
			headers++
		}
	}
	if headers != blocks {
		t.Fatalf("thanos store left %d index headers of %d blocks: %v", headers, blocks, theirs)
	}

	// Switch to larder.
	l := x.startLarder()
	sameAnswer(t, "larder on Thanos's data-dir", want, x.ask(l.Addr))
	x.reach(l, "larder_header_builds_total", float64(blocks))
	x.awaitHeaders(l, data, blocks)
	unchanged(t, "Thanos's files under a running larder", theirs, files(t, data, false))
	x.close("larder", l)
	unchanged(t, "Thanos's files after larder", theirs, files(t, data, false))
	ours := files(t, data, true)
	if len(ours) < blocks {
		t.Fatalf("larder left %d files", len(ours))
	}

	// Switch back to Thanos: it removes folders of blocks that it does not know, and must find its
	// own again.
	thanos = x.startThanos()
	sameAnswer(t, "thanos store after larder", want, x.ask(thanos.Addr))
	if n := metric(t, thanos.HTTPAddr, downloads); n != 0 {
		t.Errorf("thanos store downloaded %v index headers again", n)
	}
	x.close("thanos store", thanos)
	unchanged(t, "larder's files after Thanos", ours, files(t, data, true))
	headersOf := func(all map[string]file) map[string]file {
		out := map[string]file{}
		for name, f := range all {
			if strings.HasSuffix(name, "/index-header") {
				out[name] = f
			}
		}
		return out
	}
	unchanged(
		t, "Thanos's headers after its second start", headersOf(theirs),
		headersOf(files(t, data, false)),
	)

	// Switch to larder again.
	l = x.startLarder()
	sameAnswer(t, "larder's second turn", want, x.ask(l.Addr))
	if n := metric(t, l.HTTPAddr, "larder_header_builds_total"); n != 0 {
		t.Errorf("larder built %v index headers again", n)
	}

	// Both at once.
	thanos = x.startThanos()
	sameAnswer(t, "thanos store beside larder", want, x.ask(thanos.Addr))
	sameAnswer(t, "larder beside thanos store", want, x.ask(l.Addr))
	x.close("larder", l)
	sameAnswer(t, "thanos store after larder has stopped beside it", want, x.ask(thanos.Addr))
	x.close("thanos store", thanos)
	// Files that it writes at every sync, start and end.
	own := []string{"larder/catalog.json", "larder/lock", "larder/warm.snapshot"}
	for _, name := range own {
		delete(ours, name)
	}
	unchanged(t, "larder's files after both", ours, files(t, data, true, own...))
	t.Logf(
		"proved: thanos store and larder used one data-dir in turns and at once: %d and %d files unchanged, no index header built twice, equal answers",
		len(theirs), len(ours),
	)
}
