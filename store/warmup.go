package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

const (
	// warmRunBytes is how many index bytes a warm-up reads at a time. It is small, so that a
	// warm-up reserves little and soon releases it.
	warmRunBytes = 256 << 10
	// pauseFor is how long a warm-up pauses before it checks again whether requests wait.
	pauseFor = 20 * time.Millisecond
)

// errYield ends a warm-up because requests need the bytes.
var errYield = errors.New("requests come first")

// Busy reports whether warming should pause: requests wait for a place or bytes, or have reserved
// half of the allowance.
func (s *Server) Busy() bool { return s.admission.Busy() }

// Warm fills the caches with what a Series request without chunks would read from a block for these
// matchers and removed labels: index pages and what is derived from them. It needs no place and
// counts in no metric of requests. It reserves bytes only while no request waits for them and half
// of the allowance is free. While requests wait for a place it pauses.
//
// finished is false without an error if requests needed the bytes. The caller may retry; the caches
// keep what was read. An error of acct.Spend ends the warm-up. Spend is called for postings only
// after they were read, because requests may share that read and must not get its error.
func (s *Server) Warm(
	ctx context.Context, meta *catalog.Block, ms []*storepb.LabelMatcher, without []string,
	acct *pagecache.Account,
) (finished bool, err error) {
	ctx = slots.Background(ctx)
	budget := s.compiler.Open(ctx)
	defer budget.Close()
	// Do not use the matcher cache, because its metrics count requests of clients.
	matchers, err := matcher.Parse(nil, budget, ms)
	if err != nil {
		return false, err
	}
	if len(matchers) == 0 {
		return false, errors.New("no matchers")
	}
	err = contained(func() error {
		// A block is planned eagerly after a lazy plan matched nothing, and in another way after it
		// was found irregular. The next request will read the pages of that plan, therefore warm
		// them too.
		for range 3 {
			var again bool
			var err error
			if finished, again, err = s.warm(ctx, meta, matchers, without, acct); !again &&
				!irregular(err) {
				return err
			}
		}
		return nil
	})()
	return finished && err == nil, err
}

// warm makes one attempt of Warm. again is true if another attempt would read other pages.
func (s *Server) warm(
	ctx context.Context, meta *catalog.Block, matchers []*labels.Matcher, without []string,
	acct *pagecache.Account,
) (finished, again bool, err error) {
	if s.Busy() {
		return false, false, nil
	}
	var turn *admission.Turn
	defer func() { turn.Close() }()
	// reserve replaces the turn by one of n bytes.
	reserve := func(n int64) error {
		turn.Close()
		var ever bool
		if turn, ever = s.admission.TryReserve(n); !ever {
			return fmt.Errorf("warming needs an estimated %d bytes, "+
				"more than half of the request allowance (--store.request-bytes)", n)
		}
		if turn == nil {
			return errYield
		}
		return nil
	}
	postings := int64(0)
	// An account without Spend, because requests may share the reads of planning and their errors.
	var planning pagecache.Account
	plan, err := s.block(meta).Plan(ctx, matchers, block.PlanOptions{
		External: dropLabels(meta.Labels, without), Dropped: without,
		// The whole time range, because caches are not by time. Known makes the plan build a series
		// set at once; a request would build it when it is repeated.
		Sets: block.BuildSets, Known: true, MinTime: meta.MinTime, MaxTime: meta.MaxTime,
		Account: &planning,
		Reserve: func(n int64) error {
			postings += n
			return reserve(postings)
		},
	})
	touched, fetched := planning.TouchedBytes.Load(), planning.FetchedBytes.Load()
	planning.MoveTo(acct)
	if errors.Is(err, errYield) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer plan.Close()
	if acct.Spend != nil {
		if err := acct.Spend(touched, fetched); err != nil {
			return false, false, err
		}
	}
	if plan.Postings() == 0 {
		return true, false, nil
	}
	opts := block.StreamOptions{
		MinTime: meta.MinTime, MaxTime: meta.MaxTime,
		SkipChunks: true,
		RunBytes:   warmRunBytes,
		Account:    acct,
		Reserver:   warmReserver{turn},
	}
	if err := reserve(plan.StreamBytes(opts)); errors.Is(err, errYield) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	stream := plan.Stream(ctx, opts)
	defer stream.Close()
	for {
		if _, err = stream.Next(); err != nil {
			break
		}
		if ok, err := s.pause(ctx); !ok || err != nil {
			return false, false, err
		}
	}
	if !errors.Is(err, io.EOF) {
		return false, false, err
	}
	if stream.Stats().Matched == 0 && plan.Lazy() {
		plan.NoteNoSeries()
		return true, true, nil
	}
	return true, false, nil
}

// WarmPages reads pages of a file of a block into the caches. File 0 is its index, the others are
// its chunk files. It reserves the bytes of the spans as Warm does, and finished means the same.
// The caller passes few bytes at a time.
func (s *Server) WarmPages(
	ctx context.Context, meta *catalog.Block, file int, spans []pagecache.Span,
	how pagecache.Warming, acct *pagecache.Account,
) (finished bool, err error) {
	if s.Busy() {
		return false, nil
	}
	n := int64(0)
	for _, span := range spans {
		n += span.End - span.Off
	}
	turn, ever := s.admission.TryReserve(n)
	switch {
	case !ever:
		return false, fmt.Errorf("warming needs %d bytes, more than half of the request allowance "+
			"(--store.request-bytes)", n)
	case turn == nil:
		return false, nil
	}
	defer turn.Close()
	err = contained(func() error {
		return s.block(meta).WarmPages(slots.Background(ctx), file, spans, how, acct)
	})()
	return err == nil, err
}

// warmReserver is the Reserver of a warm-up. It fails if requests wait for bytes.
type warmReserver struct{ *admission.Turn }

// Reserve reserves n more bytes if no request waits for bytes.
func (r warmReserver) Reserve(n int64) error {
	if !r.TryReserve(n) {
		return errors.New("the request allowance (--store.request-bytes) has no bytes for the series")
	}
	return nil
}

// pause waits while requests wait for a place. It returns false if one waits for bytes. The warm-up
// must then release its own.
func (s *Server) pause(ctx context.Context) (bool, error) {
	for {
		waiting, forBytes := s.admission.Waiting()
		if forBytes || !waiting {
			return !forBytes, nil
		}
		t := time.NewTimer(pauseFor)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		}
	}
}
