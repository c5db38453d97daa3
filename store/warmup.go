package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

const (
	// warmRunBytes is how much index a warm-up reads at a time: little, so that it holds little and
	// is soon out of the way.
	warmRunBytes = 256 << 10
	// standBackFor is how long a warm-up that has made way looks away.
	standBackFor = 20 * time.Millisecond
)

// errMakeWay says that requests need the bytes that warming would hold.
var errMakeWay = errors.New("requests come first")

// Busy reports whether it is no time to warm anything: Series requests wait, at the gate or for
// their bytes, or hold half of the allowance.
func (s *Server) Busy() bool { return s.admission.Busy() }

// Warm fills the caches with what a Series request without chunks for these matchers and removed
// labels would find in a block: index pages, and what is derived from them. It is no request: it
// takes no place at the gate, counts in no metric of requests, and holds bytes only while none
// waits for them and half of the allowance is free. While requests wait at the gate it stands
// still.
//
// finished is false, without an error, where it had to make way: then it may be tried again, and
// what was read until then is kept. An error of acct's Spend ends it; that is asked about postings
// after they have been read, for others may have joined in reading them.
func (s *Server) Warm(
	ctx context.Context, meta *catalog.Block, ms []*storepb.LabelMatcher, without []string,
	acct *pagecache.Account,
) (finished bool, err error) {
	budget := s.compiler.Open(ctx)
	defer budget.Close()
	// Without the cache, because its metrics count requests of clients.
	matchers, err := matcher.Parse(nil, budget, ms)
	if err != nil {
		return false, err
	}
	if len(matchers) == 0 {
		return false, errors.New("no matchers")
	}
	err = contained(func() error {
		// A lazy plan that comes to nothing is made eagerly at the next request, and that of a
		// block which is found irregular in another way: those requests' pages are wanted too.
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

// warm is one attempt of Warm. again asks for another one.
func (s *Server) warm(
	ctx context.Context, meta *catalog.Block, matchers []*labels.Matcher, without []string,
	acct *pagecache.Account,
) (finished, again bool, err error) {
	if s.Busy() {
		return false, false, nil
	}
	var held *admission.Turn
	defer func() { held.Close() }()
	// reserve makes it hold n bytes in all.
	reserve := func(n int64) error {
		held.Close()
		var ever bool
		if held, ever = s.admission.TryReserve(n); !ever {
			return fmt.Errorf(
				"warming takes an estimated %d bytes, more than half of the request allowance (--store.request-bytes)",
				n,
			)
		}
		if held == nil {
			return errMakeWay
		}
		return nil
	}
	postings := int64(0)
	// Without Spend: requests may share what planning reads, and its errors.
	var planning pagecache.Account
	plan, err := s.block(meta).Plan(ctx, matchers, block.PlanOptions{
		External: dropLabels(meta.Labels, without), Dropped: without,
		// All of the block, for the caches know no time range; and so that a series set is built
		// that a request would build at its second coming.
		Sets: block.SetsBuilt, Known: true, MinTime: meta.MinTime, MaxTime: meta.MaxTime,
		Account: &planning,
		Reserve: func(n int64) error {
			postings += n
			return reserve(postings)
		},
	})
	touched, fetched := planning.TouchedBytes.Load(), planning.FetchedBytes.Load()
	planning.MoveTo(acct)
	if errors.Is(err, errMakeWay) {
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
	if err := reserve(plan.StreamBytes(warmRunBytes)); errors.Is(err, errMakeWay) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	stream := plan.Stream(ctx, block.StreamOptions{
		MinTime: meta.MinTime, MaxTime: meta.MaxTime,
		SkipChunks: true,
		RunBytes:   warmRunBytes,
		Account:    acct,
		Reserver:   warmReserver{held},
	})
	defer stream.Close()
	for {
		if _, err = stream.Next(); err != nil {
			break
		}
		if ok, err := s.standBack(ctx); !ok || err != nil {
			return false, false, err
		}
	}
	if !errors.Is(err, io.EOF) {
		return false, false, err
	}
	if stream.Stats().Matched == 0 && plan.Lazy() {
		plan.CameToNothing()
		return true, true, nil
	}
	return true, false, nil
}

// warmReserver is the Reserver of a warm-up: requests come first, even for what it needs.
type warmReserver struct{ *admission.Turn }

// Reserve reserves n more bytes if no request waits for bytes.
func (r warmReserver) Reserve(n int64) error {
	if !r.TryReserve(n) {
		return errors.New(
			"no room for its series in the request allowance (--store.request-bytes)")
	}
	return nil
}

// standBack waits while requests wait for a place. It returns false if some wait for bytes, which
// the warm-up must give back.
func (s *Server) standBack(ctx context.Context) (bool, error) {
	for {
		waiting, forBytes := s.admission.Waiting()
		if forBytes || !waiting {
			return !forBytes, nil
		}
		t := time.NewTimer(standBackFor)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		}
	}
}
