package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache/bytecachetest"
	"larder/internal/diskcache"
	"larder/internal/localfs"
	"larder/store/storepb"
)

// TestRestartsReadNothingThatIsOnDisk checks that a process that starts with the data directory of
// another one reads nothing of an index from the bucket, and no chunk page that was used twice.
// memory has pages in the last processes only, and memcached, which is below the disk, is not asked
// for what the disk has.
func TestRestartsReadNothingThatIsOnDisk(t *testing.T) {
	bucket, data := t.TempDir(), t.TempDir()
	if _, err := dataset.WholeMetric("disk", 4, 2000, 30_000).
		Write(context.Background(), bucket, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	regex := wholeMetric(64)
	regex.Matchers = append(regex.Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*[02468]"})
	requests := []*storepb.SeriesRequest{regex, wholeMetric(64)}
	none := gatewayOptions{
		indexBytes: -1, chunkBytes: -1, postingsBytes: -1, setBytes: -1, dataDir: data,
	}
	var want [][]string
	plain := startGateway(t, bucket,
		gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1, setBytes: -1})
	for _, req := range requests {
		a, err := plain.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, a.texts())
	}
	remote := bytecachetest.NewRemote()
	for process := range 4 {
		t.Run(fmt.Sprintf("process %d", process), func(t *testing.T) {
			disk := diskcache.OpenDisk(diskcache.DiskOptions{
				Dir: localfs.At(data, "disk"), Timeout: time.Minute, WriteRate: 1 << 40,
			})
			t.Cleanup(disk.Close)
			opts := none
			if process >= 2 { // memory over the disk over memcached
				opts = gatewayOptions{dataDir: data, remote: remote}
			}
			opts.disk = disk
			g := startGateway(t, bucket, opts)
			buildHeaders(t, g)
			g.bucket.take()
			for i := range 2 * len(requests) {
				i %= len(requests)
				a, err := g.query(context.Background(), requests[i])
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(want[i], a.texts()); diff != "" {
					t.Fatalf("request %d (-without a cache +with a disk):\n%s", i, diff)
				}
			}
			reads, _ := g.bucket.take()
			if some := reads["index"] > 0 && reads["chunks"] > 0; some != (process == 0) ||
				!some && len(reads) > 0 {
				t.Errorf("reads %v of the bucket", reads)
			}
			// Expanded postings are not on the disk, and are asked for one by one.
			if asked := remote.Asked(); len(asked) > 0 && slices.Max(asked) > 1 {
				t.Errorf("memcached was asked for %v values at a time", asked)
			}
		})
	}
}
