package config

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
)

// Memory is how the process's memory is shared out.
type Memory struct {
	// What flags and documents say of the caches. total is for all of them, index for those of the index side, postings, series and
	// chunks for one each. They lie within one another, and what is said of a part counts before what is said of the whole.
	Total, Index, Postings, Series, Chunks Amount
	// off are the kinds that are not kept in memory.
	Off [Kinds]bool
	// page is what one page of a kind takes, zero for kinds that are not pages.
	Page [Kinds]Amount
	// indexWrites and chunkWrites are for what waits to be written to memcached, nil without memcached.
	IndexWrites, ChunkWrites *Amount
	Requests                 Amount

	// What fit makes of it, in bytes: what each kind may hold, and, out of what is kept free, open
	// headers, headers that are being built, the reads of the bucket on their way (for index and chunk
	// pages each), and the catalog's documents while they are read and decoded.
	Kept                      [Kinds]int64
	from                      [Kinds]string // where to change the size of a kind; "" for one that nobody wants
	Headers, Builds, InFlight int64
	Documents                 int64
}

// Amount is memory for something.
type Amount struct {
	Bytes int64
	Given bool   // by the user
	From  string // where to change it
}

func (a *Amount) String() string { return fmt.Sprintf("%s %s", a.From, units.Base2Bytes(a.Bytes)) }

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
func (m *Memory) Fit(limit int64) (scaled bool, err error) {
	m.Headers, m.Builds, m.InFlight, m.Documents = 256<<20, 64<<20, 256<<20, 96<<20
	if limit > 0 {
		m.Headers, m.Builds, m.InFlight = min(m.Headers, limit/16), min(m.Builds, limit/32), min(m.InFlight, limit/32)
		m.Documents = min(m.Documents, limit/32)
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
		if d.of.Bytes > 0 { // else nothing is what was asked for
			for _, k := range d.to {
				m.from[k] = d.of.From
			}
		}
		d.divide(m.least, &m.Kept)
	}
	return scaled, nil
}

// defaults fills in what does not depend on anything else.
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

// claims are the shares that must fit beside one another, that of requests the last, and how those of caches are divided.
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
		divisions = append(divisions, division{of: &m.Total, less: sum(inside), to: slices.Concat(indexKinds, chunkKinds, []Kind{HeaderBlocks})})
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
	claim(&m.Requests)
	return claims, divisions, nil
}

// own sorts kinds into those that have a figure of their own, which is put into kept, and those that have none.
func (m *Memory) own(of ...Kind) (figures []*Amount, without []Kind) {
	given := map[Kind]*Amount{ExpandedPostings: &m.Postings, SeriesSets: &m.Series, ChunkPages: &m.Chunks}
	for _, k := range of {
		switch a := given[k]; {
		case m.Off[k]:
		case a != nil && a.Given:
			figures = append(figures, a)
			if m.Kept[k] = a.Bytes; a.Bytes > 0 {
				m.from[k] = a.From
			}
		default:
			without = append(without, k)
		}
	}
	return figures, without
}

// shrink makes the claims that nobody gave smaller until all fit into three quarters of the limit,
// less what is for documents where that leaves enough.
func (m *Memory) shrink(claims []*Amount, limit int64) (scaled bool, err error) {
	room := limit - limit/4
	least := max(min(minRequests, limit/4), 1)
	fixed, flexible := shares(claims)
	// Documents take from what the user did not give, so that the quarter stays free.
	room = max(room-m.Documents, min(room, fixed+least))
	if add(fixed, flexible) <= room {
		return false, nil
	}
	left := max(room-fixed, 0)
	scale(claims, left, flexible)
	if !m.Requests.Given && m.Requests.Bytes < least && least <= left {
		// Requests get the least that they can work with, and the others what is left.
		m.Requests.Bytes = least
		others := claims[:len(claims)-1]
		if _, flexible := shares(others); flexible > left-least {
			scale(others, left-least, flexible)
		}
	}
	if fixed > room || m.Requests.Bytes < least {
		return false, m.tooMuch(claims, limit, least)
	}
	return true, nil
}

// shares adds up what the user gave and what not.
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

// scale makes the claims that nobody gave, which come to flexible, come to left.
func scale(claims []*Amount, left, flexible int64) {
	for _, c := range claims {
		if !c.Given {
			c.Bytes = int64(float64(c.Bytes) * float64(left) / float64(flexible))
		}
	}
}

