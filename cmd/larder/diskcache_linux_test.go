package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDiskCacheFails makes system calls on the disk cache slow or fail while a process runs,
// including its start. Its answers stay right. The next process has a disk that is well: it uses
// what the former one left, and finds nothing damaged.
func TestDiskCacheFails(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	d.args = []string{"--disk-cache-size=40MB"}
	full := t.TempDir() // of a process that had no faults
	p := d.start(full, d.args...)
	p.same(d.want)
	p.same(d.want)
	p.stop()
	type fault struct {
		inject string
		full   bool   // the process begins with what another one has written
		off    string // why the disk is turned off; "": it need not be
	}
	faults := []fault{
		// strace counts the calls of each thread. The first three are the loader's.
		{"pread64:error=EIO:when=4+", true, ""},
		{"pwrite64:error=EIO", false, "write_errors"},
		{"pwrite64:error=ENOSPC:when=2+", false, "full"},
		{"ftruncate:error=EROFS", false, "read_only"},
		{"statfs:error=EIO", true, "write_errors"},
		{"flock:error=ENOLCK", false, ""},
	}
	if long() {
		faults = append(faults,
			fault{"pread64:error=EIO:when=4+3", true, ""},
			fault{"pwrite64:error=EIO:when=3+4", false, "write_errors"},
			fault{"fsync:error=EIO", false, ""},
			fault{"pread64,pwrite64,fsync,ftruncate,statfs:delay_enter=30000", true, ""},
		)
	}
	for _, f := range faults {
		t.Run(strings.NewReplacer(",", "+", ":", " ").Replace(f.inject), func(t *testing.T) {
			d := &disk{t: t, bucket: d.bucket, want: d.want, args: d.args}
			data := t.TempDir()
			if f.full {
				if err := os.CopyFS(data, os.DirFS(full)); err != nil {
					t.Fatal(err)
				}
			}
			p := d.inject(data, f.inject)
			p.listens()
			p.await("readiness changed.*ready=true")
			for range 3 {
				p.same(d.want)
			}
			if f.off != "" {
				p.next = 0 // it may have happened at the start
				p.await("disk cache is off until the disk is well.*reason=" + f.off)
			}
			p.stop()
			for process := range 2 {
				p = d.start(data, d.args...)
				p.same(d.want)
				p.same(d.want)
				if n := p.counter("larder_disk_cache_corrupt_values_total"); n > 0 {
					t.Errorf("%d values did not verify", n)
				}
				if n := p.indexReads(); n > 0 && process > 0 {
					t.Errorf("%d reads of indexes after a restart", n)
				}
				p.stop()
			}
		})
	}
}

// TestDiskCacheSaysWhatItHas: a process with an empty disk cache logs that it starts cold. With the
// volume of an earlier process, it logs how much that left.
func TestDiskCacheSaysWhatItHas(t *testing.T) {
	t.Parallel()
	const cold, warm = "disk cache is empty and starts cold",
		`disk cache starts with pages of an earlier process" pages=[1-9]\d* bytes=[1-9]`
	d := newDisk(t)
	data, size := t.TempDir(), "--disk-cache-size=40MB"
	start := func(want, other string, args ...string) {
		t.Helper()
		p := d.start(data, args...)
		if want != "" {
			p.await(want)
		}
		p.same(d.want)
		p.stop()
		if log := strings.Join(p.seen, "\n"); regexp.MustCompile(other).MatchString(log) {
			t.Errorf("%q: the log has %q:\n%s", args, other, log)
		}
	}
	start("", "disk cache")
	start(cold, warm, size)
	start(warm, cold, size)
	if err := os.RemoveAll(filepath.Join(data, "larder", "disk")); err != nil {
		t.Fatal(err)
	}
	start(cold, warm, size)
}

// TestDiskCacheKilledAtAnyWrite: a process is killed as it writes to its disk cache, at each write
// for LARDER_LONG. The next process answers right, and the one after that, which follows a clean
// stop, reads nothing of an index from the bucket.
func TestDiskCacheKilledAtAnyWrite(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	d.args = []string{"--disk-cache-size=40MB"}
	step, kills := 3, 0
	if long() {
		step = 1
	}
	for n := 1; ; n += step {
		data := filepath.Join(t.TempDir(), "data")
		if !d.killedAt(data, "pwrite64", n) {
			break
		}
		kills++
		p := d.start(data, d.args...)
		p.same(d.want)
		p.same(d.want)
		if n := p.counter("larder_disk_cache_corrupt_values_total"); n > 0 {
			t.Errorf("%d values did not verify", n)
		}
		p.stop()
		p = d.start(data, d.args...)
		p.same(d.want)
		if n := p.indexReads(); n > 0 {
			t.Errorf("%d reads of indexes after a restart", n)
		}
		p.stop()
		if t.Failed() {
			t.Fatalf("killed at write %d", n)
		}
	}
	t.Logf("killed %d times", kills)
	if kills == 0 {
		t.Error("no process was killed")
	}
}
