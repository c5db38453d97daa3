package config

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/alecthomas/units"

	"larder/internal/memcached"
)

// Memory divides the memory of the process. Flags and documents fill the Amounts, then Fit computes
// the other fields.
type Memory struct {
	// Total covers all caches, Index those of the index side, and Postings, Series and Chunks one
	// cache each. They are nested: the amount of a part takes precedence over that of the whole.
	Total, Index, Postings, Series, Chunks Amount
	// Off marks the kinds that are not cached in memory.
	Off [Kinds]bool
	// Page is the size of a page by kind. It is zero for kinds without pages.
	Page [Kinds]Amount
	// IndexWrites and ChunkWrites bound the values that wait to be written to memcached. They are
	// nil without memcached.
	IndexWrites, ChunkWrites *Amount
	Requests                 Amount
	// Disk is bytes of the local disk, and the memory that they need.
	Disk Disk

	// CacheBytes is the limit of each cache. Fit sets it and all fields below, in bytes.
	CacheBytes [Kinds]int64
	// Headers is for open index headers and Builds for headers that are being built.
	Headers, Builds int64
	// InFlight is for running reads of the bucket, once for index pages and once for chunk pages.
	InFlight int64
	// Documents is for documents of the catalog while they are read and decoded.
	Documents int64

	// sizedBy names what changes the limit of a cache. It is empty for a cache that is off or 0.
	sizedBy [Kinds]string
}

// Amount is a number of bytes for one purpose.
type Amount struct {
	Bytes int64
	// Given reports that the user set Bytes. Otherwise Bytes is a default.
	Given bool
	// From names the flag, or the flag and the key of its document, that changes Bytes.
	From string
}

func (a *Amount) String() string { return a.From + " " + sizeText(a.Bytes) }

const (
	defaultIndexCache = 250 << 20
	// defaultSeriesSets is the part of defaultIndexCache for series sets. It applies if they are
	// the only kind of the index side in memory.
	defaultSeriesSets   = 75 << 20
	defaultChunkCache   = 512 << 20
	defaultHeaderBlocks = 64 << 20
	defaultRequests     = 1 << 30
	// defaultWrites is for values that wait to be written to one memcached.
	defaultWrites = memcached.DefaultMaxAsyncBufferBytes
	// minRequests is what one request of ordinary size needs to make progress.
	minRequests = 16 << 20
)

// Fit fills in defaults for a memory limit (0 = none) and divides the memory among its users.
//
// INVARIANT: with a limit, the caches, the writes to memcached, the disk and the requests leave a
// quarter of it free. That quarter is for headers, reads in flight, the catalog and the slack of
// the garbage collector.
//
// Fit scales defaults down to fit, and then returns scaled. It never changes an amount that the
// user gave. It returns an error if those amounts are too much, because the kernel would otherwise
// end the process later.
func (m *Memory) Fit(limit int64) (scaled bool, err error) {
	m.Headers, m.Builds, m.InFlight, m.Documents = 256<<20, 64<<20, 256<<20, 96<<20
	if limit > 0 {
		m.Headers = min(m.Headers, limit/16)
		m.Builds = min(m.Builds, limit/32)
		m.InFlight = min(m.InFlight, limit/32)
		m.Documents = min(m.Documents, limit/32)
	}
	m.defaults(limit)
	if err := m.fitDisk(limit); err != nil {
		return false, err
	}
	claims, divisions, err := m.claims()
	if err != nil {
		return false, err
	}
	if limit > 0 {
		if scaled, err = m.shrink(claims, limit); err != nil {
			return false, err
		}
	}
	for _, d := range divisions {
		if d.of.Bytes > 0 { // otherwise the user asked for no cache
			for _, k := range d.to {
				m.sizedBy[k] = d.of.From
			}
		}
		d.divide(m.minBytes, &m.CacheBytes)
	}
	return scaled, nil
}

