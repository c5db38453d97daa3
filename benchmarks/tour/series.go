package tour

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

// series sends a Series request and reads the answer to its end, like a Querier.
func (t *Tour) series(ctx context.Context, req *storepb.SeriesRequest) (a Answer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	defer func() { a.Total = time.Since(start) }()

	stream, err := t.store.Series(ctx, req)
	if err != nil {
		a.Err = err
		return a
	}
	v := verifier{req: req}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			a.Series, a.Chunks, a.Samples = v.series, v.chunks, v.samples
			return a
		}
		if err != nil {
			a.Err = err
			return a
		}
		if a.Frames == 0 {
			a.FirstFrame = time.Since(start)
		}
		a.Frames++
		a.Bytes += proto.Size(resp)
		batch := resp.GetBatch().GetSeries()
		if s := resp.GetSeries(); s != nil {
			batch = []*storepb.Series{s}
		}
		for _, s := range batch {
			if a.Err = v.next(s); a.Err != nil {
				return a
			}
		}
		if w := resp.GetWarning(); w != "" {
			a.Err = fmt.Errorf("warning: %s", w)
			return a
		}
	}
}

// verifier checks an answer for what a Querier relies on.
type verifier struct {
	req                     *storepb.SeriesRequest
	last                    []*storepb.Label
	series, chunks, samples int
}

func (v *verifier) next(s *storepb.Series) error {
	order := -1
	if v.series > 0 {
		order = compare(v.last, s.Labels)
	}
	if order > 0 {
		return fmt.Errorf("series %v after %v", s.Labels, v.last)
	}
	if order < 0 { // otherwise the last series continues
		v.series++
	}
	v.last = s.Labels
	for i := 1; i < len(s.Labels); i++ {
		if s.Labels[i-1].Name >= s.Labels[i].Name {
			return fmt.Errorf("labels of a series are not sorted: %v", s.Labels)
		}
	}
	for _, c := range s.Chunks {
		if c.MaxTime < v.req.MinTime || c.MinTime > v.req.MaxTime {
			return fmt.Errorf("chunk [%d, %d] of %v is outside of the requested range", c.MinTime,
				c.MaxTime, s.Labels)
		}
		v.chunks++
		first := true
		for _, part := range []*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
			if part == nil || len(part.Data) == 0 {
				continue
			}
			if sum := xxhash.Sum64(part.Data); sum != part.Hash {
				return fmt.Errorf("chunk [%d, %d] of %v has hash %016x, its data %016x", c.MinTime,
					c.MaxTime, s.Labels, part.Hash, sum)
			}
			if first && len(part.Data) >= 2 {
				first = false
				v.samples += int(binary.BigEndian.Uint16(part.Data))
			}
		}
	}
	return nil
}

// compare orders label sets the same way as Prometheus.
func compare(a, b []*storepb.Label) int {
	for i := range min(len(a), len(b)) {
		if a[i].Name != b[i].Name {
			if a[i].Name < b[i].Name {
				return -1
			}
			return 1
		}
		if a[i].Value != b[i].Value {
			if a[i].Value < b[i].Value {
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}
