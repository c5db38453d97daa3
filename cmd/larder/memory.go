package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/units"
)

// memoryConfig is how the process's memory is shared out, in bytes.
type memoryConfig struct {
	indexCache, chunkCache, requests                int64
	indexCacheGiven, chunkCacheGiven, requestsGiven bool
	// indexCacheFrom and chunkCacheFrom name what gave the caches their sizes, where that is not their flag.
	indexCacheFrom, chunkCacheFrom string

	// What fit decides by itself: open headers, their verified blocks, and the reads of the bucket on their way (for index and
	// chunk pages each).
	headers, headerBlocks, inFlight int64
}

const (
	defaultChunkCache = 512 << 20
	defaultRequests   = 1 << 30
	// minRequests is the least that a request of ordinary size needs to get anywhere.
	minRequests = 16 << 20
)

// fit fills in the defaults for a memory limit (0 = none) and sees to it that the three shares leave a quarter of it free: for
// headers, reads on their way, the catalog and the collector's slack. Defaults give way; what the user asked for does not, so a
// start that cannot go well is refused here and not ended later by the kernel.
func (m *memoryConfig) fit(limit int64) (scaled bool, err error) {
	m.headers, m.headerBlocks, m.inFlight = 256<<20, 64<<20, 256<<20
	if limit > 0 {
		m.headers, m.headerBlocks, m.inFlight = min(m.headers, limit/16), min(m.headerBlocks, limit/32), min(m.inFlight, limit/32)
	}
	if !m.chunkCacheGiven {
		m.chunkCache = defaultChunkCache
		if limit > 0 {
			m.chunkCache = limit / 5
		}
	}
	if !m.requestsGiven {
		m.requests = defaultRequests
		if limit > 0 {
			m.requests = limit / 4
		}
	}
	if limit <= 0 {
		return false, nil
	}
	room := limit - limit/4
	var fixed, flexible int64
	for _, s := range m.shares() {
		if s.given {
			fixed += *s.bytes
		} else {
			flexible += *s.bytes
		}
	}
	if fixed+flexible <= room {
		return false, nil
	}
	left := max(room-fixed, 0)
	for _, s := range m.shares() {
		if !s.given {
			*s.bytes = int64(float64(*s.bytes) * float64(left) / float64(flexible))
		}
	}
	least := max(min(minRequests, limit/4), 1)
	if !m.requestsGiven && m.requests < least && least <= left {
		m.giveRequests(least, left-least)
	}
	if fixed > room || m.requests < least {
		return false, m.tooMuch(limit, least)
	}
	return true, nil
}

// giveRequests gives requests the least that they can work with, and the caches that are not given what is left.
func (m *memoryConfig) giveRequests(least, left int64) {
	m.requests = least
	var caches int64
	for _, s := range m.shares()[:2] {
		if !s.given {
			caches += *s.bytes
		}
	}
	for _, s := range m.shares()[:2] {
		if !s.given {
			*s.bytes = min(*s.bytes, int64(float64(*s.bytes)*float64(left)/float64(max(caches, 1))))
		}
	}
}

// tooMuch names what the user gave, and only that: it is what can be changed.
func (m *memoryConfig) tooMuch(limit, least int64) error {
	var parts []string
	for _, s := range m.shares() {
		if s.given {
			parts = append(parts, fmt.Sprintf("%s %s", s.from, units.Base2Bytes(*s.bytes)))
		}
	}
	if !m.requestsGiven {
		parts = append(parts, fmt.Sprintf("at least %s for requests", wholeMiB(least)))
	}
	return fmt.Errorf("too much for the memory limit of %s, of which a quarter is kept free: %s; lower a flag or raise the limit",
		units.Base2Bytes(limit), strings.Join(parts, ", "))
}

type share struct {
	from  string
	bytes *int64
	given bool
}

// shares are the two caches, then requests.
func (m *memoryConfig) shares() []share {
	return []share{
		{cmp.Or(m.indexCacheFrom, "--index-cache-size"), &m.indexCache, m.indexCacheGiven},
		{cmp.Or(m.chunkCacheFrom, "--chunk-cache-size"), &m.chunkCache, m.chunkCacheGiven},
		{"--store.request-bytes", &m.requests, m.requestsGiven},
	}
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

func (m *memoryConfig) log(logger *slog.Logger, limit int64, scaled bool) {
	attrs := []any{"index_cache", wholeMiB(m.indexCache), "chunk_cache", wholeMiB(m.chunkCache), "requests", wholeMiB(m.requests)}
	if limit > 0 {
		attrs = append(attrs, "limit", wholeMiB(limit))
	}
	if scaled {
		logger.Warn("memory: the defaults do not fit into the limit and were scaled down", attrs...)
		return
	}
	logger.Info("memory", attrs...)
}