// defaults fills in the amounts that the user did not give.
func (m *Memory) defaults(limit int64) {
	part := func(a *Amount, fixed, ofLimit int64) {
		if a == nil || a.Given {
			return
		}
		if a.Bytes = fixed; limit > 0 {
			a.Bytes = ofLimit
		}
	}
	part(&m.Chunks, defaultChunkCache, limit/5)
	part(&m.Requests, defaultRequests, limit/4)
	part(m.IndexWrites, defaultWrites, min(defaultWrites, limit/32))
	part(m.ChunkWrites, defaultWrites, min(defaultWrites, limit/32))
	if m.Index.Given {
		return
	}
	if m.Index.Bytes = defaultIndexCache; m.Off[IndexPages] && m.Off[ExpandedPostings] {
		m.Index.Bytes = defaultSeriesSets
	}
}

// claims returns the amounts that must fit into the limit together, Requests last. It also returns
// how the claims of several caches are divided among them.
func (m *Memory) claims() (claims []*Amount, divisions []division, err error) {
	claim := func(a *Amount) { claims = append(claims, a) }
	indexOwn, indexKinds := m.own(IndexPages, ExpandedPostings, SeriesSets)
	chunkOwn, chunkKinds := m.own(ChunkPages)
	if (m.Index.Given || len(indexKinds) > 0 && !m.Total.Given) && sum(indexOwn) > m.Index.Bytes {
		return nil, nil, partsTooLarge(&m.Index, indexOwn)
	}
	if m.Index.Given {
		divisions = append(divisions, division{of: &m.Index, less: sum(indexOwn), to: indexKinds})
		indexOwn, indexKinds = []*Amount{&m.Index}, nil
	}
	if m.Total.Given {
		inside := slices.Concat(indexOwn, chunkOwn)
		if sum(inside) > m.Total.Bytes {
			return nil, nil, partsTooLarge(&m.Total, inside)
		}
		divisions = append(divisions, division{
			of: &m.Total, less: sum(inside),
			to: slices.Concat(indexKinds, chunkKinds, []Kind{HeaderBlocks}),
		})
		claim(&m.Total)
	} else {
		claims = append(claims, slices.Concat(indexOwn, chunkOwn)...)
		rest := func(bytes int64, from string, to []Kind) {
			if len(to) > 0 {
				a := &Amount{Bytes: bytes, From: from}
				claim(a)
				divisions = append(divisions, division{of: a, to: to})
			}
		}
		rest(m.Index.Bytes-sum(indexOwn), m.Index.From, indexKinds)
		rest(m.Chunks.Bytes, m.Chunks.From, chunkKinds)
		rest(min(defaultHeaderBlocks, m.Headers/2), m.Total.From, []Kind{HeaderBlocks})
	}
	for _, writes := range []*Amount{m.IndexWrites, m.ChunkWrites} {
		if writes != nil {
			claim(writes)
		}
	}
	if m.Disk.Memory.Bytes > 0 {
		claim(&m.Disk.Memory)
	}
	claim(&m.Requests)
	return claims, divisions, nil
}

// own splits kinds into those for which the user gave an amount and those without one. It sets the
// cache limits of the former.
func (m *Memory) own(of ...Kind) (amounts []*Amount, without []Kind) {
	given := map[Kind]*Amount{
		ExpandedPostings: &m.Postings, SeriesSets: &m.Series, ChunkPages: &m.Chunks,
	}
	for _, k := range of {
		switch a := given[k]; {
		case m.Off[k]:
		case a != nil && a.Given:
			amounts = append(amounts, a)
			if m.CacheBytes[k] = a.Bytes; a.Bytes > 0 {
				m.sizedBy[k] = a.From
			}
		default:
			without = append(without, k)
		}
	}
	return amounts, without
}

