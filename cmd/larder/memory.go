package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/units"

	"larder/internal/memcached"
	"larder/internal/web"
)

// memoryConfig is how the process's memory is shared out.
type memoryConfig struct {
	// What flags and documents say of the caches. total is for all of them, index for those of the index side, postings, series and
	// chunks for one each. They lie within one another, and what is said of a part counts before what is said of the whole.
	total, index, postings, series, chunks amount
	// off are the kinds that are not kept in memory.
	off [kinds]bool
	// page is what one page of a kind takes, zero for kinds that are not pages.
	page [kinds]amount
	// indexWrites and chunkWrites are for what waits to be written to memcached, nil without memcached.
	indexWrites, chunkWrites *amount
	requests                 amount

	// What fit makes of it, in bytes: what each kind may hold, and, out of what is kept free, open
	// headers, headers that are being built, the reads of the bucket on their way (for index and chunk
	// pages each), and the catalog's documents while they are read and decoded.
	kept                      [kinds]int64
	from                      [kinds]string // where to change the size of a kind; "" for one that nobody wants
	headers, builds, inFlight int64
	documents                 int64
}

// amount is memory for something.
type amount struct {
	bytes int64
	given bool   // by the user
	from  string // where to change it
}

func (a *amount) String() string { return fmt.Sprintf("%s %s", a.from, units.Base2Bytes(a.bytes)) }

const (
	defaultIndexCache = 250 << 20
	// defaultSeriesSets is for series sets where they are all of the index side that is kept in memory: what they get of defaultIndexCache.
	defaultSeriesSets   = 75 << 20
	defaultChunkCache   = 512 << 20
	defaultHeaderBlocks = 64 << 20
	defaultRequests     = 1 << 30
	// defaultWrites is for what waits to be written to one memcached.
	defaultWrites = memcached.DefaultMaxAsyncBufferBytes
	// minRequests is the least that a request of ordinary size needs to get anywhere.
	minRequests = 16 << 20
)

// fit fills in the defaults for a memory limit (0 = none), sees to it that all shares leave a quarter of it free (for headers, reads
// on their way, the catalog and the collector's slack) and divides those of the caches among the kinds. Defaults give way; what the
// user asked for does not, so a start that cannot go well is refused here and not ended later by the kernel.
func (m *memoryConfig) fit(limit int64) (scaled bool, err error) {
	m.headers, m.builds, m.inFlight, m.documents = 256<<20, 64<<20, 256<<20, 96<<20
	if limit > 0 {
		m.headers, m.builds, m.inFlight = min(m.headers, limit/16), min(m.builds, limit/32), min(m.inFlight, limit/32)
		m.documents = min(m.documents, limit/32)
	}
	m.defaults(limit)
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
		if d.of.bytes > 0 { // else nothing is what was asked for
			for _, k := range d.to {
				m.from[k] = d.of.from
			}
		}
		d.divide(m.least, &m.kept)
	}
	return scaled, nil
}

// defaults fills in what does not depend on anything else.
func (m *memoryConfig) defaults(limit int64) {
	part := func(a *amount, fixed, ofLimit int64) {
		if a == nil || a.given {
			return
		}
		if a.bytes = fixed; limit > 0 {
			a.bytes = ofLimit
		}
	}
	part(&m.chunks, defaultChunkCache, limit/5)
	part(&m.requests, defaultRequests, limit/4)
	part(m.indexWrites, defaultWrites, min(defaultWrites, limit/32))
	part(m.chunkWrites, defaultWrites, min(defaultWrites, limit/32))
	if m.index.given {
		return
	}
	if m.index.bytes = defaultIndexCache; m.off[indexPages] && m.off[expandedPostings] {
		m.index.bytes = defaultSeriesSets
	}
}

// claims are the shares that must fit beside one another, that of requests the last, and how those of caches are divided.
func (m *memoryConfig) claims() (claims []*amount, divisions []division, err error) {
	claim := func(a *amount) { claims = append(claims, a) }
	indexOwn, indexKinds := m.own(indexPages, expandedPostings, seriesSets)
	chunkOwn, chunkKinds := m.own(chunkPages)
	if (m.index.given || len(indexKinds) > 0 && !m.total.given) && sum(indexOwn) > m.index.bytes {
		return nil, nil, partsTooLarge(&m.index, indexOwn)
	}
	if m.index.given {
		divisions = append(divisions, division{of: &m.index, less: sum(indexOwn), to: indexKinds})
		indexOwn, indexKinds = []*amount{&m.index}, nil
	}
	if m.total.given {
		inside := slices.Concat(indexOwn, chunkOwn)
		if sum(inside) > m.total.bytes {
			return nil, nil, partsTooLarge(&m.total, inside)
		}
		divisions = append(divisions, division{of: &m.total, less: sum(inside), to: slices.Concat(indexKinds, chunkKinds, []kind{headerBlocks})})
		claim(&m.total)
	} else {
		claims = append(claims, slices.Concat(indexOwn, chunkOwn)...)
		rest := func(bytes int64, from string, to []kind) {
			if len(to) > 0 {
				a := &amount{bytes: bytes, from: from}
				claim(a)
				divisions = append(divisions, division{of: a, to: to})
			}
		}
		rest(m.index.bytes-sum(indexOwn), m.index.from, indexKinds)
		rest(m.chunks.bytes, m.chunks.from, chunkKinds)
		rest(min(defaultHeaderBlocks, m.headers/2), m.total.from, []kind{headerBlocks})
	}
	for _, writes := range []*amount{m.indexWrites, m.chunkWrites} {
		if writes != nil {
			claim(writes)
		}
	}
	claim(&m.requests)
	return claims, divisions, nil
}

