package store_test

import (
	"context"
	"io"
	"testing"
	"time"

	"larder/benchmarks/dataset"
	"larder/internal/diskcache"
	"larder/internal/localfs"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

// BenchmarkSeriesTiers answers a panel of 400 scattered series, and 50,000 series at once, from
// each tier: memory, a disk whose files the system has cached, a memcached on this machine, and a
// bucket whose first byte takes 20 ms.
func BenchmarkSeriesTiers(b *testing.B) {
	dir := benchBucket(b, dataset.Bench50k(1))
	panel := wholeMetric(64)
	// Two of 250 pods.
	panel.Matchers = append(
		panel.Matchers,
		&storepb.LabelMatcher{
			Type:  storepb.LabelMatcher_RE,
			Name:  "instance",
			Value: "10\\.32\\.0\\.1[01]:8080",
		},
		&storepb.LabelMatcher{
			Type:  storepb.LabelMatcher_RE,
			Name:  "code",
			Value: "200|302|404|500|503",
		},
	)
	none := gatewayOptions{indexBytes: -1, postingsBytes: -1, setBytes: -1, chunkBytes: -1}
	far := func(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
		<-time.After(20 * time.Millisecond)
		return body, nil
	}
	run := func(name string, g *gateway, ready func()) {
		ask := func(b *testing.B, req *storepb.SeriesRequest) {
			if err := g.Server.Series(req, &sink{ctx: context.Background()}); err != nil {
				b.Fatal(err)
			}
		}
		for _, q := range []struct {
			name string
			req  *storepb.SeriesRequest
		}{{"panel", panel}, {"all", wholeMetric(64)}} {
			b.Run(name+"/"+q.name, func(b *testing.B) {
				for range 3 { // the first fills the tier, the next ones use it
					ask(b, q.req)
					ready()
				}
				g.bucket.take()
				n := 0
				for b.Loop() {
					ask(b, q.req)
					n++
				}
				counts, _ := g.bucket.take()
				b.ReportMetric(float64(counts["index"]+counts["chunks"])/float64(n),
					"bucket-reads/op")
			})
		}
	}
	pages := none
	pages.indexBytes, pages.chunkBytes = 0, 0
	run("memory", startGateway(b, dir, pages), func() {})
	sets := pages
	sets.setBytes, sets.postingsBytes = 0, 0
	run("memory-and-sets", startGateway(b, dir, sets), func() {})

	disk := diskcache.OpenDisk(diskcache.DiskOptions{
		Dir: localfs.At(b.TempDir(), "disk"), WriteRate: 1 << 40,
	})
	b.Cleanup(disk.Close)
	onDisk := none
	onDisk.disk = disk
	run("disk", startGateway(b, dir, onDisk), func() { <-time.After(time.Second) })

	client := newMemcached(b,
		memcachedtest.Start(b, memcachedtest.Options{Args: []string{"-m", "256"}}).Addr,
		10*time.Second)
	remote := none
	remote.remote = client
	run("memcached", startGateway(b, dir, remote), func() { flushed(b, client) })
	remote.setBytes = 75 << 20
	run("memcached-and-sets", startGateway(b, dir, remote), func() { flushed(b, client) })

	g := startGateway(b, dir, none)
	g.bucket.setOnRead(far)
	run("bucket-20ms", g, func() {})
}
