package store_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"larder/benchmarks/dataset"
	"larder/store"
	"larder/store/admission"
	"larder/store/storepb"
)

// slowBucket delays all reads of the bucket by a first byte of 20 ms and 80 MB/s, and notes those
// of chunk files.
type slowBucket struct {
	mu      sync.Mutex
	running int
	most    int                    // chunk reads at once
	starts  map[time.Duration]bool // when chunk reads began
	began   time.Time
}

func (b *slowBucket) onRead(
	name string, _, length int64, body io.ReadCloser,
) (io.ReadCloser, error) {
	if strings.Contains(name, "/chunks/") {
		b.mu.Lock()
		b.running++
		b.most = max(b.most, b.running)
		b.starts[time.Since(b.began)] = true
		b.mu.Unlock()
		defer func() {
			b.mu.Lock()
			b.running--
			b.mu.Unlock()
		}()
	}
	time.Sleep(20*time.Millisecond + time.Duration(length)*time.Second/80e6)
	return body, nil
}

// timedSink notes when the first frame comes.
type timedSink struct {
	sink
	began time.Time
	first time.Duration
}

func (s *timedSink) SendMsg(m any) error {
	if s.first == 0 {
		s.first = time.Since(s.began)
	}
	return s.sink.SendMsg(m)
}

// TestWindowsInFlight counts the chunk reads of cold answers in virtual time. A small answer reads
// all chunks at once. A large one begins with a small window and then has several in flight.
// Without memory for look-ahead there is one at a time. The answer is the same.
func TestWindowsInFlight(t *testing.T) {
	dir := t.TempDir()
	layout := dataset.WholeMetric("windows", 5, 32_000, 30_000)
	if _, err := layout.Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	run := func(
		t *testing.T, bytes int64, ms ...*storepb.LabelMatcher,
	) (b *slowBucket, s *timedSink, whole time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			g := startGateway(t, dir, gatewayOptions{server: func(o *store.Options) {
				o.Allowance = admission.AllowanceOptions{Bytes: bytes}
			}})
			req := wholeMetric(64)
			req.Matchers = append(req.Matchers, ms...)
			b = &slowBucket{starts: map[time.Duration]bool{}}
			g.bucket.setOnRead(b.onRead)
			// The header is not what is measured.
			warm := wholeMetric(64)
			warm.SkipChunks, warm.Matchers[0].Value = true, "none"
			if err := g.Server.Series(warm, &sink{ctx: t.Context()}); err != nil {
				t.Fatal(err)
			}
			b.began = time.Now()
			s = &timedSink{sink: sink{ctx: t.Context()}, began: b.began}
			if err := g.Server.Series(req, s); err != nil {
				t.Fatal(err)
			}
			whole = time.Since(b.began)
		})
		t.Logf("%d chunk reads at once, %d starts, %d bytes, first frame after %s, all after %s",
			b.most, len(b.starts), s.bytes, s.first, whole)
		return b, s, whole
	}
	small, _, _ := run(t, 1<<30, &storepb.LabelMatcher{Name: "code", Value: "200"})
	if len(small.starts) != 1 {
		t.Errorf("chunk reads of a small answer began at %v", small.starts)
	}
	large, s, whole := run(t, 1<<30)
	if large.most < 3 || large.most > 8 {
		t.Errorf("%d windows were in flight, want 3 to 8", large.most)
	}
	if s.first > 85*time.Millisecond || whole < s.first {
		t.Errorf("first frame after %s of %s", s.first, whole)
	}
	few, alone, slow := run(t, 8<<20)
	if few.most > 2 {
		t.Errorf("%d windows were in flight without memory for them", few.most)
	}
	if alone.bytes != s.bytes || slow < whole {
		t.Errorf("without memory for look-ahead: %d bytes after %s, otherwise %d after %s",
			alone.bytes, slow, s.bytes, whole)
	}
}