// own sorts kinds into those that have a figure of their own, which is put into kept, and those that have none.
func (m *memoryConfig) own(of ...kind) (figures []*amount, without []kind) {
	given := map[kind]*amount{expandedPostings: &m.postings, seriesSets: &m.series, chunkPages: &m.chunks}
	for _, k := range of {
		switch a := given[k]; {
		case m.off[k]:
		case a != nil && a.given:
			figures = append(figures, a)
			if m.kept[k] = a.bytes; a.bytes > 0 {
				m.from[k] = a.from
			}
		default:
			without = append(without, k)
		}
	}
	return figures, without
}

// shrink makes the claims that nobody gave smaller until all fit into three quarters of the limit,
// less what is for documents where that leaves enough.
func (m *memoryConfig) shrink(claims []*amount, limit int64) (scaled bool, err error) {
	room := limit - limit/4
	least := max(min(minRequests, limit/4), 1)
	fixed, flexible := shares(claims)
	// Documents take from what the user did not give, so that the quarter stays free.
	room = max(room-m.documents, min(room, fixed+least))
	if add(fixed, flexible) <= room {
		return false, nil
	}
	left := max(room-fixed, 0)
	scale(claims, left, flexible)
	if !m.requests.given && m.requests.bytes < least && least <= left {
		// Requests get the least that they can work with, and the others what is left.
		m.requests.bytes = least
		others := claims[:len(claims)-1]
		if _, flexible := shares(others); flexible > left-least {
			scale(others, left-least, flexible)
		}
	}
	if fixed > room || m.requests.bytes < least {
		return false, m.tooMuch(claims, limit, least)
	}
	return true, nil
}

// shares adds up what the user gave and what not.
func shares(claims []*amount) (fixed, flexible int64) {
	for _, c := range claims {
		if c.given {
			fixed = add(fixed, c.bytes)
		} else {
			flexible = add(flexible, c.bytes)
		}
	}
	return fixed, flexible
}

// scale makes the claims that nobody gave, which come to flexible, come to left.
func scale(claims []*amount, left, flexible int64) {
	for _, c := range claims {
		if !c.given {
			c.bytes = int64(float64(c.bytes) * float64(left) / float64(flexible))
		}
	}
}

// tooMuch names what the user gave, and only that: it is what can be changed.
func (m *memoryConfig) tooMuch(claims []*amount, limit, least int64) error {
	var parts []string
	for _, c := range claims {
		if c.given {
			parts = append(parts, c.String())
		}
	}
	if !m.requests.given {
		parts = append(parts, fmt.Sprintf("at least %s for requests", wholeMiB(least)))
	}
	return fmt.Errorf("too much for the memory limit of %s, of which a quarter is kept free: %s; lower a flag or raise the limit",
		units.Base2Bytes(limit), strings.Join(parts, ", "))
}

func partsTooLarge(whole *amount, parts []*amount) error {
	var names []string
	for _, p := range parts {
		names = append(names, p.String())
	}
	verb := "is"
	if len(parts) > 1 {
		verb = "are"
	}
	def := ""
	if !whole.given {
		def = ", its default"
	}
	return fmt.Errorf("%s %s more than the whole, %s%s", strings.Join(names, " and "), verb, whole, def)
}

func sum(amounts []*amount) (n int64) {
	for _, a := range amounts {
		n = add(n, a.bytes)
	}
	return n
}

// add keeps sizes that nobody has from becoming negative ones.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// wholeMiB is a size for people: what a share of a limit comes to ends in a row of odd kibibytes.
func wholeMiB(n int64) units.Base2Bytes {
	if n >= 1<<20 {
		n -= n % (1 << 20)
	}
	return units.Base2Bytes(n)
}

