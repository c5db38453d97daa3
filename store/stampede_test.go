package store_test

import (
	"context"
	"io"
	"maps"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// heldBucket blocks all reads of the bucket until release is called.
type heldBucket struct {
	mu   sync.Mutex
	held []chan struct{}
}

func (h *heldBucket) onRead(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
	c := make(chan struct{})
	h.mu.Lock()
	h.held = append(h.held, c)
	h.mu.Unlock()
	<-c
	return body, nil
}

// release unblocks the reads that are blocked now. It returns false if there were none.
func (h *heldBucket) release() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.held {
		close(c)
	}
	some := len(h.held) > 0
	h.held = nil
	return some
}

// TestStampede checks that fifty identical cold requests read as much of the bucket as one request.
// Each read stays blocked until all other requests wait, so that the result does not depend on
// timing.
func TestStampede(t *testing.T) {
	const series = 3000
	dir := t.TempDir()
	metas, err := dataset.WholeMetric("stampede", 4, series, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	regex := wholeMetric(64)
	regex.Matchers = append(regex.Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*[02468]"})
	part := wholeMetric(64)
	part.MaxTime = (metas[0].MinTime + metas[0].MaxTime) / 2
	// run sends n requests at once. It returns the reads by kind, and the size of each answer.
	run := func(
		t *testing.T, opts gatewayOptions, req *storepb.SeriesRequest, n int,
	) (reads map[string]int, bytes map[string]int64, answers []int64) {
		synctest.Test(t, func(t *testing.T) {
			g := startGateway(t, dir, opts)
			var held heldBucket
			g.bucket.setOnRead(held.onRead)
			g.bucket.take()
			var wg sync.WaitGroup
			sinks := make([]sink, n)
			for i := range n {
				sinks[i].ctx = t.Context()
				wg.Go(func() {
					if err := g.Server.Series(req, &sinks[i]); err != nil {
						t.Error(err)
					}
				})
			}
			for synctest.Wait(); held.release(); synctest.Wait() {
			}
			wg.Wait()
			reads, bytes = g.bucket.take()
			for i := range sinks {
				answers = append(answers, sinks[i].bytes)
			}
		})
		return maps.Clone(reads), maps.Clone(bytes), answers
	}
	f := func(name string, opts gatewayOptions, req *storepb.SeriesRequest) {
		t.Run(name, func(t *testing.T) {
			wantReads, wantBytes, want := run(t, opts, req, 1)
			reads, bytes, got := run(t, opts, req, 50)
			t.Logf("reads %v, bytes %v", reads, bytes)
			if wantReads["index"] < 3 || wantReads["chunks"] < 1 || want[0] == 0 {
				t.Fatalf("one request makes %v reads for %d bytes: the test tests nothing",
					wantReads, want[0])
			}
			if diff := cmp.Diff(wantReads, reads); diff != "" {
				t.Errorf("reads of the bucket, of one request and of fifty (-one +fifty):\n%s",
					diff)
			}
			if diff := cmp.Diff(wantBytes, bytes); diff != "" {
				t.Errorf("bytes (-one +fifty):\n%s", diff)
			}
			for i, n := range got {
				if n != want[0] {
					t.Errorf("answer %d has %d bytes, alone it has %d", i, n, want[0])
				}
			}
		})
	}
	f("whole", gatewayOptions{}, wholeMetric(64))
	f("regex", gatewayOptions{}, regex)
	f("part of the time", gatewayOptions{}, part)
	f("without a memory tier", gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1},
		regex)
}
