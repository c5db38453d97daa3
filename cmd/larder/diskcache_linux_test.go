package main

import (
	"path/filepath"
	"testing"
)

// TestDiskCacheKilledAtAnyWrite: a process is killed as it writes to its disk cache, at each write
// for LARDER_LONG. The next process answers right, and the one after that, which follows a clean
// stop, reads nothing of an index from the bucket.
func TestDiskCacheKilledAtAnyWrite(t *testing.T) {
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
