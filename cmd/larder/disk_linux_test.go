package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"larder/benchmarks/dataset"
	"larder/internal/disktest"
	"larder/store/storepb"
)

// diskBucket is a bucket with some small blocks, and one whose header is so large that it is
// written while it is built.
func diskBucket(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, l := range []dataset.Layout{dataset.ManyBlocks("many", 1, 4),
		dataset.ManyValues("values", 2, 20_000)} {
		if _, err := l.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	indexes, err := filepath.Glob(filepath.Join(dir, "*", "index"))
	large := 0
	for _, name := range indexes {
		if st, err := os.Stat(name); err == nil && st.Size() > 1<<20 {
			large++
		}
	}
	if err != nil || len(indexes) != diskBlocks || large != 1 {
		t.Fatalf("%d indexes, %d of them large, %v", len(indexes), large, err)
	}
	return dir
}

const diskBlocks = 5

// answer requests everything and returns a hash of the answer.
func (p *process) answer() (string, error) {
	stream, err := storepb.NewStoreClient(p.rpc).Series(p.t.Context(), &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
		},
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	h, series := sha256.New(), 0
	for err == nil {
		var resp *storepb.SeriesResponse
		if resp, err = stream.Recv(); err == nil && resp.GetSeries() != nil {
			var b []byte
			if b, err = (proto.MarshalOptions{Deterministic: true}).
				Marshal(resp.GetSeries()); err == nil {
				series++
				h.Write(b)
			}
		}
	}
	if err != io.EOF {
		return "", err
	}
	return fmt.Sprintf("%d series %x", series, h.Sum(nil)), nil
}

// same requests everything and compares the answer with the right one.
func (p *process) same(want string) {
	p.t.Helper()
	if got, err := p.answer(); err != nil || got != want {
		p.t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// disk is a bucket, and the answer of a process that keeps nothing on disk.
type disk struct {
	t      *testing.T
	bucket string
	want   string
	args   []string // further flags of the processes that are killed
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{t: t, bucket: diskBucket(t)}
	p := startProcess(t, folder(d.bucket), "--no-cache-index-header", "--drain-delay=0s")
	p.await("readiness changed.*ready=true")
	var err error
	if d.want, err = p.answer(); err != nil || strings.HasPrefix(d.want, "0 ") {
		t.Fatalf("%q, %v", d.want, err)
	}
	p.stop()
	return d
}

// start starts a process on a data directory and waits until it is ready. Log lines from before can
// still be awaited.
func (d *disk) start(data string, args ...string) *process {
	d.t.Helper()
	p := startProcess(
		d.t,
		folder(d.bucket),
		append(args, "--data-dir="+data, "--drain-delay=0s", "--sync-block-duration=100ms")...)
	p.await("readiness changed.*ready=true")
	p.next = 0
	return p
}

// builds returns how many builds of headers the process has begun.
func (p *process) builds() int {
	p.t.Helper()
	return p.counter("larder_header_builds_total")
}

// filesUnder returns the files and folders in a folder, by their path in it, with the content of
// files.
func filesUnder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files[name] = ""
		if !e.IsDir() {
			b, err := os.ReadFile(filepath.Join(dir, name))
			files[name] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// awaitHeaders waits until all headers have their files.
func (d *disk) awaitHeaders(data string) {
	d.t.Helper()
	for n := 0; n < diskBlocks; {
		names, err := filepath.Glob(filepath.Join(data, "larder", "headers", "*.header"))
		if err != nil {
			d.t.Fatal(err)
		}
		if n = len(names); n < diskBlocks {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-d.t.Context().Done():
				d.t.Fatal("there are headers without files")
			}
		}
	}
}

// wantWhole checks that a stopped process has left all its files in the data directory, and nothing
// else.
func (d *disk) wantWhole(data string) {
	d.t.Helper()
	var headers, metas int
	files := filesUnder(d.t, filepath.Join(data, "larder"))
	for name := range files {
		switch {
		case strings.Contains(name, "tmp"):
			d.t.Errorf("left behind: %s", name)
		case strings.HasSuffix(name, ".header"):
			headers++
		case strings.HasPrefix(name, "meta/"):
			metas++
		}
	}
	for _, name := range []string{"lock", "catalog.json", "warm.snapshot"} {
		if _, ok := files[name]; !ok {
			d.t.Errorf("there is no %s", name)
		}
	}
	if headers != diskBlocks || metas != diskBlocks {
		d.t.Errorf("%d headers and %d copies of meta.json, want %d", headers, metas, diskBlocks)
	}
}

// TestDiskIsFull fills the disk before the start or while headers are built. Answers stay right,
// and everything is written once there is space.
func TestDiskIsFull(t *testing.T) {
	d := newDisk(t)
	data := disktest.Tmpfs(t, 4<<20)
	free := disktest.Fill(t, data)
	p := d.start(data)
	p.await(
		"cannot save the catalog|cannot write a copy of meta.json|directory is not usable",
	)
	p.same(d.want)
	for _, name := range []string{"larder_header_local_failures_total",
		"larder_catalog_disk_failures_total"} {
		if p.counter(name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	free()
	p.next = 0
	p.await("catalog is saved again")
	p.next = 0
	p.await("index headers are written to disk again")
	p.next = 0
	p.await("restored copies of meta.json")
	d.awaitHeaders(data)
	p.same(d.want)
	p.stop()
	d.wantWhole(data)

	// Files on disk are used.
	p = d.start(data)
	p.same(d.want)
	if n := p.builds(); n != 0 {
		t.Errorf("%d headers were built again", n)
	}
	// The disk fills up while the process runs and stays full. The process stops normally, without
	// its last snapshot.
	disktest.Fill(t, data)
	p.await("cannot save the catalog")
	p.dashboard()
	p.same(d.want)
	p.stop()
	if log := strings.Join(p.seen, "\n"); !strings.Contains(
		log, "cannot write the warm snapshot",
	) {
		t.Errorf("nothing was said of the snapshot:\n%s", log)
	}
	// The next process starts without free space.
	p = d.start(data)
	p.same(d.want)
	if n := p.builds(); n != 0 {
		t.Errorf("%d headers were built again", n)
	}
	p.stop()

	// There is space for some of the headers.
	data = disktest.Tmpfs(t, 128<<10)
	p = d.start(data)
	p.same(d.want)
	if p.counter("larder_header_local_failures_total") == 0 {
		t.Error("everything has found room")
	}
	p.stop()
}

// TestDiskIsReadOnly checks that files on a read-only disk are used, and that missing ones are
// written later.
func TestDiskIsReadOnly(t *testing.T) {
	d := newDisk(t)
	data := disktest.Tmpfs(t, 64<<20)
	writable := disktest.ReadOnly(t, data)
	p := d.start(data)
	p.await("data directory is not usable, writing nothing to disk until it is.*read-only")
	p.same(d.want)
	if p.counter("larder_data_dir_usable") != 0 {
		t.Error("larder_data_dir_usable is not 0")
	}
	writable()
	p.await("data directory is usable again")
	p.next = 0
	p.await("index headers are written to disk again")
	p.next = 0
	p.await("restored copies of meta.json")
	d.awaitHeaders(data)
	if p.counter("larder_data_dir_usable") != 1 {
		t.Error("larder_data_dir_usable is not 1")
	}
	p.same(d.want)
	p.stop()
	d.wantWhole(data)

	// It becomes read-only while the process runs.
	p = d.start(data)
	disktest.ReadOnly(t, data)
	p.await("cannot save the catalog.*read-only")
	p.same(d.want)
	p.stop()
	before := filesUnder(t, data)

	p = d.start(data)
	p.same(d.want)
	if n := p.builds(); n != 0 {
		t.Errorf("%d headers were built again", n)
	}
	p.stop()
	if after := filesUnder(t, data); len(after) != len(before) {
		t.Errorf("got %d files, want %d", len(after), len(before))
	}
}

// TestDiskIsRemoved removes the directory or its file system while a process runs. The process
// creates and locks it again.
func TestDiskIsRemoved(t *testing.T) {
	d := newDisk(t)
	data := filepath.Join(t.TempDir(), "data")
	p := d.start(data)
	p.same(d.want)
	for _, gone := range []string{filepath.Join(data, "larder"), data} {
		p.next = len(p.seen)
		// The process writes there meanwhile.
		for err := os.RemoveAll(gone); err != nil; err = os.RemoveAll(gone) {
			t.Log(err)
		}
		p.await("restored copies of meta.json")
		p.same(d.want)
		d.refused(data)
	}
	p.stop()
	p = d.start(data)
	p.same(d.want)
	d.awaitHeaders(data)
	p.stop()
	d.wantWhole(data)

	// Unmount the file system. The path is now the folder that it was mounted on.
	data = disktest.Tmpfs(t, 64<<20)
	p = d.start(data)
	p.same(d.want)
	disktest.Vanish(t, data)
	p.next = len(p.seen)
	p.await("restored copies of meta.json")
	p.same(d.want)
	d.refused(data)
	p.stop()
}

// TestDataDirThatCannotBe uses a path at which no directory can be created. The start logs it and
// continues without one.
func TestDataDirThatCannotBe(t *testing.T) {
	d := newDisk(t)
	file := write(t, "file", "not a directory")
	for _, data := range []string{file, "/proc/none"} { // where not even root may write
		p := d.start(data, "--warm.max-time=1s")
		p.await("data directory is not usable.*dir=" + data + "/larder")
		p.same(d.want)
		p.stop()
		if n := strings.Count(strings.Join(p.seen, "\n"), "data directory is not usable"); n != 1 {
			t.Errorf("said %d times", n)
		}
	}
	// The path can be corrected without a restart.
	p := d.start(file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.await("data directory is usable again")
	p.same(d.want)
	p.stop()
}

// refused starts a second process on a data directory that is in use.
func (d *disk) refused(data string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	cmd := larder(
		ctx, nil, "store", "--data-dir="+data, "--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0", "--objstore.config="+folder(d.bucket),
	)
	out, err := cmd.CombinedOutput()
	want := "larder: error: --data-dir " + data + ": in use by another process"
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(string(out), want) ||
		strings.Count(string(out), "\n") != 1 {
		d.t.Errorf(
			"a second process: got %v, %q, want exit code 1 and one line with %q", err, out, want,
		)
	}
}

// TestTwoProcessesOneDataDir checks that a second process fails to start, and that the next one can
// start after the first was killed. Thanos's files in the same --data-dir are unchanged.
func TestTwoProcessesOneDataDir(t *testing.T) {
	d := newDisk(t)
	data := t.TempDir()
	thanos := map[string]string{
		"01JDX0000000000000000000AA/index-header":          "binary",
		"meta-syncer/01JDX0000000000000000000AA/meta.json": "{}",
		"meta-syncer/lock": "", "headers": "", "catalog.json": "of another program",
	}
	for name, content := range thanos {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(data, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := d.start(data)
	d.refused(data)
	p.same(d.want) // the first has noticed nothing
	p.signal(syscall.SIGKILL)
	p.exit()
	p = d.start(data)
	d.refused(data)
	p.same(d.want)
	d.awaitHeaders(data)
	p.stop()
	d.wantWhole(data)
	for name, want := range thanos {
		if got, err := os.ReadFile(filepath.Join(data, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