// memoryLimit returns what the process may use: GOMEMLIMIT, which it first sets from the container's limit if auto is on and
// the environment does not set it, else the container's limit, else 0.
func memoryLimit(auto bool, ratio float64) (int64, error) {
	container, err := memlimit.FromCgroup()
	switch {
	case errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		container = 0
	case err != nil:
		return 0, fmt.Errorf("memory limit of the container: %w", err)
	}
	_, byEnv := os.LookupEnv("GOMEMLIMIT")
	if auto && !byEnv && container > 0 && container < math.MaxInt64 {
		debug.SetMemoryLimit(int64(float64(container) * ratio))
	}
	if l := debug.SetMemoryLimit(-1); l < math.MaxInt64 {
		return l, nil
	}
	if container >= math.MaxInt64 {
		return 0, nil
	}
	return int64(container), nil
}

// leastExpansions is what finding the postings of a metric of half a million series takes.
const leastExpansions = 8 << 20

// expansions is the part of what is for requests that is for finding their postings, which they share: a quarter, up to a third where that is little.
func (m *memoryConfig) expansions() int64 {
	return max(m.requests.bytes/4, min(leastExpansions, m.requests.bytes/3))
}

// texts is the part of what is for requests that is for their messages and what expressions compile to, from their arrival on.
func (m *memoryConfig) texts() int64 { return m.requests.bytes / 8 }

// incomplete is for messages of requests that are being received.
func (m *memoryConfig) incomplete() int64 { return max(m.texts(), 4<<20) }

// wholes is the part of what is for documents that each of two buckets has, to hold them until they
// have come to their end.
func (m *memoryConfig) wholes() int64 { return m.documents / 8 }

// figures are the allowances that the log of the start and the page show.
func (m *memoryConfig) figures() []web.Allowance {
	var out []web.Allowance
	add := func(name string, bytes int64) {
		out = append(out, web.Allowance{Name: name, Bytes: int64(wholeMiB(bytes))})
	}
	for k := range kinds {
		add(k.String(), m.kept[k])
	}
	if m.indexWrites != nil {
		add("index_memcached_writes", m.indexWrites.bytes)
	}
	if m.chunkWrites != nil {
		add("chunk_memcached_writes", m.chunkWrites.bytes)
	}
	add("requests", m.requests.bytes)
	return out
}

// sum adds up what fit has shared out.
func (m *memoryConfig) sum() int64 {
	all := add(add(m.headers, m.builds), add(2*m.inFlight+m.documents, m.requests.bytes))
	for _, n := range m.kept {
		all = add(all, n)
	}
	for _, writes := range []*amount{m.indexWrites, m.chunkWrites} {
		if writes != nil {
			all = add(all, writes.bytes)
		}
	}
	return all
}

// warnAboveMachine says that the allowances do not fit into the machine, which only the kernel
// would say otherwise. machine is its memory, 0 where that is not known.
func (m *memoryConfig) warnAboveMachine(logger *slog.Logger, limit, machine int64) {
	all := m.sum()
	if limit > 0 || machine <= 0 || all <= machine {
		return
	}
	logger.Warn("memory: the allowances are more than the machine has", "allowances", wholeMiB(all), "machine", wholeMiB(machine),
		"lower", "--cache-size or --store.request-bytes", "or_set", "GOMEMLIMIT or a limit of the container, to which the defaults are scaled")
}

// machineMemory is the memory of the machine, 0 where it is not known.
func machineMemory() int64 {
	n, err := memlimit.FromSystem()
	if err != nil || n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}

func (m *memoryConfig) log(logger *slog.Logger, limit int64, scaled bool) {
	var attrs []any
	for _, f := range m.figures() {
		attrs = append(attrs, f.Name, units.Base2Bytes(f.Bytes))
	}
	if limit > 0 {
		attrs = append(attrs, "limit", wholeMiB(limit))
	}
	if scaled {
		logger.Warn("memory: the defaults do not fit into the limit and were scaled down", attrs...)
	} else {
		logger.Info("memory", attrs...)
	}
	for k := range kinds {
		m.warnTooLittle(k, logger)
	}
}

// leastPages are what a kind that is kept in pages needs room for: fewer make room for one another before they are asked for again.
const leastPages = 16

// least is what a kind needs to be of use.
func (m *memoryConfig) least(k kind) int64 { return max(k.least(), leastPages*m.page[k].bytes) }

// warnTooLittle says which kind has less than it can use, and what to change. Of a kind that has nothing because a small whole went to others
// the figures tell; not so if it is the size of its pages that makes the whole a small one.
func (m *memoryConfig) warnTooLittle(k kind, logger *slog.Logger) {
	n, least := m.kept[k], m.least(k)
	if m.from[k] == "" || n >= least || n == 0 && least == k.least() {
		return
	}
	attrs := []any{"kind", k.String(), "size", units.Base2Bytes(n), "least", units.Base2Bytes(least), "raise", m.from[k]}
	if least > k.least() {
		attrs = append(attrs, "or_lower", m.page[k].String())
	}
	logger.Warn("memory: too little to keep much of a kind", attrs...)
}
