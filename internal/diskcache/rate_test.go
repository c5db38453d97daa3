package diskcache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestMovedPagesKeepTheRate: pages that are written again before their segment is removed count as
// written bytes of a second.
func TestMovedPagesKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		d := openDisk(t, t.TempDir(), func(o *DiskOptions) { o.WriteRate = rate })
		c := d.Open(Options{Kind: "index", MaxBytes: 16 << 20})
		defer c.Close()
		fill(t, c, 1, 0, 1800)
		written(c)
		found(t, c, 1, 0, 1800) // all that are there are hot
		bytes, start := testutil.ToFloat64(d.metrics.written), time.Now()
		fill(t, c, 2, 0, 500)
		written(c)
		bytes = testutil.ToFloat64(d.metrics.written) - bytes
		if least := 500 * recordBytes(pageBytes) * 3 / 2; bytes < float64(least) {
			t.Fatalf("%.0f bytes were written: hardly a page was moved", bytes)
		}
		if took := time.Since(start).Seconds(); bytes/took > rate*1.2 {
			t.Errorf("%.0f bytes were written in %.1f s at %d bytes/s", bytes, took, rate)
		}
	})
}