// tooMuch names what the user gave, and only that: it is what can be changed.
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
	return fmt.Errorf("too much for the memory limit of %s, of which a quarter is kept free: %s; lower a flag or raise the limit",
		units.Base2Bytes(limit), strings.Join(parts, ", "))
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
	return fmt.Errorf("%s %s more than the whole, %s%s", strings.Join(names, " and "), verb, whole, def)
}

func sum(amounts []*Amount) (n int64) {
	for _, a := range amounts {
		n = add(n, a.Bytes)
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

// MemoryLimit returns what the process may use: GOMEMLIMIT, which it first sets from the container's limit if auto is on and
// the environment does not set it, else the container's limit, else 0.
func MemoryLimit(auto bool, ratio float64) (int64, error) {
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
func (m *Memory) Expansions() int64 {
	return max(m.Requests.Bytes/4, min(leastExpansions, m.Requests.Bytes/3))
}

// texts is the part of what is for requests that is for their messages and what expressions compile to, from their arrival on.
func (m *Memory) Texts() int64 { return m.Requests.Bytes / 8 }

// incomplete is for messages of requests that are being received.
func (m *Memory) Incomplete() int64 { return max(m.Texts(), 4<<20) }

// wholes is the part of what is for documents that each of two buckets has, to hold them until they
// have come to their end.
func (m *Memory) Wholes() int64 { return m.Documents / 8 }

// Figure is what a use of memory may hold, under its name in the log.
type Figure struct {
	Name  string
	Bytes int64
}

// Figures are the allowances that the log of the start and the page show.
func (m *Memory) Figures() []Figure {
	var out []Figure
	add := func(name string, bytes int64) {
		out = append(out, Figure{Name: name, Bytes: int64(wholeMiB(bytes))})
	}
	for k := range Kinds {
		add(k.String(), m.Kept[k])
	}
	if m.IndexWrites != nil {
		add("index_memcached_writes", m.IndexWrites.Bytes)
	}
	if m.ChunkWrites != nil {
		add("chunk_memcached_writes", m.ChunkWrites.Bytes)
	}
	add("requests", m.Requests.Bytes)
	return out
}

// sum adds up what fit has shared out.
func (m *Memory) sum() int64 {
	all := add(add(m.Headers, m.Builds), add(2*m.InFlight+m.Documents, m.Requests.Bytes))
	for _, n := range m.Kept {
		all = add(all, n)
	}
	for _, writes := range []*Amount{m.IndexWrites, m.ChunkWrites} {
		if writes != nil {
			all = add(all, writes.Bytes)
		}
	}
	return all
}

// WarnAboveMachine says that the allowances do not fit into the machine, which only the kernel
// would say otherwise. machine is its memory, 0 where that is not known.
func (m *Memory) WarnAboveMachine(logger *slog.Logger, limit, machine int64) {
	all := m.sum()
	if limit > 0 || machine <= 0 || all <= machine {
		return
	}
	logger.Warn("memory: the allowances are more than the machine has", "allowances", wholeMiB(all), "machine", wholeMiB(machine),
		"lower", "--cache-size or --store.request-bytes", "or_set", "GOMEMLIMIT or a limit of the container, to which the defaults are scaled")
}

// machineMemory is the memory of the machine, 0 where it is not known.
func MachineMemory() int64 {
	n, err := memlimit.FromSystem()
	if err != nil || n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}

func (m *Memory) Log(logger *slog.Logger, limit int64, scaled bool) {
	var attrs []any
	for _, f := range m.Figures() {
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
	for k := range Kinds {
		m.warnTooLittle(k, logger)
	}
}

// leastPages are what a kind that is kept in pages needs room for: fewer make room for one another before they are asked for again.
const leastPages = 16

// least is what a kind needs to be of use.
func (m *Memory) least(k Kind) int64 { return max(k.least(), leastPages*m.Page[k].Bytes) }

// warnTooLittle says which kind has less than it can use, and what to change. Of a kind that has nothing because a small whole went to others
// the figures tell; not so if it is the size of its pages that makes the whole a small one.
func (m *Memory) warnTooLittle(k Kind, logger *slog.Logger) {
	n, least := m.Kept[k], m.least(k)
	if m.from[k] == "" || n >= least || n == 0 && least == k.least() {
		return
	}
	attrs := []any{"kind", k.String(), "size", units.Base2Bytes(n), "least", units.Base2Bytes(least), "raise", m.from[k]}
	if least > k.least() {
		attrs = append(attrs, "or_lower", m.Page[k].String())
	}
	logger.Warn("memory: too little to keep much of a kind", attrs...)
}
