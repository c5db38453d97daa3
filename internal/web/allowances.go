package web

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// allowance is a row of the memory table of the overview.
type allowance struct {
	Name       string
	Used, Max  int64
	Measured   bool // Used is known
	Limited    bool // Max is known; 0 is off
	Boundless  bool // it has no limit
	Requests   float64
	HitPercent float64
	Over       []point // hit ratio over time
}

// Filled returns how much of the limit is in use, in percent.
func (a allowance) Filled() float64 {
	if a.Max <= 0 {
		return 0
	}
	return min(float64(a.Used)/float64(a.Max)*100, 100)
}

// Use says what the memory is for, "" where the name does.
func (a allowance) Use() string {
	name, _, _ := strings.Cut(a.Name, " in ")
	switch strings.TrimSuffix(name, " on disk") {
	case "index pages":
		return "pieces of index files: series and their labels"
	case "chunk pages":
		return "pieces of chunk files: samples"
	case "expanded postings":
		return "which series of a block match a selector"
	case "series sets":
		return "labels of all series that match a selector"
	case "label answers":
		return "answers to label requests, part of series sets"
	case "header blocks":
		return "pieces of index headers"
	case "open index headers":
		return "where to look in the index headers of blocks"
	case "requests":
		return "reserved by requests that run or wait"
	}
	return ""
}

// Allowance is the limit of one use of memory.
type Allowance struct {
	Name  string
	Bytes int64
}

// nameInLog maps a cache's name in metrics to its name in the log of the start.
func nameInLog(cache string) string {
	switch cache {
	case "index":
		return "index_pages"
	case "chunks":
		return "chunk_pages"
	case "postings":
		return "expanded_postings"
	}
	return cache
}

// allowances reads the bytes in use from the metrics. The limits are those of given, where it has
// one: the limits in metrics are lower, because caches and accounts reserve parts for themselves.
func allowances(g prometheus.Gatherer, given []Allowance) []allowance {
	families, _ := g.Gather() // with an error it still returns what it could gather
	byName := map[string]*allowance{}
	line := func(name string) *allowance {
		name = strings.ReplaceAll(name, "_", " ")
		if byName[name] == nil {
			byName[name] = &allowance{Name: name}
		}
		return byName[name]
	}
	cache := func(m *dto.Metric) *allowance { return line(cacheName(m)) }
	use := func(a *allowance, bytes float64) { a.Used, a.Measured = a.Used+int64(bytes), true }
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch v := value(m); f.GetName() {
			case "larder_cache_bytes":
				use(cache(m), v)
			case "larder_cache_max_bytes":
				cache(m).Max += int64(v)
				cache(m).Limited = true
			case "larder_cache_requests_total":
				cache(m).Requests += v
			case "larder_cache_hits_total":
				cache(m).HitPercent += v // becomes a percentage below
			case "larder_request_allowance_bytes":
				switch label(m, "state") {
				case "in_use":
					use(line("requests"), v)
				case "limit":
					line("requests").Max = int64(v)
				}
			case "larder_header_open_bytes":
				use(line("open index headers"), v)
			case "larder_header_block_cache_bytes":
				use(line("header_blocks"), v)
			}
		}
	}
	for _, a := range given {
		l := line(a.Name)
		l.Max, l.Limited = a.Bytes, true
	}
	var out []allowance
	for _, a := range byName {
		if a.Requests > 0 {
			a.HitPercent *= 100 / a.Requests
		}
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b allowance) int {
		return strings.Compare(a.Name, b.Name)
	})
	return append(out, wholeProcess())
}

// wholeProcess returns the memory that counts for GOMEMLIMIT.
func wholeProcess() allowance {
	read := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(read)
	a := allowance{
		Name: "whole process (GOMEMLIMIT)", Measured: true,
		Used: int64(read[0].Value.Uint64() - read[1].Value.Uint64()),
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		a.Max = limit
	} else {
		a.Boundless = true
	}
	return a
}

func value(m *dto.Metric) float64 {
	if c := m.GetCounter(); c != nil {
		return c.GetValue()
	}
	return m.GetGauge().GetValue()
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
