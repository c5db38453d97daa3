package pagecache

import (
	"sync/atomic"
	"time"
)

// Account adds up what one request read of one kind. It is shared by the
// request's goroutines. The zero value counts without a limit; where a method
// takes an *Account, nil is allowed.
//
// Every page touched is a hit of either tier, coalesced, or fetched; Fetched counts besides
// those the pages that were read only to join others. That a read was repeated is
// the bucket's doing, and counts for nobody.
type Account struct {
	// Spend is asked before any read starts, at most once for a Fetch, with the
	// bytes of the pages touched and the bytes that would be asked of the bucket
	// on this request's behalf. An error ends the Fetch, which returns it wrapped.
	// It may be called from several goroutines at once. Nil: unlimited. Set it
	// before first use.
	Spend func(touched, fetched int64) error

	// Pages and bytes that the spans touched.
	Touched, TouchedBytes atomic.Int64
	// Pages and bytes asked of the bucket on behalf of this request.
	Fetched, FetchedBytes atomic.Int64
	// Pages found in the cache's memory and their bytes.
	Hits, HitBytes atomic.Int64
	// Pages that its remote tier was asked for on behalf of this request and
	// had, and their bytes.
	RemoteHits, RemoteHitBytes atomic.Int64
	// Pages that another request's read of the bucket, or look-up in the remote
	// tier, brought.
	Coalesced atomic.Int64
	// Requests counts the reads of the bucket that this request started.
	Requests atomic.Int64
	// Waited is for how many nanoseconds Fetches waited for pages that were not in the cache, added
	// up over goroutines.
	Waited atomic.Int64
}

// MoveTo adds what a has counted to b, whose reads those were, and leaves nothing in a. Spend is
// not asked.
func (a *Account) MoveTo(b *Account) {
	from, to := a.counts(), b.counts()
	for i, n := range from {
		if v := n.Swap(0); v != 0 {
			to[i].Add(v)
		}
	}
}

func (a *Account) counts() [11]*atomic.Int64 {
	return [...]*atomic.Int64{
		&a.Touched, &a.TouchedBytes, &a.Fetched, &a.FetchedBytes, &a.Hits, &a.HitBytes, &a.RemoteHits, &a.RemoteHitBytes,
		&a.Coalesced, &a.Requests, &a.Waited,
	}
}

func (a *Account) waited(since time.Time) {
	if a != nil {
		a.Waited.Add(int64(time.Since(since)))
	}
}

func (a *Account) spend(touched, fetched int64) error {
	if a == nil || a.Spend == nil {
		return nil
	}
	return a.Spend(touched, fetched)
}

// tally is what one Fetch adds to account and metrics.
type tally struct {
	touched, touchedBytes     int64
	hits, hitBytes            int64
	remoteHits, remoteBytes   int64
	joined                    int64 // pages of look-ups of others, found or not
	coalesced, coalescedBytes int64
	fetched, fetchedBytes     int64
	requests                  int64
}

// record adds a tally. Counters are touched only where something is to be
// added: a Fetch that hits pays for hits.
func (r *Reader) record(t *tally, acct *Account) {
	if acct != nil {
		acct.Touched.Add(t.touched)
		acct.TouchedBytes.Add(t.touchedBytes)
		if t.hits > 0 {
			acct.Hits.Add(t.hits)
			acct.HitBytes.Add(t.hitBytes)
		}
		if t.remoteHits > 0 {
			acct.RemoteHits.Add(t.remoteHits)
			acct.RemoteHitBytes.Add(t.remoteBytes)
		}
		if t.coalesced > 0 {
			acct.Coalesced.Add(t.coalesced)
		}
		if t.requests > 0 {
			acct.Fetched.Add(t.fetched)
			acct.FetchedBytes.Add(t.fetchedBytes)
			acct.Requests.Add(t.requests)
		}
	}
	m := r.metrics
	m.touched.Add(float64(t.touched))
	m.touchedBytes.Add(float64(t.touchedBytes))
	if t.hits > 0 {
		m.hits.Add(float64(t.hits))
		m.hitBytes.Add(float64(t.hitBytes))
	}
	if t.remoteHits > 0 {
		m.remoteHits.Add(float64(t.remoteHits))
		m.remoteHitBytes.Add(float64(t.remoteBytes))
	}
	if t.joined > 0 {
		m.joined.Add(float64(t.joined))
	}
	if t.coalesced > 0 {
		m.coalesced.Add(float64(t.coalesced))
		m.coalescedBytes.Add(float64(t.coalescedBytes))
	}
	if t.requests > 0 {
		m.fetched.Add(float64(t.fetched))
		m.fetchedBytes.Add(float64(t.fetchedBytes))
	}
}