// shrink scales down the defaults among claims until all claims fit into three quarters of the
// limit. Documents come out of those three quarters if the defaults can spare them.
func (m *Memory) shrink(claims []*Amount, limit int64) (scaled bool, err error) {
	available := limit - limit/4
	least := max(min(minRequests, limit/4), 1)
	fixed, flexible := shares(claims)
	available = max(available-m.Documents, min(available, fixed+least))
	if add(fixed, flexible) <= available {
		return false, nil
	}
	left := max(available-fixed, 0)
	scale(claims, left, flexible)
	if !m.Requests.Given && m.Requests.Bytes < least && least <= left {
		// Requests get their minimum first. The other defaults share the rest.
		m.Requests.Bytes = least
		others := claims[:len(claims)-1]
		if _, flexible := shares(others); flexible > left-least {
			scale(others, left-least, flexible)
		}
	}
	if fixed > available || m.Requests.Bytes < least {
		return false, m.tooMuch(claims, limit, least)
	}
	return true, nil
}

// shares returns the sum of the claims that the user gave, and that of the defaults.
func shares(claims []*Amount) (fixed, flexible int64) {
	for _, c := range claims {
		if c.Given {
			fixed = add(fixed, c.Bytes)
		} else {
			flexible = add(flexible, c.Bytes)
		}
	}
	return fixed, flexible
}

// scale scales the defaults among claims so that their sum becomes left. Their sum is flexible.
func scale(claims []*Amount, left, flexible int64) {
	for _, c := range claims {
		if !c.Given {
			c.Bytes = int64(float64(c.Bytes) * float64(left) / float64(flexible))
		}
	}
}

// tooMuch returns an error that names what the user gave. It names no default, because defaults are
// scaled down already.
func (m *Memory) tooMuch(claims []*Amount, limit, least int64) error {
	var parts []string
	for _, c := range claims {
		if c.Given {
			parts = append(parts, c.String())
		}
	}
	if !m.Requests.Given {
		parts = append(parts, fmt.Sprintf("at least %s for requests", wholeMiB(least)))
	}
	return fmt.Errorf("too much for the memory limit of %s, of which a quarter is kept free: "+
		"%s; lower a flag or raise the limit", units.Base2Bytes(limit), strings.Join(parts, ", "))
}

func partsTooLarge(whole *Amount, parts []*Amount) error {
	var names []string
	for _, p := range parts {
		names = append(names, p.String())
	}
	verb := "is"
	if len(parts) > 1 {
		verb = "are"
	}
	def := ""
	if !whole.Given {
		def = ", its default"
	}
	return fmt.Errorf("%s %s more than the whole, %s%s",
		strings.Join(names, " and "), verb, whole, def)
}

func sum(amounts []*Amount) (n int64) {
	for _, a := range amounts {
		n = add(n, a.Bytes)
	}
	return n
}

// add returns a + b, or the largest int64 if the sum overflows.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// minExpansions is what expanding the postings of a metric with half a million series takes.
const minExpansions = 8 << 20

// Expansions is the part of Requests for expanding postings, which requests share. It is a quarter,
// or up to a third if Requests is small.
func (m *Memory) Expansions() int64 {
	return max(m.Requests.Bytes/4, min(minExpansions, m.Requests.Bytes/3))
}

// LabelAnswers is the part of CacheBytes[SeriesSets] for answers to label requests. Both caches
// save a repeated query its decoding.
func (m *Memory) LabelAnswers() int64 { return m.CacheBytes[SeriesSets] / 6 }

// Messages is the part of Requests for request messages and the expressions compiled from them.
func (m *Memory) Messages() int64 { return m.Requests.Bytes / 8 }

// HalfReceived is for request messages that have not arrived completely. It is not part of
// Requests.
func (m *Memory) HalfReceived() int64 { return max(m.Messages(), 4<<20) }

// WholeObjects is the part of Documents for each of two buckets. The stack of a bucket holds
// objects there that it reads to their end before it delivers them.
func (m *Memory) WholeObjects() int64 { return m.Documents / 8 }

// minPages is the number of pages that a cache of pages must hold. A smaller cache evicts pages
// before they are read again.
const minPages = 16

// minBytes returns the size below which a cache of a kind is of no use.
func (m *Memory) minBytes(k Kind) int64 { return max(k.minBytes(), minPages*m.Page[k].Bytes) }
