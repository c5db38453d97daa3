package pagecache

import (
	"sync/atomic"
	"time"

	"larder/internal/bucket/cost"
	"larder/internal/bytecache"
)

// Account adds up what one request reads of one kind. The request's goroutines share it. The zero
// value counts without a limit. Methods with a parameter *Account accept nil.
//
// Every touched page is a hit of either tier, coalesced, or fetched. Fetched also counts the pages
// in gaps between needed ones. Repeated reads are not charged, because the bucket caused them.
type Account struct {
	// Spend is called before any read starts, at most once for a Fetch, with the bytes of the
	// touched pages and the bytes that this request is about to request from the bucket. Fetch
	// returns its error wrapped. It may be called concurrently. Default nil: no limit. Set it
	// before first use.
	Spend func(touched, fetched int64) error

	// Beside is in how many sets the request reads side by side, such as blocks whose answers it
	// unites: see cost.Model.Beside. Default 1. Set it before first use.
	Beside int

	// LastPart says that no reads follow those of the Fetch, and is the length of their parts in
	// bytes: see cost.Model.Last. Default 0: others follow. Set it before first use.
	LastPart int64

	// Whole is the account of which this one is a part: all counts are added to it as well. Its
	// Spend is not called. Default nil. Set it before first use.
	Whole *Account

	// Touched and TouchedBytes are the pages that the spans lie in, and their bytes.
	Touched, TouchedBytes atomic.Int64
	// Fetched and FetchedBytes are the pages requested from the bucket for this request, and their
	// bytes.
	Fetched, FetchedBytes atomic.Int64
	// Hits and HitBytes are the pages found in the cache's memory, and their bytes.
	Hits, HitBytes atomic.Int64
	// RemoteHits and RemoteHitBytes are the pages that the tiers below memory were asked for by
	// this request and had, and their bytes.
	RemoteHits, RemoteHitBytes atomic.Int64
	// DiskHits is the number of RemoteHits that the disk had.
	DiskHits atomic.Int64
	// Coalesced is the number of pages from another request's read of the bucket or look-up in the
	// remote tier.
	Coalesced atomic.Int64
	// Requests is the number of reads of the bucket that this request started.
	Requests atomic.Int64
	// Waited is the time in nanoseconds that Fetches waited for pages, summed over goroutines.
	Waited atomic.Int64
}

// Missed reports whether some pages were not in memory.
func (a *Account) Missed() bool {
	return a.Requests.Load() > 0 || a.Coalesced.Load() > 0 || a.RemoteHits.Load() > 0
}

// MoveTo moves the counts of a to b, which is not its Whole. It does not call Spend.
func (a *Account) MoveTo(b *Account) {
	from := a.counts()
	for i, n := range from {
		v := n.Swap(0)
		for to := b; to != nil && v != 0; to = to.Whole {
			to.counts()[i].Add(v)
		}
	}
}

func (a *Account) counts() [12]*atomic.Int64 {
	return [...]*atomic.Int64{
		&a.Touched, &a.TouchedBytes, &a.Fetched, &a.FetchedBytes, &a.Hits, &a.HitBytes,
		&a.RemoteHits, &a.RemoteHitBytes, &a.DiskHits, &a.Coalesced, &a.Requests, &a.Waited,
	}
}

// model returns what the reads of the account cost.
func (a *Account) model(m *cost.Meter) cost.Model {
	model := m.Model()
	if a == nil {
		return model
	}
	return model.Last(a.LastPart).Beside(a.Beside)
}

func (a *Account) waited(since time.Time) {
	if a == nil {
		return
	}
	d := int64(time.Since(since))
	for ; a != nil; a = a.Whole {
		a.Waited.Add(d)
	}
}

func (a *Account) spend(touched, fetched int64) error {
	if a == nil || a.Spend == nil {
		return nil
	}
	return a.Spend(touched, fetched)
}

// tally has the counts of one Fetch.
type tally struct {
	touched, touchedBytes     int64
	hits, hitBytes            int64
	remoteHits, remoteBytes   int64 // on the disk and in memcached
	diskHits, diskBytes       int64 // of these
	joined                    int64 // pages in look-ups of others, found or not
	coalesced, coalescedBytes int64
	fetched, fetchedBytes     int64
	requests                  int64
}

// foundBy adds pages with so many bytes that a Fetch of the cache found, which are found and
// perhaps more.
func (t *tally) foundBy(found bytecache.Found, pages, bytes int64) {
	memory, memoryBytes := min(found.MemoryItems, pages), min(found.MemoryBytes, bytes)
	t.hits += memory
	t.hitBytes += memoryBytes
	pages, bytes = pages-memory, bytes-memoryBytes
	t.remoteHits += pages
	t.remoteBytes += bytes
	t.diskHits += min(found.DiskItems, pages)
	t.diskBytes += min(found.DiskBytes, bytes)
}

// record adds a tally to the account and the metrics. Zeros are skipped to keep hits cheap.
func (r *Reader) record(t *tally, acct *Account) {
	for ; acct != nil; acct = acct.Whole {
		acct.Touched.Add(t.touched)
		acct.TouchedBytes.Add(t.touchedBytes)
		if t.hits > 0 {
			acct.Hits.Add(t.hits)
			acct.HitBytes.Add(t.hitBytes)
		}
		if t.remoteHits > 0 {
			acct.RemoteHits.Add(t.remoteHits)
			acct.RemoteHitBytes.Add(t.remoteBytes)
			acct.DiskHits.Add(t.diskHits)
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
		m.diskHits.Add(float64(t.diskHits))
		m.diskHitBytes.Add(float64(t.diskBytes))
		m.remoteHits.Add(float64(t.remoteHits - t.diskHits))
		m.remoteHitBytes.Add(float64(t.remoteBytes - t.diskBytes))
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
